"""From tried candidates to the release on disk and the report of its build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from converters.caching.cache import DEFAULT_MAX_BYTES
from converters.errors import BadRecipe, ConvertError
from converters.evaluation import golden
from converters.evaluation.disagreement import Example
from converters.evaluation.golden_spec import GOLDEN_LAYER
from converters.pipeline.candidates import Result
from converters.pipeline.coral import take_to_coral
from converters.pipeline.material import Order, Reference
from converters.planning.judge import failed_targets, same_instructions, unjudged_latency
from converters.planning.methods import describe_method
from converters.planning.planner import Plan
from converters.planning.recipe import Recipe
from converters.release.device_build import trtexec_command
from converters.release.draft import CARD_LAYER, NOTICE_LAYER, with_seen_shapes
from converters.release.packaging import Written, write_release
from converters.report.build_report import BuildReport, DataSet, Row
from devices.probe import read_machine
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import Calibration, ReleaseManifest, Waiver


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a build is told besides its recipe."""

    base: Path
    """Folder that the recipe's paths are relative to."""
    out: Path
    force: bool = False
    accuracy_gate: bool = True
    allow_failed_golden: bool = False
    golden_from: Path | None = None
    compile_timeout_s: float = 1800.0
    emulates: bool = True
    """Whether int8 variants are asked on instruction sets that only an emulator has here."""
    aarch64_root: Path | None = None
    """Root file system with an aarch64 Python, in which int8 variants are asked as well."""
    cache: Path | None = None
    """Folder where finished stages are kept; None: nothing is kept."""
    cache_max_bytes: int = DEFAULT_MAX_BYTES
    command: str = ""
    """What makes this release again, for the report."""


def finish(order: Order, options: BuildOptions, results: list[Result]) -> BuildReport:
    """Write the release and say what was found.

    Raises:
        ConvertError: the plain float variant does not pass; nothing is written.
        CannotWrite: no permission, disk full, read-only.
    """
    anchor = next(result for result in results if result.candidate.id == order.plan.anchor)
    if not anchor.judgement.ships:
        raise ConvertError(
            "build the release", f"its plain float variant fails: {anchor.judgement.because}",
            "look at the recipe's outputs, steps and thresholds (golden) first; if they are right, report this model",
        )  # fmt: skip
    coral = take_to_coral(results, order.plan, timeout_s=options.compile_timeout_s, out=options.out)
    results = [*results, *coral.results]
    shipped = [one.measurement for one in results if one.measurement and one.judgement.ships]
    refused = [one.measurement for one in results if one.measurement and not one.judgement.ships]
    draft, answers = order.material.draft.manifest, (one.float_outputs for one in order.reference.golden.samples)
    manifest = msgspec.structs.replace(
        draft,
        tensors=with_seen_shapes(draft.tensors, answers),
        variants=[one.built.manifest.id for one in shipped],
        golden=order.reference.spec,
        reference=order.reference.score,
        waivers=list(_waivers(order.recipe, options, order.reference)),
    )
    written = write_release(options.out, manifest, _layers(order, options.base), shipped, refused)
    report = _report(order, options.out, manifest, results, written)
    return msgspec.structs.replace(report, notes=[*report.notes, *coral.notes])


def _waivers(recipe: Recipe, options: BuildOptions, reference: Reference) -> tuple[Waiver, ...]:
    if options.accuracy_gate:
        return reference.waivers
    calibration = recipe.calibration.name if recipe.calibration else "none"
    detail = f"switched off for this build: loss of accuracy was measured, not judged; calibration set {calibration}"
    return (Waiver(check="accuracy_gate", detail=detail), *reference.waivers)


def _layers(order: Order, base: Path) -> dict[str, bytes]:
    layers: dict[str, bytes] = {GOLDEN_LAYER: golden.packed(order.reference.golden)}
    layers.update({str(title): content for title, content in order.material.layers.items()})
    licence = order.recipe.licence
    for title, name in ((NOTICE_LAYER, licence.attribution), (CARD_LAYER, licence.model_card)):
        if name is None:
            continue
        try:
            layers[title] = (base / name).read_bytes()
        except OSError as error:
            raise BadRecipe(f"read {name}", error.strerror or str(error), "correct licence in the recipe") from error
    return layers


