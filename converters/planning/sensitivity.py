"""Which layers a quantised model loses its accuracy in, and whether keeping some of them in float would help; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

RUINED_DB: Final = 20.0
"""Below it one layer's weights alone disturb the answer more than a healthy int8 model does altogether."""
HELPS_DB: Final = 3.0
"""Half the error power: less is not worth a model of two precisions."""
UNLIKE_DB: Final = 6.0
"""Four times the error power: samples of one kind do not differ by so much."""
MOST_IN_FLOAT: Final = 0.25
"""With more of its layers in float a model is no int8 model any more."""
_ENOUGH: Final = 0.75
_SHOWN: Final = 5
_CURVE_MOST: Final = 8


class LayerError(msgspec.Struct, frozen=True, kw_only=True):
    """What quantising one layer does to the answer."""

    node: str
    op: str
    alone_db: float
    """SNR of the float model with only this layer's weights quantised: a low one names a culprit."""
    gain_db: float | None = None
    """SNR won by computing only this layer in float; None where it was not tried."""


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """SNR with some layers in float."""

    nodes: list[str]
    snr_db: float


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Where one calibrated file loses, in float emulation over a few calibration samples."""

    samples: int
    base_db: float
    """SNR of the whole quantised file."""
    weights_db: float
    """SNR of the float model with all weights quantised and no activation."""
    layers: list[LayerError]
    """Most harmful first."""
    curve: list[CurvePoint] = []
    """One more layer in float at each point, the best one every time."""


def culprits(found: Sensitivity) -> list[LayerError]:
    """Layers whose weights alone ruin the answer, worst first."""
    ruined = [layer for layer in found.layers if layer.alone_db < RUINED_DB]
    return sorted(ruined, key=lambda layer: layer.alone_db)


def explain(found: Sensitivity, *, per_channel: bool) -> str:
    """Where the loss comes from, in one sentence."""
    whole = f"{found.base_db:.1f} dB in float emulation"
    if named := culprits(found):
        listed = ", ".join(f"{layer.node} ({layer.alone_db:.1f} dB alone)" for layer in named[:_SHOWN])
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        advice = "" if per_channel else "; one scale for each channel would keep them"
        return f"{whole}: the weights of {listed}{more} do not survive{advice}"
    if found.weights_db >= found.base_db + HELPS_DB:
        return (
            f"{whole}, {found.weights_db:.1f} dB with float activations: no layer's weights are at fault, the ranges "
            "of the activations are; look at the calibration set, or try another way to take ranges"
        )
    return f"{whole}: the loss is spread over all layers"


def explain_unlike(found: Sensitivity, asked_db: float | None) -> str:
    """That the calibration examples are not like what was asked, where they come out far better; empty otherwise.

    Args:
        found: the loss on calibration examples.
        asked_db: SNR over the evaluation set; None where it is not known.
    """
    if asked_db is None or found.base_db < asked_db + UNLIKE_DB:
        return ""
    return (
        f"{found.base_db:.1f} dB on the calibration examples, {asked_db:.1f} dB on the evaluation set: no layer is at "
        "fault, the two sets are not alike; calibrate with examples like those that are asked"
    )


def layers_to_keep(found: Sensitivity) -> list[str]:
    """Nodes to leave in float, most harmful first; empty when mixed precision will not help."""
    best = max((point.snr_db for point in found.curve), default=found.base_db)
    if best < found.base_db + HELPS_DB:
        return []
    wanted = found.base_db + _ENOUGH * (best - found.base_db)
    return min((point.nodes for point in found.curve if point.snr_db >= wanted), key=len)


def most_in_float(layers: int) -> int:
    """How many of a model's layers may stay in float."""
    return max(1, min(int(MOST_IN_FLOAT * layers), _CURVE_MOST))


def explain_mixed(found: Sensitivity) -> str:
    """Whether layers in float would help, with the curve."""
    points = ", ".join(f"{len(point.nodes)}: {point.snr_db:.1f}" for point in found.curve)
    keeping = f"layers in float, best first ({points} dB; none: {found.base_db:.1f} dB)"
    if kept := layers_to_keep(found):
        return f"{keeping}: {len(kept)} of {len(found.layers)} win most of it back"
    return (
        f"{keeping}: the curve is flat, mixed precision will not help; try other ranges, more calibration data, or "
        "training with quantisation"
    )


def ranked(layers: Sequence[LayerError]) -> list[LayerError]:
    """Most harmful first: by what undoing wins, and where nothing was undone by what each spoils alone."""
    return sorted(layers, key=lambda one: (-(one.gain_db or 0.0), one.alone_db, one.node))
