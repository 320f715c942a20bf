"""Top-k accuracy and top-1 agreement, from scores as the model gives them: no `min_score` stands between."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.data.truth import Truth
from converters.errors import BadDataset
from converters.evaluation.metrics.metric import Reply, Score, wilson
from edge_runtime.inference.backend import Array


@dataclass(slots=True)
class TopK:
    """Share of samples whose true class is among the k best."""

    name: str
    tensor: str
    k: int
    ignore: tuple[int, ...] = ()
    """Classes that are never an answer, as the postprocessing ignores them."""
    _right: int = field(default=0, init=False)
    _count: int = field(default=0, init=False)

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadDataset."""
        if not isinstance(truth, int):
            raise BadDataset(f"measure {self.name}", "the evaluation set does not give one class per sample")
        scores = scores_of(reply.tensors[self.tensor], self.ignore)
        if truth >= scores.size:
            raise BadDataset(f"measure {self.name}", f"class {truth} is none of the model's {scores.size} classes")
        self._count += 1
        self._right += truth in best(scores, self.k)

    def score(self) -> Score:
        """What came out."""
        share = self._right / self._count if self._count else float("nan")
        return Score(self.name, share, self._count, wilson(share, self._count) if self._count else None)


@dataclass(slots=True)
class TopOneAgreement:
    """Share of samples to which both models give the same best class; an answer that is not a number never agrees."""

    tensor: str
    ignore: tuple[int, ...] = ()
    _same: int = field(default=0, init=False)
    _count: int = field(default=0, init=False)

    def add(self, reference: Reply, reply: Reply) -> None:
        """Take one sample in."""
        first = scores_of(reference.tensors[self.tensor], self.ignore)
        second = scores_of(reply.tensors[self.tensor], self.ignore)
        self._count += 1
        self._same += bool(best(first, 1) and best(first, 1) == best(second, 1))

    def score(self) -> Score:
        """What came out."""
        share = self._same / self._count if self._count else float("nan")
        return Score("top1_agreement", share, self._count, wilson(share, self._count) if self._count else None)


def scores_of(tensor: Array, ignore: tuple[int, ...]) -> Array:
    """float64 [classes] of one sample, with ignored classes below every other."""
    scores: Array = tensor.astype(np.float64).ravel()
    scores[[index for index in ignore if index < scores.size]] = -np.inf
    return scores


def best(scores: Array, k: int) -> list[int]:
    """The k best classes, equal scores in class order; none when a score is not a number."""
    if np.isnan(scores).any():
        return []
    return [int(index) for index in np.argsort(-scores, kind="stable")[:k]]
