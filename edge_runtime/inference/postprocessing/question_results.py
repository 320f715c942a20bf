"""Typed answers that depend on what was asked: boxes, masks, anomalies."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from edge_runtime.inference.backend import Array

OUTSIDE: Final = -1
"""Class of a picture's pixel that a crop kept from the model; nothing else may say so, for nobody judges it."""

NO_CLASS: Final = -2
"""Class of a pixel for which the model gave none (a negative one, or no number): always wrong."""


class Boxes(msgspec.Struct, frozen=True, eq=False):
    """Objects, best first; empty when none reaches the minimum score."""

    boxes: Array
    """float64 [K, 4]: x1, y1, x2, y2 in pixels of the caller's picture, upright as `decode` leaves it."""
    indices: tuple[int, ...]
    """Class of each object."""
    labels: tuple[str, ...]
    """Same length as `indices`; the index as text where the release has no label list."""
    scores: tuple[float, ...]


class Mask(msgspec.Struct, frozen=True, eq=False):
    """A class for every pixel."""

    classes: Array
    """int32 [H, W] of the caller's picture or of the model's input, as the release says; −1 where a crop cut it off,
    −2 where the model named no class."""
    labels: tuple[str, ...]
    """By class; empty where the release has no label list."""
    ignored: frozenset[int]
    """Classes that a summary leaves out."""

    def shares(self) -> dict[int, float]:
        """Share of the pixels by class that occurs, largest first, without ignored classes."""
        found, counts = np.unique(self.classes, return_counts=True)
        order = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
        return {
            index: count / self.classes.size
            for index, count in order
            if index != OUTSIDE and index not in self.ignored
        }


class Anomaly(msgspec.Struct, frozen=True):
    """How far a sample is from what the model learned to reconstruct."""

    score: float
    is_anomalous: bool | None
    """None where the release has no threshold."""
