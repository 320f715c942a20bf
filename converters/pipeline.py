"""Runs a build: read, ask the source model, try each candidate, package what passed; nothing half-done stays."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from converters import golden
from converters.candidates import Bench, Result, open_workshop, try_candidate
from converters.draft import CARD_LAYER, LABELS_LAYER, NOTICE_LAYER
from converters.emulation import Emulator, find_emulators
from converters.errors import BadRecipe, ConvertError
from converters.golden_spec import GOLDEN_LAYER
from converters.judge import NOT_NEEDED, Judgement, failed_targets, same_instructions
from converters.material import Order, Reference, read_material, refer
from converters.packaging import Written, check_destination, write_release
from converters.planner import Plan, plan_build
from converters.reading import facts_of
from converters.recipe import Recipe
from converters.report import BuildReport, Row
from converters.search import Tried, find_better
from converters.toolchains import TOOLCHAINS, find_installed
from converters.variants import Built
from converters.workshop import Workshop
from devices.catalogue import resolve_targets
from devices.probe import Machine, read_machine
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import Where
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import ReleaseManifest, Waiver
from edge_runtime.inference.facts import engines

Progress = Callable[[str, int, int], None]
"""Called with what begins now, how many steps are done, and how many there are."""

_STEPS_BESIDE_CANDIDATES = 4
_MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "nncf": "nncf", "litert": "ai_edge_litert"}


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


def plan_of(recipe: Recipe, base: Path) -> Plan:
    """What a build of this recipe would do here. Raises: UnknownTarget, BadRecipe, BadModel."""
    installed = {name: importlib.util.find_spec(module) is not None for name, module in _MODULES.items()}
    installed |= {name: find_installed(toolchain) is not None for name, toolchain in TOOLCHAINS.items()}
    return plan_build(recipe, resolve_targets(tuple(recipe.targets)), installed, facts_of(base / recipe.model))


def build(
    recipe: Recipe, options: BuildOptions, progress: Progress, *, begin: Callable[[], None] = lambda: None
) -> BuildReport:
    """Build a release into `options.out`.

    Args:
        recipe: what to build.
        options: what it is told besides.
        progress: told about each step.
        begin: called once, when the engines are imported and nothing is written yet: from here on an interrupt must be
            a KeyboardInterrupt, which an engine's import would take for a missing engine.

    Raises:
        EdgeError: nothing was written; the message says why and what to do.
    """
    plan = plan_of(recipe, options.base)
    total = _STEPS_BESIDE_CANDIDATES + len(plan.candidates)
    _check_gate(recipe, gate=options.accuracy_gate)
    check_destination(options.out, force=options.force)
    versions = {fact.name: fact.version for fact in engines({one.engine for one in plan.candidates})}
    begin()
    progress("reading model and data", 0, total)
    material = read_material(recipe, options.base, plan)
    try:
        with TemporaryDirectory(prefix="edge-convert-") as work:
            progress("asking the source model", 1, total)
            answers = Path(work) / "answers"
            reference = refer(
                material, answers, golden_from=options.golden_from, allow_failed=options.allow_failed_golden
            )
            order = Order(recipe, plan, material, reference)
            progress("preparing calibration", 2, total)
            workshop = open_workshop(order, Path(work), options.compile_timeout_s)
            results = _try_all(_bench(order, workshop, versions, gate=options.accuracy_gate), progress)
        progress("writing the release", total - 1, total)
        return _package(order, options, results)
    finally:
        material.source.close()


def _check_gate(recipe: Recipe, *, gate: bool) -> None:
    if gate and "int8" in recipe.precisions and not _says_what_may_be_lost(recipe):
        raise BadRecipe(
            "judge the candidates",
            "the recipe does not say how much accuracy may be lost",
            "write limits.max_drop (--max-drop 0.01), or without labels limits.min_agreement or limits.min_snr_db",
        )


def _says_what_may_be_lost(recipe: Recipe) -> bool:
    limits = recipe.limits
    return bool(limits.max_drop or limits.min_agreement or limits.min_snr_db)


def _try_all(bench: Bench, progress: Progress) -> list[Result]:
    results: list[Result] = []
    tried: list[Tried] = []
    floats: dict[str, Built] = {}
    candidates = bench.order.plan.candidates
    for number, candidate in enumerate(candidates):
        progress(f"trying {candidate.id}", 3 + number, _STEPS_BESIDE_CANDIDATES + len(candidates))
        if better := find_better(candidate, tried, bench.order.plan.prefer):
            results.append(Result(candidate, Judgement((), NOT_NEEDED, better)))
            continue
        result, built = try_candidate(candidate, bench, floats.get(candidate.engine))
        tried.append(Tried(candidate, result.judgement.ships, result.lost))
        if built is not None and candidate.precision == "float32":
            floats[candidate.engine] = built
        results.append(result)
    return results


def _bench(order: Order, workshop: Workshop, versions: Mapping[str, str], *, gate: bool) -> Bench:
    machine = read_machine()
    where = Where(
        arch=machine.arch, isa=list(machine.isa), cpu=machine.cpu, execution="native", engine="", tuned={"threads": 1}
    )
    return Bench(
        order=order,
        workshop=workshop,
        where=where,
        engines=versions,
        here=same_instructions(order.plan, machine.arch, machine.isa),
        gate=gate,
        at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        emulators=_emulators(machine, order.plan),
    )


def _emulators(machine: Machine, plan: Plan) -> tuple[Emulator, ...]:
    """Other instruction sets that can be asked; not even looked for when no candidate needs them."""
    methods = [candidate.method for candidate in plan.candidates]
    if all(method.is_overflow_safe or not method.is_quantised for method in methods):
        return ()
    return find_emulators(machine.arch, machine.isa, aarch64_root=None)


def _package(order: Order, options: BuildOptions, results: list[Result]) -> BuildReport:
    anchor = next(result for result in results if result.candidate.id == order.plan.anchor)
    if not anchor.judgement.ships:
        raise ConvertError(
            "build the release", f"its plain float variant fails: {anchor.judgement.because}", "report this model"
        )
    shipped = [one.measurement for one in results if one.measurement and one.judgement.ships]
    refused = [one.measurement for one in results if one.measurement and not one.judgement.ships]
    manifest = msgspec.structs.replace(
        order.material.draft.manifest,
        variants=[one.built.manifest.id for one in shipped],
        golden=order.reference.spec,
        reference=order.reference.score,
        waivers=list(_waivers(order.recipe, options, order.reference)),
    )
    written = write_release(options.out, manifest, _layers(order, options.base), shipped, refused)
    return _report(order, options.out, manifest, results, written)


def _waivers(recipe: Recipe, options: BuildOptions, reference: Reference) -> tuple[Waiver, ...]:
    if options.accuracy_gate:
        return reference.waivers
    calibration = recipe.calibration.name if recipe.calibration else "none"
    detail = f"switched off for this build: loss of accuracy was measured, not judged; calibration set {calibration}"
    return (Waiver(check="accuracy_gate", detail=detail), *reference.waivers)


def _layers(order: Order, base: Path) -> dict[str, bytes]:
    layers: dict[str, bytes] = {GOLDEN_LAYER: golden.packed(order.reference.golden)}
    if order.material.labels is not None:
        layers[LABELS_LAYER] = ("\n".join(order.material.labels) + "\n").encode()
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
        rows=[_row(one, written.variants) for one in results],
        notes=[
            *order.plan.notes, *order.material.notes, *order.reference.notes, *_loud_licence(manifest),
            *_latency_note(order.plan, here),
        ],
        waivers=manifest.waivers,
        failed_targets=failed_targets(order.plan, shipped, p95, manifest.limits, here=here),
    )


def _row(result: Result, digests: Mapping[VariantId, Digest]) -> Row:
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
    )


def _latency_note(plan: Plan, here: str | None) -> list[str]:
    if here is not None or plan.prefer != "latency":
        return []
    return ["no target has this machine's instruction set: latency is shown, and refuses nothing; devices decide"]


def _loud_licence(manifest: ReleaseManifest) -> list[str]:
    if manifest.licence.spdx != "unknown":
        return []
    return ["LICENCE UNKNOWN: write licence.spdx, or nobody who receives this release knows what they may do with it"]
