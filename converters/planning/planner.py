"""From a recipe to what will be built, in order; pure, so that `--dry-run` shows exactly what a build would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from converters.errors import BadRecipe
from converters.model.source import FLOAT_ONNX, SourceFacts, SourceFormat
from converters.planning.kernels import may_saturate
from converters.planning.methods import METHODS, Method, as_it_came, chosen, is_known, variant_name
from converters.planning.recipe import EngineName, Precision, Prefer, Recipe
from edge_runtime.contract.device_profile import DeviceProfile
from edge_runtime.contract.ids import VariantId, parse_variant_id
from edge_runtime.contract.variant_choice import version_satisfies

NEWEST_OPSET: Final[Mapping[str, tuple[int, int]]] = {
    "1.17": (20, 9), "1.18": (21, 10), "1.19": (21, 10), "1.20": (21, 10), "1.21": (22, 10), "1.22": (22, 10),
    "1.23": (23, 11),
}  # fmt: skip
"""Newest (opset, IR) by ONNX Runtime version; source: ONNX Runtime documentation, Compatibility, ONNX opset support."""

EDGE_TPU: Final = "edgetpu-v1"
"""The accelerator of Coral boards, as profiles and targets name it."""

READERS: Final[Mapping[SourceFormat, tuple[EngineName, ...]]] = {
    "onnx": ("onnxruntime", "litert", "openvino", "tensorrt"),
    "tflite": ("litert", "openvino"),
}
"""Engines that a source format can reach; the first runs it as it is, and carries the plain CPU variant."""

ACCELERATED: Final[Mapping[EngineName, str]] = {"tensorrt": "jetson"}
"""Target family of engines that only an accelerator runs."""

_TITLES: Final[Mapping[EngineName, str]] = {
    "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT", "tensorrt": "TensorRT",
}  # fmt: skip
_EXTRAS: Final[Mapping[EngineName, str]] = {
    "onnxruntime": "convert,ort", "openvino": "openvino", "litert": "litert", "tensorrt": "convert,ort",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """One variant that will be tried."""

    id: VariantId
    method: Method
    arch: tuple[str, ...]
    profiles: tuple[str, ...]
    requirement: str
    """Engine version range."""

    @property
    def engine(self) -> EngineName:
        """Engine that runs the variant."""
        return self.method.engine

    @property
    def precision(self) -> Precision:
        """Precision of the variant's arithmetic."""
        return self.method.precision


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Newest ONNX versions that every profile's engine loads."""

    opset: int
    ir: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build will do."""

    candidates: tuple[Candidate, ...]
    profiles: tuple[DeviceProfile, ...]
    ceiling: Ceiling
    prefer: Prefer
    notes: tuple[str, ...]

    @property
    def anchor(self) -> VariantId:
        """The variant every device can fall back to; planned first, and it always ships."""
        return self.candidates[0].id


def plan_build(
    recipe: Recipe,
    profiles: tuple[DeviceProfile, ...],
    installed: Mapping[str, bool],
    source: SourceFacts = FLOAT_ONNX,
) -> Plan:
    """Decide the candidates of a build; the source model on the engine that runs it as it is comes first.

    Args:
        recipe: what the engineer wrote.
        profiles: the board classes behind its targets.
        installed: what works here: engines, `nncf`, and toolchains (`tflite`, `tflite-quant`).
        source: what the model is.

    Raises:
        BadRecipe: an engine was asked for and is absent, or no target can run the plain variant.
    """
    _check_methods(recipe)
    notes: list[str] = []
    candidates: list[Candidate] = []
    carrier = READERS[source.format][0]
    for engine in _engines(recipe, installed, source, notes):
        fitting = tuple(profile for profile in profiles if engine in profile.engines)
        if not fitting:
            # An engine of a few boards only is missed on the others by nobody.
            notes += [] if engine == "tensorrt" and not recipe.engines else [f"no target has {engine}"]
            continue
        methods = _methods(engine, recipe, fitting, source)
        possible = _possible(methods, recipe, installed, notes)
        candidates += [_candidate(one, takers) for one in possible if (takers := _takers(one, fitting))]
    if not any(candidate.engine == carrier for candidate in candidates):
        raise BadRecipe("plan the build", f"no target runs {_TITLES[carrier]}, which carries the plain CPU variant")
    return Plan(tuple(candidates), profiles, ceiling_of(profiles), recipe.prefer, tuple(notes))


def _engines(
    recipe: Recipe, installed: Mapping[str, bool], source: SourceFacts, notes: list[str]
) -> list[EngineName]:
    carrier, *others = READERS[source.format]
    asked = recipe.engines
    unfit = [engine for engine in asked or () if engine not in READERS[source.format]]
    notes += [f"{engine} does not read {source.format} models" for engine in unfit]
    if asked and carrier not in asked:
        notes.append(f"{carrier} is added: every release carries a variant for a plain CPU")
    if not installed.get(carrier, False):
        raise BadRecipe("plan the build", f"no {_TITLES[carrier]} is installed", _pip(carrier))
    kept = [carrier]
    for engine in others:
        if asked and engine not in asked:
            continue
        absent, remedy = _absence(engine, installed, source)
        if not absent:
            kept.append(engine)
        elif asked:
            raise BadRecipe("plan the build", f"{engine} is not possible here: {absent}", remedy)
        else:
            notes.append(f"{engine} is left out: {absent} ({remedy})")
    return kept


def _absence(engine: EngineName, installed: Mapping[str, bool], source: SourceFacts) -> tuple[str, str]:
    """Why an engine cannot take part, and what to do; empty when it can."""
    if engine == "tensorrt":
        # Its files are made and judged with ONNX Runtime; the engine itself is built on the device.
        return "", ""
    if not installed.get(engine, False):
        return f"{engine} is not installed", _pip(engine)
    if engine == "litert" and source.format != "tflite" and not installed.get("tflite", False):
        return "its toolchain is not installed", "edge-convert toolchain install tflite"
    return "", ""


def _pip(engine: EngineName) -> str:
    return f"pip install 'edgefleet[{_EXTRAS[engine]}]'"


def _possible(
    methods: list[Method], recipe: Recipe, installed: Mapping[str, bool], notes: list[str]
) -> list[Method]:
    """The methods whose tools and examples are there; what is left out is said once."""
    kept: list[Method] = []
    for method in methods:
        because = _obstacle(method, recipe, installed)
        if not because:
            kept.append(method)
        elif (note := f"{method.engine} int8 is left out: {because}") not in notes:
            notes.append(note)
    return kept


def _obstacle(method: Method, recipe: Recipe, installed: Mapping[str, bool]) -> str:
    if not method.is_made_here:
        return ""
    if method.engine == "openvino" and not installed.get("nncf", False):
        return "nncf is not installed (pip install nncf)"
    if method.engine == "litert" and not installed.get("tflite-quant", False):
        return "its toolchain is not installed (edge-convert toolchain install tflite-quant)"
    if method.scheme == "static" and recipe.calibration is None:
        return "the recipe names no calibration examples"
    return ""


def _check_methods(recipe: Recipe) -> None:
    for name in recipe.methods or ():
        if not is_known(name):
            known = sorted({method.name for methods in METHODS.values() for method in methods})
            raise BadRecipe(f"plan method {name}", "there is none of that name", f"use {', '.join(known)}")


def _methods(
    engine: EngineName, recipe: Recipe, profiles: tuple[DeviceProfile, ...], source: SourceFacts
) -> list[Method]:
    """What is tried with one engine; each keeps its float32 variant, which the others are measured against."""
    if source.is_quantised:
        return [as_it_came(engine, is_quantised=True)]
    narrow = any(may_saturate(profile.arch, profile.isa) for profile in profiles)
    asked = None if recipe.methods is None else {"float32", *recipe.methods}
    methods = chosen(engine, recipe.prefer, asked, narrow=narrow)
    # Half precision is to a GPU what float32 is to a CPU.
    precisions = {*recipe.precisions, *(["float16"] if engine == "tensorrt" else [])}
    return [method for method in methods if method.precision in precisions]


def _takers(method: Method, profiles: tuple[DeviceProfile, ...]) -> tuple[DeviceProfile, ...]:
    """The targets whose engine takes a method's file."""
    takers = tuple(one for one in profiles if version_satisfies(one.engines[method.engine], method.engine_versions))
    if method.engine != "litert" or method.scheme != "static":
        return takers
    # An Edge TPU takes another int8 file than CPUs do best with; its board's CPU runs that one too.
    return tuple(one for one in takers if (one.accelerator == EDGE_TPU) == method.dense_per_tensor)


def _candidate(method: Method, profiles: tuple[DeviceProfile, ...]) -> Candidate:
    oldest = min((profile.engines[method.engine] for profile in profiles), key=_numbers)
    return Candidate(
        id=parse_variant_id(variant_name(method)),
        method=method,
        arch=tuple(sorted({profile.arch for profile in profiles})),
        profiles=tuple(profile.id for profile in profiles),
        requirement=method.engine_versions or f">={oldest}",
    )


def ceiling_of(profiles: tuple[DeviceProfile, ...]) -> Ceiling:
    """Newest opset and IR that the oldest ONNX Runtime of these profiles loads."""
    oldest = min((profile.engines["onnxruntime"] for profile in profiles if "onnxruntime" in profile.engines),
                 key=_numbers, default="1.20")  # fmt: skip
    known = [pair for version, pair in NEWEST_OPSET.items() if _numbers(version) <= _numbers(oldest)]
    opset, ir = max(known, default=min(NEWEST_OPSET.values()))
    return Ceiling(opset, min(ir, 10))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
