"""How exactly a candidate repeats the source model: the largest difference in any number that it answers."""

from __future__ import annotations

import numpy as np

from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.checks.agreement import Distance


class Parity:
    """Takes answers in, one sample after the other; float tensors only, because a class has no size of its own."""

    def __init__(self) -> None:
        self._distances: dict[str, Distance] = {}

    def add(self, reference: Tensors, answer: Tensors) -> None:
        """Take one sample in. Raises: InferenceError: a tensor has another shape than the source model's."""
        for name, expected in reference.items():
            if np.issubdtype(expected.dtype, np.floating) and name in answer:
                self._distances.setdefault(name, Distance()).add(expected, answer[name])

    def range_error(self) -> float | None:
        """Largest difference over the range of its tensor, of the worst tensor; None where no tensor is float."""
        return max((distance.range_error() for distance in self._distances.values()), default=None)
