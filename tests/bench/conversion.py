"""What the converter ships beside what other quantisers make with their defaults, on held-out data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec

from converters.evaluation.evaluate import Examination, evaluate
from converters.pipeline.build import plan_of
from converters.pipeline.calibrating import write_calibration
from converters.pipeline.material import Material, read_material, refer
from converters.planning.recipe import Recipe, parse_recipe
from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import parse_variant_id
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.contract.release import EngineRequirement, FileEntry, TensorBinding, TensorMap, VariantManifest
from edge_runtime.contract.target import Target
from edge_runtime.inference.backend import BackendOptions
from edge_runtime.inference.model import Model
from edge_runtime.inference.predictor import Predictor, load_predictor
from tests.bench.cases import CASES, Case, Unavailable
from tests.bench.figures import table

ROUNDS = 200
BUDGET_S = 20.0
MARGIN = 1.03
"""Interleaved measurements agree within about 3 %."""
SIZE_MARGIN_BYTES = 1024
"""Our files hold the normalisation as well, which is a few nodes."""
OLIVE = "EDGEFLEET_BENCH_OLIVE"
"""Variable that names a Python with olive-ai 0.13 and torch 2.13: too large to install for a benchmark unasked."""


@dataclass
class Entry:
    """One file that somebody made, measured."""

    tool: str
    is_ours: bool
    score: float | None = None
    lost: float | None = None
    size_bytes: int = 0
    times_ms: list[float] = field(default_factory=list)
    wall_s: float | None = None
    peak_bytes: int | None = None
    trouble: str = ""

    def fits(self, budget: float) -> bool:
        """Whether it may ship."""
        return self.lost is not None and self.lost <= budget + 1e-9


def report() -> list[str]:
    """Measure every case and return a section of Markdown."""
    lines = [
        "## The converter beside other quantisers",
        "",
        "Each tool gets the same float model and the same calibration samples, and its own defaults; each runs",
        "alone in a fresh process (peak: VmHWM). Accuracy is of other samples, with this machine's kernels; latency",
        "is the fastest tenth of calls in turn, one thread, without preprocessing, which our files hold and the others",
        "leave to the caller. Our time is a whole build: every variant",
        "compiled, measured and judged; the build for size finds most of its stages in the cache of the other.",
    ]
    for case in CASES:
        lines += ["", f"### {case.title}", ""]
        try:
            lines += _measured(case)
        except Unavailable as missing:
            lines.append(f"Skipped: {missing}.")
    return lines


def _measured(case: Case) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as name, ExitStack() as opened:
        folder = Path(name)
        raw, budget = case.recipe(folder), case.budget
        recipe = parse_recipe(msgspec.json.encode(raw), ".json")
        material, examination, reference = _asked(recipe, folder)
        found: list[tuple[Entry, Predictor | None]] = [*_ours(raw, folder, opened), *_rivals(material, folder, raw)]
        for entry, predictor in found:
            if predictor is not None:
                _judge(entry, predictor, examination, reference)
        _time([(entry, one) for entry, one in found if one is not None], examination)
        return _table([entry for entry, _ in found], budget, reference)


def _asked(recipe: Recipe, folder: Path) -> tuple[Material, Examination, float | None]:
    material = read_material(recipe, folder, plan_of(recipe, folder))
    reference = refer(material, folder / "answers", golden_from=None, allow_failed=True)
    (folder / "calibration").mkdir()
    write_calibration(material, folder / "calibration")
    return material, reference.examination, reference.score.value if reference.score else None


def _ours(raw: dict[str, Any], folder: Path, opened: ExitStack) -> list[tuple[Entry, Predictor | None]]:
    """What is shipped to be fast, and what is shipped to be small; the second build finds most stages of the first."""
    found: dict[str, tuple[Entry, Predictor | None]] = {}
    for prefer in ("latency", "size"):
        recipe, out = folder / f"{prefer}.json", folder / f"release-{prefer}"
        recipe.write_bytes(msgspec.json.encode({**raw, "prefer": prefer}))
        cost = _alone([sys.executable, "-m", "tests.bench.fresh_build", str(recipe), str(out), str(folder / "cache")])
        if isinstance(cost, str):
            found[prefer] = (Entry(f"edgefleet for {prefer}", is_ours=True, trouble=cost), None)
            continue
        for variant in LayoutFolder(out).open().manifest.variants:
            if variant in found:
                continue
            model = opened.enter_context(Model.open(out, variant=variant, threads=1))
            size = sum(file.size for file in model.predictor.variant.files)
            entry = Entry(f"edgefleet {variant} (for {prefer})", is_ours=True, size_bytes=size, **_cost(cost))
            found[variant] = (entry, model.predictor)
    return list(found.values())


def _rivals(material: Material, folder: Path, raw: dict[str, Any]) -> list[tuple[Entry, Predictor | None]]:
    olive = os.environ.get(OLIVE)
    pythons = {"quantize_static": sys.executable, "nncf": sys.executable, "olive": olive}
    found: list[tuple[Entry, Predictor | None]] = []
    for tool, python in pythons.items():
        entry = Entry(tool, is_ours=False)
        if python is None:
            entry.trouble = f"not measured: {OLIVE} names no Python with olive-ai"
            found.append((entry, None))
            continue
        out = folder / tool
        out.mkdir()
        script = Path(__file__).with_name("rival.py")
        cost = _alone([python, str(script), tool, raw["model"], str(folder / "calibration"), str(out)])
        if isinstance(cost, str):
            entry.trouble = f"failed: {cost}"
            found.append((entry, None))
            continue
        entry.tool, entry.wall_s, entry.peak_bytes = str(cost["version"]), cost["wall_s"], cost["peak_bytes"]
        found.append((entry, _loaded(entry, material, out)))
    return found


def _loaded(entry: Entry, material: Material, out: Path) -> Predictor | None:
    """Another tool's file in our runtime, fed as the source model is."""
    release, draft = material.draft.manifest, material.draft
    is_ir = (out / "model.xml").exists()
    names = {"model": "model.xml", "weights": "model.bin"} if is_ir else {"model": "model.onnx"}
    files = {role: (out / name).read_bytes() for role, name in names.items()}
    entry.size_bytes = sum(map(len, files.values()))
    bindings = [
        {name: TensorBinding(tensor=tensor, dtype=release.tensors[name].dtype) for name, tensor in side.items()}
        for side in (draft.inputs, draft.outputs)
    ]
    listed = [{"role": role, "layer": name, "digest": "", "size": 0} for role, name in names.items()]
    variant = VariantManifest(
        id=parse_variant_id("rival"), requires=[],
        target=Target(engine="openvino" if is_ir else "onnxruntime", provider=["cpu"], precision="int8"),
        engine=EngineRequirement(options={"INFERENCE_PRECISION_HINT": "f32"} if is_ir else {}),
        files=msgspec.convert(listed, list[FileEntry]), io=TensorMap(inputs=bindings[0], outputs=bindings[1]),
    )  # fmt: skip
    try:
        return load_predictor(release, variant, files, options=BackendOptions(threads=1))
    except EdgeError as error:
        entry.trouble = f"its file does not load: {error}"[:160]
        return None


