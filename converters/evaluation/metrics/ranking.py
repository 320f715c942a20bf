"""How well a score tells anomalous samples from normal ones, whatever the threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.data.truth import Truth
from converters.errors import BadDataset
from converters.evaluation.metrics.metric import Z95, Interval, Reply, Score
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.question_results import Anomaly
from edge_runtime.inference.postprocessing.results import Scored


@dataclass(slots=True)
class Auc:
    """Area under the ROC curve: the chance that an anomalous sample scores higher than a normal one; ties are half."""

    output: str
    _normal: list[float] = field(default_factory=list, init=False)
    _anomalous: list[float] = field(default_factory=list, init=False)

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadDataset."""
        result = reply.answer[self.output]
        if truth not in {0, 1} or not isinstance(result, Anomaly | Scored):
            because = "the evaluation set does not say 0 (normal) or 1 (anomalous) for each sample"
            raise BadDataset("measure auc", because, "write these labels")
        (self._anomalous if truth == 1 else self._normal).append(result.score)

    def score(self) -> Score:
        """What came out, with DeLong's interval. Raises: BadDataset: only one kind of sample."""
        if not (self._normal and self._anomalous):
            raise BadDataset("measure auc", "all samples are of one kind", "add normal and anomalous ones")
        value, interval = _auc(np.array(self._anomalous), np.array(self._normal))
        return Score("auc", value, len(self._normal) + len(self._anomalous), interval)


def _auc(high: Array, low: Array) -> tuple[float, Interval | None]:
    """Area and interval (DeLong, DeLong, Clarke-Pearson, Biometrics 44, 1988)."""
    if not (np.isfinite(high).all() and np.isfinite(low).all()):
        return float("nan"), None
    won = _shares(high, np.sort(low))
    lost = 1.0 - _shares(low, np.sort(high))
    value = float(won.mean())
    if min(len(high), len(low)) < 2:
        return value, None
    half = Z95 * float(np.sqrt(won.var(ddof=1) / len(high) + lost.var(ddof=1) / len(low)))
    return value, (max(0.0, value - half), min(1.0, value + half))


def _shares(values: Array, ordered: Array) -> Array:
    """For each value the share of the ordered ones below it, equal ones counting half."""
    below, up_to = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    shares: Array = (below + up_to) / 2 / len(ordered)
    return shares
