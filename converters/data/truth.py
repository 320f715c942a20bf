"""What a person says about one sample: a class, numbers, boxes, or a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_runtime.contract.digest import digest_of_file
from edge_runtime.inference.backend import Array


@dataclass(frozen=True, slots=True, eq=False)
class TrueBoxes:
    """The objects in one picture; a picture without any is as telling as one with many."""

    corners: Array
    """float64 [objects, 4]: left, top, right, bottom in pixels of the picture as it is stored."""
    classes: tuple[int, ...]
    crowds: tuple[bool, ...]
    """A crowd is a region of many objects: what is found in it neither counts nor is wrong."""


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A picture of class numbers, one per pixel."""

    path: Path
    ignore: int | None = None
    """The value of pixels nobody judges."""


Values = tuple[float, ...]
"""The right numbers of a regression."""

Truth = int | Values | TrueBoxes | MaskFile
"""A class index for classes and anomalies (1 = anomalous), else what the output's kind asks for."""


def truth_text(truth: Truth | None) -> str:
    """The truth as it enters a digest. Raises: OSError: a mask cannot be read."""
    match truth:
        case TrueBoxes():
            return f"{truth.corners.tolist()} {truth.classes} {truth.crowds}"
        case MaskFile():
            content, _ = digest_of_file(truth.path)
            return f"{content} {truth.ignore}"
        case _:
            return str(truth)
