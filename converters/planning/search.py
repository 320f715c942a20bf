"""Which planned candidates need not be built, because one that passed is at least as good; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from converters.planning.planner import Candidate
from converters.planning.recipe import Prefer
from converters.planning.sensitivity import Sensitivity, layers_to_keep
from edge_runtime.contract.ids import VariantId, parse_variant_id

_KEEPS_FLOAT: Final = {"optimization.disable_specified_optimizers": "WeightBiasQuantization"}
"""Without it ONNX Runtime quantises again, when it loads the file, the weights of a node that was left in float."""


@dataclass(frozen=True, slots=True)
class Tried:
    """How one candidate ended."""

    candidate: Candidate
    arch: tuple[str, ...]
    """Architectures it passed for; empty: refused."""
    lost: float
    """Accuracy lost; without labels the share of answers that differ from the source model's."""
    is_lossy: bool = False
    """Whether it was refused for what quantisation itself lost."""
    repeats: bool = False
    """Whether its answers are the source model's but for the rounding of floats."""

    @property
    def ships(self) -> bool:
        """Whether it passed anywhere."""
        return bool(self.arch)


def find_better(candidate: Candidate, tried: Iterable[Tried], prefer: Prefer) -> str:
    """Why a candidate need not be built; empty when it must be.

    Candidates come in the order of hope, so one that passed beats every later one of its engine that stores numbers in
    as few bits. Who prefers accuracy goes on while something is lost.
    """
    if candidate.method.is_plain:
        return _smaller_twin(candidate, tried)
    if not candidate.method.is_quantised:
        return ""
    for other in tried:
        is_alike = (
            other.candidate.engine == candidate.engine
            and other.candidate.method.typing == candidate.method.typing
            and other.candidate.method.is_quantised
        )
        serves_all = set(candidate.profiles) <= set(other.candidate.profiles) and set(candidate.arch) <= set(other.arch)
        if not is_alike or not serves_all:
            continue
        if prefer == "accuracy" and other.lost > 0:
            continue
        # One scale for each channel takes more room than one for each tensor.
        if prefer == "size" and other.candidate.method.per_channel and not candidate.method.per_channel:
            continue
        return f"{other.candidate.id} passed, and {prefer} prefers it"
    return ""


def _smaller_twin(candidate: Candidate, tried: Iterable[Tried]) -> str:
    """Why a float variant of an engine need not be built; empty when it must be."""
    for other in tried:
        is_float = other.candidate.engine == candidate.engine and other.candidate.precision == "float32"
        if is_float and other.repeats and set(candidate.arch) <= set(other.arch):
            return f"{other.candidate.id} answers as the source model does, and is smaller"
    return ""


def outdone(tried: Iterable[Tried]) -> dict[VariantId, VariantId]:
    """Variants that passed though another one differs only in its ranges and loses less, with that other one.

    Such twins are equally large and equally fast, so there is nothing that a device could choose the worse one for,
    where both passed for the same architectures.
    """
    best: dict[tuple[bytes, tuple[str, ...]], Tried] = {}
    passed = [one for one in tried if one.ships and one.candidate.method.scheme == "static"]
    for one in passed:
        key = (_but_for_ranges(one.candidate), one.arch)
        if key not in best or one.lost < best[key].lost:
            best[key] = one
    winners = {one.candidate.id: best[_but_for_ranges(one.candidate), one.arch].candidate.id for one in passed}
    return {variant: winner for variant, winner in winners.items() if variant != winner}


def worth_mixing(tried: Iterable[Tried]) -> Candidate | None:
    """The refused candidate that a mixed-precision one would start from; None where an int8 variant passed."""
    static = [one for one in tried if one.candidate.engine == "onnxruntime" and one.candidate.method.scheme == "static"]
    if any(one.ships for one in static):
        return None
    lossy = [one for one in static if one.is_lossy]
    return min(lossy, key=lambda one: one.lost).candidate if lossy else None


def mixed_from(base: Candidate, found: Sensitivity) -> Candidate | None:
    """The same candidate with its most harmful layers in float; None where that will not help."""
    nodes = layers_to_keep(found)
    if not nodes:
        return None
    method = msgspec.structs.replace(
        base.method,
        name=f"{base.method.name}-mixed",
        excluded=tuple(nodes),
        options={**base.method.options, **_KEEPS_FLOAT},
    )
    return replace(base, id=parse_variant_id(f"{base.id}-mixed"), method=method)


def _but_for_ranges(candidate: Candidate) -> bytes:
    same = msgspec.structs.replace(candidate.method, name="", calibration=None, symmetric=False)
    return msgspec.json.encode((same, candidate.profiles), order="sorted")
