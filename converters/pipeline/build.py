"""Runs a build: read, ask the source model, try each candidate, package what passed; nothing half-done stays."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from converters.building.workshop import Workshop
from converters.caching.cache import Cache
from converters.caching.stages import Filled, Listener, Once, Stage, Stages, environment_here, pack
from converters.data.answers import check_answer_file
from converters.errors import BadDataset, BadRecipe, CannotWrite
from converters.evaluation.emulation import Emulator, list_emulators, try_emulator
from converters.pipeline.calibrating import write_calibration
from converters.pipeline.candidates import Bench, Result, open_workshop
from converters.pipeline.facts import Facts, calibration_stage, model_digest, source_stage
from converters.pipeline.finishing import BuildOptions, finish
from converters.pipeline.material import Material, Order, Reference, examine, read_material, refer
from converters.pipeline.pictures import pictures_of
from converters.pipeline.rounds import try_all
from converters.planning.age import age_notes
from converters.planning.judge import same_instructions
from converters.planning.planner import Plan, plan_build
from converters.planning.recipe import Recipe
from converters.reading import facts_of
from converters.release.packaging import check_destination
from converters.report.build_report import BuildReport
from converters.toolchains import TOOLCHAINS, find_installed
from devices.catalogue import resolve_targets
from devices.probe import Machine, read_machine
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.evidence import Where
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.contract.release import GoldenSpec, ReferenceScore, Waiver
from edge_runtime.inference.checks.golden import GoldenSet
from edge_runtime.inference.facts import engines
from edge_runtime.interrupt import interrupts_held

_MODULES: Final = {"onnxruntime": "onnxruntime", "openvino": "openvino", "nncf": "nncf", "litert": "ai_edge_litert"}
_ANSWERS: Final = "answers"
_SAID: Final = "said.msgpack"
_PICTURES_MAX: Final = 24


@dataclass(frozen=True, slots=True)
class _Run:
    """One build under way."""

    recipe: Recipe
    plan: Plan
    options: BuildOptions
    stages: Stages
    machine: Machine
    work: Path
    """Gone when the build ends."""

    def folder(self, name: str) -> Path:
        """A new folder in it."""
        path = self.work / name
        path.mkdir()
        return path


@dataclass(frozen=True, slots=True)
class _Said:
    """What the source model said, without its answers to the evaluation set: those are a file."""

    golden: GoldenSet
    spec: GoldenSpec
    score: ReferenceScore | None
    waivers: tuple[Waiver, ...]
    notes: tuple[str, ...]


def plan_of(recipe: Recipe, base: Path) -> Plan:
    """What a build of this recipe would do here. Raises: UnknownTarget, BadRecipe, BadModel."""
    installed = {name: importlib.util.find_spec(module) is not None for name, module in _MODULES.items()}
    installed |= {name: find_installed(toolchain) is not None for name, toolchain in TOOLCHAINS.items()}
    return plan_build(recipe, resolve_targets(tuple(recipe.targets)), installed, facts_of(base / recipe.model))


def build(
    recipe: Recipe, options: BuildOptions, listener: Listener, *, begin: Callable[[], None] = lambda: None
) -> BuildReport:
    """Build a release into `options.out`.

    Args:
        recipe: what to build.
        options: what it is told besides.
        listener: told about each stage.
        begin: called once, before anything is read or written: from here on an interrupt must be a KeyboardInterrupt,
            after which nothing is left behind.

    Raises:
        EdgeError: nothing was written; the message says why and what to do.
    """
    plan = plan_of(recipe, options.base)
    _check_gate(recipe, gate=options.accuracy_gate)
    check_destination(options.out, force=options.force)
    begin()
    machine = read_machine()
    environment = environment_here({"arch": machine.arch, "cpu": machine.cpu, "isa": list(machine.isa)})
    cache = Cache(options.cache, options.cache_max_bytes) if options.cache else None
    stages = Stages(environment, cache, listener, prepare=lambda: _import_engines(plan))
    material = stages.step("read", "model and data", lambda: read_material(recipe, options.base, plan))
    with _work_folder() as work:
        run = _Run(recipe, plan, options, stages, machine, work)
        facts, answers = _ask_source(material, run)
        results = try_all(_bench(facts, answers, run), stages, facts)
        pictures = _pictures(facts, results, stages)
    report = stages.step("write", "release", lambda: finish(facts.order, options, results))
    trouble = [cache.problem] if cache and cache.problem else []
    return msgspec.structs.replace(
        report,
        stages=stages.log,
        notes=[*report.notes, *_ages(results), *trouble],
        tools=dict(environment.tools),
        command=options.command,
        pictures=pictures,
    )


def _ages(results: list[Result]) -> list[str]:
    measured = [one.measurement.evidence for one in results if one.measurement]
    return age_notes([one.at for one in measured if one.latency_ms], datetime.now(timezone.utc))


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder that is gone afterwards. Raises: CannotWrite: it cannot be made, or the disk is full."""
    try:
        with TemporaryDirectory(prefix="edge-convert-") as work:
            yield Path(work)
    except OSError as error:
        because, remedy = error.strerror or str(error), "free some space, or set TMPDIR to another disk"
        raise CannotWrite("write the build's temporary files", because, remedy) from error


