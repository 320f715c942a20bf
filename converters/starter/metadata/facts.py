"""What a source of metadata can say, in the recipe's own words; nothing is assumed that it does not say; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

from converters.model.source import Port
from edge_runtime.contract.steps import Color, RawStep

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
Mode = Literal["stretch", "fit_pad", "fit_crop", "shortest_side", "none"]

_SIGNED_SHIFT: Final = 128


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """How a picture reaches the model; None where nothing is said."""

    color: Color | None = None
    mode: Mode | None = None
    size: tuple[int, int] | None = None
    """Height, width."""
    filter: Filter | None = None
    antialias: bool | None = None
    pad_value: float | None = None
    pad_anchor: Literal["center", "top_left"] | None = None
    crop: tuple[int, int] | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class SoundFacts:
    """How a sound reaches the model."""

    sample_rate_hz: int
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """What a model's first answer is."""

    kind: Literal["classes", "detections"]
    activation: Literal["none", "softmax", "sigmoid"] | None = None
    min_score: float | None = None
    steps: tuple[RawStep, ...] = ()
    """Postprocessing of a detector, with the model's names of its tensors."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything one source says."""

    source: str
    """As people call it."""
    picture: PictureFacts | None = None
    sound: SoundFacts | None = None
    answer: AnswerFacts | None = None
    labels: tuple[str, ...] = ()
    task: str | None = None
    licence: str | None = None
    notes: tuple[str, ...] = ()


def merge(known: Sequence[Facts]) -> Facts:
    """One picture of a model: of each kind of fact the first that was said."""
    return Facts(
        source=" and ".join(facts.source for facts in known),
        picture=next((facts.picture for facts in known if facts.picture is not None), None),
        sound=next((facts.sound for facts in known if facts.sound is not None), None),
        answer=next((facts.answer for facts in known if facts.answer is not None), None),
        labels=next((facts.labels for facts in known if facts.labels), ()),
        task=next((facts.task for facts in known if facts.task), None),
        licence=next((facts.licence for facts in known if facts.licence), None),
    )


def contradictions(known: Sequence[Facts], ports: Sequence[Port]) -> list[str]:
    """Where sources disagree with each other, and with how the model's own input is quantised."""
    found = [note for facts in known for note in facts.notes]
    pictures = [(facts.source, facts.picture) for facts in known if facts.picture is not None]
    for source, picture in pictures[1:]:
        first, chosen = pictures[0]
        for name in (field.name for field in fields(PictureFacts)):
            one, other = getattr(chosen, name), getattr(picture, name)
            if one is not None and other is not None and one != other:
                found.append(f"{first} says {name} {one}, {source} says {other}; the first is taken")
    if pictures and ports and (gap := _quantised_otherwise(pictures[0][1], ports[0])):
        found.append(f"{pictures[0][0]} {gap}")
    return found


def _quantised_otherwise(picture: PictureFacts, port: Port) -> str | None:
    """How a normalisation and the quantisation of the input that follows it differ, if pictures go in as they are."""
    if port.stored is None or picture.mean is None or picture.std is None:
        return None
    shift = _SIGNED_SHIFT if port.stored.dtype == "int8" else 0
    mean, std = port.stored.zero_point + shift, 1 / port.stored.scale
    scale = 1.0 if picture.scale is None else picture.scale
    # What a byte x becomes by normalising and quantising, minus x itself, at both ends of its range.
    apart = max(
        (
            abs((byte * scale - one_mean) / one_std * std + mean - byte) if one_std else math.inf
            for one_mean, one_std in zip(picture.mean, picture.std, strict=False)
            for byte in (0, 255)
        ),
        default=0.0,
    )
    if apart < 0.5:
        return None
    return (
        f"normalises with mean {picture.mean[0]:g} and std {picture.std[0]:g}, the input is quantised as if with "
        f"mean {mean:g} and std {std:.6g}: up to {apart:.1f} of 255 apart"
    )
