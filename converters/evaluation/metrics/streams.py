"""Agreement of answers about streams: the same seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from converters.errors import BadDataset
from converters.evaluation.metrics.metric import Reply, Score
from converters.evaluation.metrics.tensors import mean_of
from edge_runtime.inference.postprocessing.hysteresis import segment_overlap
from edge_runtime.inference.postprocessing.stream_results import Segment, Segments


@dataclass(slots=True)
class SegmentAgreement:
    """Mean over the streams of intersection / union in time of both answers' segments; 1 where neither has any."""

    output: str
    _shares: list[float] = field(default_factory=list, init=False)

    def add(self, reference: Reply, reply: Reply) -> None:
        """Take one stream in. Raises: BadDataset."""
        both, either = segment_overlap(_segments(reference, self.output), _segments(reply, self.output))
        self._shares.append(both / either if either > 0 else 1.0)

    def score(self) -> Score:
        """What came out."""
        return Score("segment_iou", *mean_of(self._shares))


def _segments(reply: Reply, output: str) -> tuple[Segment, ...]:
    result = reply.answer[output]
    if not isinstance(result, Segments):
        raise BadDataset(f"judge {output}", "it gives no segments")
    return result.segments