def _judge(entry: Entry, predictor: Predictor, examination: Examination, reference: float | None) -> None:
    found = evaluate(predictor, examination)
    shown = found.score or found.agreement
    entry.score = shown.value
    entry.lost = (reference if found.score and reference is not None else 1.0) - round(shown.value, 6)


def _time(entries: list[tuple[Entry, Predictor]], examination: Examination) -> None:
    """Milliseconds per call, everybody in turn: neighbours on a shared machine slow all of them alike."""
    sample = next(iter(examination.dataset.decoded(examination.preprocessor)))
    feeds = [predictor.preprocess.after_decode(sample) for _, predictor in entries]
    began = time.perf_counter()
    for number in range(ROUNDS + 10):
        for (entry, predictor), fed in zip(entries, feeds, strict=True):
            started = time.perf_counter_ns()
            predictor.run_canonical(fed)
            if number >= 10:
                entry.times_ms.append((time.perf_counter_ns() - started) / 1e6)
        if time.perf_counter() - began > BUDGET_S:
            break


def _table(entries: list[Entry], budget: float, reference: float | None) -> list[str]:
    fitting = [entry for entry in entries if entry.fits(budget) and entry.times_ms]
    fastest = min((_fast(entry.times_ms) for entry in fitting), default=0.0)
    rows = [_row(entry, budget, fastest) for entry in entries]
    head = ["made by", "accuracy", f"within {budget:g}", "KiB", "ms", "to the fastest", "peak", "time"]
    source = "agreement with the source model" if reference is None else f"source model: {reference:.4f}"
    return [f"{source}; budget {budget:g}.", "", *table(head, rows), "", *_verdict(fitting)]


def _row(entry: Entry, budget: float, fastest: float) -> list[str]:
    if entry.trouble:
        return [entry.tool, entry.trouble, *["–"] * 6]
    took = _fast(entry.times_ms)
    return [
        entry.tool,
        f"{entry.score:.4f}",
        "yes" if entry.fits(budget) else "**no**",
        f"{entry.size_bytes / 1024:.1f}",
        f"{took:.4f}",
        f"{took / fastest:.2f} x" if fastest else "–",
        f"{(entry.peak_bytes or 0) / 2**20:.0f} MiB",
        f"{entry.wall_s or 0.0:.1f} s",
    ]


def _verdict(fitting: list[Entry]) -> list[str]:
    ours, theirs = ([one for one in fitting if one.is_ours is whose] for whose in (True, False))
    if not ours:
        return ["**Nothing of ours is within the budget.**"]
    if not theirs:
        return ["None of the others is within the budget."]
    speed = min(_fast(one.times_ms) for one in ours) / min(_fast(one.times_ms) for one in theirs)
    smallest, other = (min(one.size_bytes for one in whose) for whose in (ours, theirs))
    kept = speed <= MARGIN and smallest <= other + SIZE_MARGIN_BYTES
    verdict = "kept" if kept else "**not kept**"
    return [
        f"Within the budget our fastest takes {speed:.2f} x the time of their fastest, and our smallest is",
        f"{smallest / other:.2f} x as large as their smallest: {verdict} (asked: at most {MARGIN} x the time, and no",
        "larger but for the kibibyte that the normalisation may take).",
    ]


def _fast(times_ms: list[float]) -> float:
    """Of a machine that others use as well, the fastest tenth says what the file costs."""
    return quantiles(times_ms, n=10)[0]


def _cost(cost: dict[str, Any]) -> dict[str, Any]:
    return {"wall_s": cost["wall_s"], "peak_bytes": cost["peak_bytes"]}


def _alone(command: list[str]) -> dict[str, Any] | str:
    """What a fresh process reports, or why it failed."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if ended.returncode != 0:
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1][:160]
        return f"{said} (status {ended.returncode})"
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found
