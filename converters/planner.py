"""From a recipe to what will be built, in order; pure, so that `--dry-run` shows exactly what a build would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from converters.errors import BadRecipe
from converters.kernels import may_saturate
from converters.methods import METHODS, Method, chosen, is_known, variant_name
from converters.recipe import EngineName, Precision, Prefer, Recipe
from edge_runtime.contract.device_profile import DeviceProfile
from edge_runtime.contract.ids import VariantId, parse_variant_id

NEWEST_OPSET: Final[Mapping[str, tuple[int, int]]] = {
    "1.17": (20, 9), "1.18": (21, 10), "1.19": (21, 10), "1.20": (21, 10), "1.21": (22, 10), "1.22": (22, 10),
    "1.23": (23, 11),
}  # fmt: skip
"""Newest (opset, IR) by ONNX Runtime version; source: ONNX Runtime documentation, Compatibility, ONNX opset support."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One variant that will be tried."""

    id: VariantId
    method: Method
    arch: tuple[str, ...]
    profiles: tuple[str, ...]
    requirement: str
    """Engine version range."""
    is_verbatim: bool = False
    """The source model as it is, at most in another file format: nothing is quantised here."""

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


def plan_build(recipe: Recipe, profiles: tuple[DeviceProfile, ...], installed: Mapping[str, bool]) -> Plan:
    """Decide the candidates of a build, the float variant of ONNX Runtime first.

    Args:
        recipe: what the engineer wrote.
        profiles: the board classes behind its targets.
        installed: what is importable here: `onnxruntime`, `openvino`, `nncf`.

    Raises:
        BadRecipe: an engine was asked for and is absent, or no target can run ONNX Runtime.
    """
    _check_methods(recipe)
    notes: list[str] = []
    candidates: list[Candidate] = []
    for engine in _engines(recipe, installed, notes):
        fitting = tuple(profile for profile in profiles if engine in profile.engines)
        if not fitting:
            notes.append(f"no target has {engine}")
            continue
        methods = _methods(engine, recipe, fitting)
        if engine == "openvino" and "int8" in recipe.precisions and not installed.get("nncf", False):
            notes.append("openvino int8 is left out: nncf is not installed (pip install nncf)")
            methods = [method for method in methods if not method.is_quantised]
        candidates += [_candidate(method, fitting) for method in methods]
    if not any(candidate.engine == "onnxruntime" for candidate in candidates):
        raise BadRecipe("plan the build", "no target runs ONNX Runtime, which carries the plain CPU variant")
    return Plan(tuple(candidates), profiles, ceiling_of(profiles), recipe.prefer, tuple(notes))


def _engines(recipe: Recipe, installed: Mapping[str, bool], notes: list[str]) -> list[EngineName]:
    wanted: list[EngineName] = list(recipe.engines or ["onnxruntime", "openvino"])
    if "onnxruntime" not in wanted:
        wanted.insert(0, "onnxruntime")
        notes.append("onnxruntime is added: every release carries a variant for a plain CPU")
    if not installed.get("onnxruntime", False):
        raise BadRecipe("plan the build", "no ONNX Runtime is installed", "pip install 'edgefleet[convert,ort]'")
    if "openvino" in wanted and not installed.get("openvino", False):
        if recipe.engines:
            raise BadRecipe("plan the build", "openvino is not installed", "pip install 'edgefleet[openvino]'")
        notes.append("openvino is left out: it is not installed (pip install 'edgefleet[openvino]')")
        wanted.remove("openvino")
    return sorted(wanted)


def _check_methods(recipe: Recipe) -> None:
    for name in recipe.methods or ():
        if not is_known(name):
            known = sorted({method.name for methods in METHODS.values() for method in methods})
            raise BadRecipe(f"plan method {name}", "there is none of that name", f"use {', '.join(known)}")


def _methods(engine: EngineName, recipe: Recipe, profiles: tuple[DeviceProfile, ...]) -> list[Method]:
    """What is tried with one engine; each keeps its float32 variant, which the others are measured against."""
    narrow = any(may_saturate(profile.arch, profile.isa) for profile in profiles)
    asked = None if recipe.methods is None else {"float32", *recipe.methods}
    methods = chosen(engine, recipe.prefer, asked, narrow=narrow)
    return [method for method in methods if method.precision in recipe.precisions]


def _candidate(method: Method, profiles: tuple[DeviceProfile, ...]) -> Candidate:
    oldest = min((profile.engines[method.engine] for profile in profiles), key=_numbers)
    return Candidate(
        id=parse_variant_id(variant_name(method)),
        method=method,
        arch=tuple(sorted({profile.arch for profile in profiles})),
        profiles=tuple(profile.id for profile in profiles),
        requirement=f">={oldest}",
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
