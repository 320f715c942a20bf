"""What a person says about one sample: a class, numbers, boxes, or a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_runtime.inference.backend import Array


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
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

Truth = int | Values | Boxes | MaskFile
"""A class index for classes and anomalies (1 = anomalous), else what the output's kind asks for."""
