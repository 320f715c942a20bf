"""The last step to a Coral board: an int8 file is looked at for the Edge TPU, and compiled where the compiler is.

Nothing here runs on an Edge TPU, so a compiled variant carries the numbers of the file it was compiled from, and says
so; that file ships beside it, because what the accelerator cannot do, or no longer does, a CPU does.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from converters.compilers.edgetpu import COMPILER, EdgeTpuLog, compile_for_edgetpu, find_compiler
from converters.errors import CompileFailed
from converters.model.tflite_file import parse_tflite
from converters.pipeline.candidates import Result
from converters.planning.judge import Judgement
from converters.planning.planner import EDGE_TPU, Plan
from converters.preflight.edgetpu import find_edgetpu, map_to_edgetpu
from converters.release.packaging import Measurement
from converters.release.variants import Built
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.evidence import Evidence
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import Compiled, VariantManifest

VARIANT: Final = VariantId("coral-int8")
_ROLE: Final = "model"


@dataclass(frozen=True, slots=True)
class Shipment:
    """What became of the int8 files that a Coral board could take."""

    results: tuple[Result, ...]
    """Compiled variants; none without the compiler."""
    notes: tuple[str, ...]


def take_to_coral(results: list[Result], plan: Plan, *, timeout_s: float, out: Path) -> Shipment:
    """Compile the best file for an Edge TPU, or say how.

    Args:
        results: every candidate with its verdict.
        plan: for the boards among its targets.
        timeout_s: limit for the compiler.
        out: where the release will lie, for the command that compiles by hand.
    """
    boards = {profile.id: profile.arch for profile in plan.profiles if profile.accelerator == EDGE_TPU}
    if not boards:
        return Shipment((), ())
    takers = [one for one in results if _could_be_compiled(one, set(boards))]
    if not takers:
        return Shipment((), ("no int8 TFLite file passed, so nothing runs on the Edge TPU of the Coral boards",))
    plain = takers[0]
    assert plain.measurement is not None
    content = plain.measurement.built.files[_ROLE]
    verdict = f"{plain.candidate.id}: {_verdict(content)}"
    compiler = find_compiler()
    if compiler is None:
        return Shipment((), (f"{verdict}; {COMPILER} is not here, run on x86-64 Linux: {command_for(content, out)}",))
    try:
        compiled, log = compile_for_edgetpu(content, compiler, timeout_s=timeout_s)
    except CompileFailed as error:
        return Shipment((), (f"{verdict}; but {error}",))
    arch = tuple(sorted(set(boards.values())))
    return Shipment((_compiled(plain, compiled, log, arch),), (f"{verdict}; {_said(log)}",))


def command_for(content: bytes, out: Path) -> str:
    """What compiles a file of a release by hand."""
    blob = out / "blobs" / "sha256" / digest_of(content).removeprefix("sha256:")
    return f"cp {shlex.quote(str(blob))} model.tflite && {COMPILER} -s model.tflite"


def _could_be_compiled(result: Result, boards: set[str]) -> bool:
    candidate = result.candidate
    is_integer = candidate.engine == "litert" and candidate.method.scheme in {"static", "source"}
    return is_integer and result.judgement.ships and bool(boards & set(candidate.profiles))


def _verdict(content: bytes) -> str:
    """What preflight expects of the compiler."""
    model = parse_tflite(content, "model.tflite")
    mapped, total = len(map_to_edgetpu(model.main).mapped), len(model.main.operators)
    problems = [one.message for one in find_edgetpu(model) if one.severity != "note"]
    expected = f"an Edge TPU can compute {mapped} of {total} operators"
    return f"{expected} ({'; '.join(problems)})" if problems else expected


def _said(log: EdgeTpuLog) -> str:
    total = log.mapped + log.unmapped
    said = f"compiled by {COMPILER} {log.version}, {log.mapped} of {total} mapped"
    left_out = ", ".join(f"{one.count} {one.kind}: {one.status}" for one in log.left_out)
    return f"{said} ({left_out})" if left_out else said


def _compiled(plain: Result, content: bytes, log: EdgeTpuLog, arch: tuple[str, ...]) -> Result:
    assert plain.measurement is not None
    built, evidence = plain.measurement.built, plain.measurement.evidence
    candidate = replace(plain.candidate, id=VARIANT, arch=arch)
    made = Built(candidate, _manifest(built.manifest, content, log, arch), {_ROLE: content}, built.own)
    return Result(candidate, Judgement(arch), Measurement(made, _evidence(evidence, built, content)), plain.drop)


def _manifest(plain: VariantManifest, content: bytes, log: EdgeTpuLog, arch: tuple[str, ...]) -> VariantManifest:
    (file,) = plain.files
    return msgspec.structs.replace(
        plain,
        id=VARIANT,
        target=msgspec.structs.replace(plain.target, provider=["edgetpu"], accelerator=EDGE_TPU, arch=list(arch)),
        files=[msgspec.structs.replace(file, digest=digest_of(content), size=len(content))],
        fallback=plain.id,
        compiled=Compiled(
            compiler=f"edgetpu {log.version}",
            mapped=log.mapped,
            unmapped=log.unmapped,
            on_chip_bytes=log.on_chip_bytes,
            off_chip_bytes=log.off_chip_bytes,
        ),
    )


def _evidence(plain: Evidence, built: Built, content: bytes) -> Evidence:
    """The accuracy of the same integers on a CPU; no latency and no memory, which only the board can tell."""
    detail = f"compiled from {built.manifest.id}, whose answers on a CPU these are; not run on an Edge TPU"
    return msgspec.structs.replace(plain, latency_ms=None, peak_bytes=None, size_bytes=len(content), detail=detail)