def _report(order: Order, out: Path, manifest: ReleaseManifest, results: list[Result], written: Written) -> BuildReport:
    p95 = {
        one.candidate.id: one.measurement.evidence.latency_ms.p95
        for one in results
        if one.measurement and one.measurement.evidence.latency_ms
    }
    shipped = {one.candidate.id: one.judgement for one in results if one.judgement.ships}
    machine = read_machine()
    here = same_instructions(order.plan, machine.arch, machine.isa)
    first = next((one.measurement for one in results if one.measurement), None)
    return BuildReport(
        release=manifest.name,
        version=manifest.version,
        out=str(out),
        digest=written.release,
        metric=manifest.reference.metric if manifest.reference else "agreement",
        reference=manifest.reference.value if manifest.reference else None,
        count=len(order.material.evaluation.samples),
        where=first.evidence.where if first else None,
        rows=[_row(one, order, written.variants) for one in results],
        notes=[
            *order.plan.notes,
            *order.material.notes,
            *order.reference.notes,
            *_loud_licence(manifest),
            *_device_builds(results),
            *unjudged_latency(order.plan, machine.arch, machine.isa),
        ],
        waivers=manifest.waivers,
        failed_targets=failed_targets(order.plan, shipped, p95, manifest.limits, here=here),
        ci95=list(manifest.reference.ci95 or ()) if manifest.reference else [],
        task=manifest.task,
        prefer=order.plan.prefer,
        targets=_served(order.plan, results),
        limits=manifest.limits,
        source=manifest.source,
        calibration=_set_of(manifest.calibration),
        evaluation=DataSet(
            name=order.material.evaluation.root.name,
            count=len(order.material.evaluation.samples),
            digest=manifest.reference.evaluation if manifest.reference else None,
        ),
        preprocess=manifest.preprocess,
        postprocess=manifest.postprocess,
    )


def _served(plan: Plan, results: list[Result]) -> dict[str, list[str]]:
    """Shipped variants by profile."""
    return {
        profile.id: [
            one.candidate.id
            for one in results
            if profile.id in one.candidate.profiles and profile.arch in one.judgement.arch
        ]
        for profile in plan.profiles
    }


def _set_of(calibration: Calibration | None) -> DataSet | None:
    if calibration is None:
        return None
    return DataSet(name=calibration.name or "", count=calibration.count, digest=calibration.digest)


def _row(result: Result, order: Order, digests: Mapping[VariantId, Digest]) -> Row:
    evidence = result.measurement.evidence if result.measurement else None
    return Row(
        variant=result.candidate.id,
        engine=result.candidate.engine,
        precision=result.candidate.precision,
        arch=list(result.judgement.arch or result.candidate.arch),
        verdict=result.judgement.verdict,
        because=result.judgement.because,
        size_bytes=evidence.size_bytes or 0 if evidence else 0,
        drop=result.drop,
        digest=digests.get(result.candidate.id),
        evidence=evidence,
        sensitivity=result.sensitivity,
        method=describe_method(result.candidate.method),
        worst=[_named(example, order) for example in result.worst],
    )


def _named(example: Example, order: Order) -> Example:
    """With the sample's name, unless names may tell who is in it."""
    if order.recipe.golden.contains_personal_data:
        return example
    dataset = order.material.evaluation
    return msgspec.structs.replace(example, name=dataset.samples[example.position].name_in(dataset.root))


def _device_builds(results: list[Result]) -> list[str]:
    """How to build on a device, by hand, what its runtime builds from the plan."""
    shipped = [one.measurement.built.manifest for one in results if one.measurement and one.judgement.ships]
    return [f"{one.id} is built on the device: {trtexec_command(one)}" for one in shipped if one.build is not None]


def _loud_licence(manifest: ReleaseManifest) -> list[str]:
    if manifest.licence.spdx != "unknown":
        return []
    return ["LICENCE UNKNOWN: write licence.spdx, or nobody who receives this release knows what they may do with it"]