def _pictures(facts: Facts, results: list[Result], stages: Stages) -> dict[str, str]:
    """Pictures of the worst examples; none where somebody may be recognised."""
    material = facts.order.material
    positions = list(dict.fromkeys(example.position for one in results for example in one.worst))[:_PICTURES_MAX]
    if not positions or facts.order.recipe.golden.contains_personal_data:
        return {}
    stage = facts.pictures_stage(positions)
    return stages.run(stage, dict[str, str], lambda: pictures_of(material, positions))


def _import_engines(plan: Plan) -> None:
    """Import them now: raised inside an engine's import, an interrupt would be taken for a missing engine."""
    with interrupts_held():
        engines({candidate.engine for candidate in plan.candidates})


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


def _ask_source(material: Material, run: _Run) -> tuple[Facts, Filled]:
    """Ask the source model, or find what it said; its answers to the evaluation set come when they are needed."""
    options, stages = run.options, run.stages
    model = model_digest(material)
    stage = source_stage(
        material, model, golden_from=_digest_of(options.golden_from), allow_failed=options.allow_failed_golden
    )
    folder = run.folder("source")

    def ask(into: Path) -> None:
        found = refer(
            material,
            into / _ANSWERS,
            golden_from=options.golden_from,
            allow_failed=options.allow_failed_golden,
        )
        (into / _SAID).write_bytes(pack(_Said(found.golden, found.spec, found.score, found.waivers, found.notes)))

    answers = stages.fill(stage, folder, ask, lambda into: check_answer_file(into / _ANSWERS))
    said = answers.value(_SAID, _Said)
    examination = examine(material, folder / _ANSWERS)
    reference = Reference(said.golden, said.spec, examination, said.score, said.waivers, said.notes)
    return Facts(Order(run.recipe, run.plan, material, reference), stages.environment, model, stage), answers


def _bench(facts: Facts, answers: Filled, run: _Run) -> Bench:
    machine, order = run.machine, facts.order
    where = Where(
        arch=machine.arch, isa=list(machine.isa), cpu=machine.cpu, execution="native", engine="", tuned={"threads": 1}
    )
    return Bench(
        order=order,
        workshop=Once(lambda: _workshop(order, run)),
        answers=answers,
        where=where,
        here=same_instructions(order.plan, machine.arch, machine.isa),
        gate=run.options.accuracy_gate,
        emulators=_emulators(run),
    )


def _emulators(run: _Run) -> tuple[Emulator, ...]:
    """Other instruction sets that can be asked; not even looked for when no candidate needs them."""
    methods, root = [candidate.method for candidate in run.plan.candidates], run.options.aarch64_root
    if not run.options.emulates:
        if root is not None:
            raise BadRecipe("ask aarch64 kernels", "--no-emulate leaves them out", "leave one of both options out")
        return ()
    if root is None and all(method.is_overflow_safe or not method.is_quantised for method in methods):
        return ()
    arch, isa = run.machine.arch, run.machine.isa
    listed = list_emulators(arch, isa, shutil.which, aarch64_root=root)
    found = [emulator for emulator in listed if answers_here(emulator, run.stages)]
    if root is not None and not any(emulator.arch == "aarch64" for emulator in found):
        raise BadRecipe(
            f"ask aarch64 kernels in {root}",
            "qemu-aarch64 is not installed, or no Python with numpy, msgspec and onnxruntime starts there",
            "see docs/how-to/why-is-my-int8-model-worse-or-slower.md, or leave --aarch64-root out",
        )
    return tuple(found)


def answers_here(emulator: Emulator, stages: Stages) -> bool:
    """Whether an emulator starts; kept only if it does: what is missing may be there when the next build looks."""
    stage = Stage("probe", emulator.kernels, {"emulator": msgspec.to_builtins(emulator)})
    try:
        stages.run(stage, type(None), lambda: try_emulator(emulator))
    except InferenceError:
        return False
    return True


def _workshop(order: Order, run: _Run) -> Workshop:
    material, calibration = order.material, None
    if material.calibration is not None:
        stage = calibration_stage(material)
        filled = run.stages.fill(stage, run.folder("calibration"), lambda into: write_calibration(material, into))
        calibration = filled.folder()
    return open_workshop(order, run.folder("compile"), calibration, run.options.compile_timeout_s)


def _digest_of(release: Path | None) -> Digest | None:
    if release is None:
        return None
    try:
        return LayoutFolder(release).open().digest
    except EdgeError as error:
        raise BadDataset(f"take the golden set of {release}", error.because, error.remedy) from error
