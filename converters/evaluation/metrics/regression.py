"""Errors of numbers: mean absolute error, and the share of the variance that is explained."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.data.truth import Truth
from converters.errors import BadDataset
from converters.evaluation.metrics.metric import Reply, Score
from converters.evaluation.metrics.resampling import interval_of
from converters.evaluation.metrics.tensors import mean_of
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.results import Scored, Values


@dataclass(slots=True)
class MeanAbsoluteError:
    """Mean over samples and numbers of |answer − truth|, in the output's unit."""

    output: str
    _errors: list[float] = field(default_factory=list, init=False)

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadDataset."""
        answer, right = pair_of(reply, truth, self.output)
        self._errors.append(float(np.abs(answer - right).mean()))

    def score(self) -> Score:
        """What came out."""
        return Score("mae", *mean_of(self._errors), is_error=True)


@dataclass(slots=True)
class R2:
    """Coefficient of determination, 1 − Σ(y − ŷ)² / Σ(y − mean y)², mean over the numbers of an answer."""

    output: str
    _sums: list[Array] = field(default_factory=list, init=False)
    """float64 [4, numbers] per sample: 1, y, y², (y − ŷ)²."""

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadDataset."""
        answer, right = pair_of(reply, truth, self.output)
        self._sums.append(np.stack([np.ones_like(right), right, right**2, (right - answer) ** 2]))

    def score(self) -> Score:
        """What came out, with an interval from samples drawn again. Raises: BadDataset: all truths are equal."""
        sums = np.stack(self._sums)
        totals = sums.sum(axis=0)
        if not _spread(totals).all():
            raise BadDataset("measure r2", "all right answers are the same number", "use metric = 'mae'")
        return Score("r2", _r2(totals), len(sums), interval_of(sums, _r2))


def pair_of(reply: Reply, truth: Truth, output: str) -> tuple[Array, Array]:
    """Answer and truth, float64 [numbers] each. Raises: BadDataset: not numbers, or not as many."""
    result = reply.answer[output]
    if not isinstance(result, Values | Scored) or not isinstance(truth, tuple):
        raise BadDataset(f"judge {output} as numbers", "answer or truth are none", "write the right numbers as truth")
    answer = np.array(result.values if isinstance(result, Values) else [result.score], np.float64)
    right = np.array(truth, np.float64)
    if answer.shape != right.shape:
        raise BadDataset(
            f"judge {output} as numbers", f"the model answers {answer.size}, the truth has {right.size}",
            "name the columns of the truth in the order of the answer",
        )  # fmt: skip
    return answer, right


def _spread(sums: Array) -> Array:
    spread: Array = sums[2] - sums[1] ** 2 / sums[0]
    # Rounding leaves a little where every truth is the same.
    return np.where(spread > 1e-12 * np.maximum(sums[2], 1e-300), spread, 0.0)


def _r2(sums: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(1.0 - sums[3] / _spread(sums)))


@dataclass(slots=True)
class NumbersAgreement:
    """Share of the variance of the source model's numbers that the other model's numbers explain, over the whole set.

    For outputs of few numbers, where the angle between two answers says nothing.
    """

    tensor: str
    _sums: Array = field(default_factory=lambda: np.zeros(4), init=False)
    """How many, Σy, Σy², Σ(y − ŷ)²."""
    _count: int = field(default=0, init=False)

    def add(self, reference: Reply, reply: Reply) -> None:
        """Take one sample in."""
        exact, other = (one.tensors[self.tensor].astype(np.float64).ravel() for one in (reference, reply))
        with np.errstate(invalid="ignore", over="ignore"):
            self._sums += [exact.size, exact.sum(), (exact**2).sum(), ((exact - other) ** 2).sum()]
        self._count += 1

    def score(self) -> Score:
        """What came out; 0 when an answer is not a number."""
        if not np.isfinite(self._sums).all():
            return Score("r2_agreement", 0.0, self._count)
        spread = float(_spread(self._sums))
        value = 1.0 - self._sums[3] / spread if spread else float(self._sums[3] == 0.0)
        return Score("r2_agreement", float(value), self._count)
