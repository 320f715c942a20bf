"""Non-maximum suppression of boxes: hard, and the linear soft form (Bodla et al., Soft-NMS, ICCV 2017)."""

from __future__ import annotations

import numpy as np

from edge_runtime.contract.question_steps import Nms
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.detect import Candidates


def suppress(found: Candidates, step: Nms | None, *, min_score: float, most: int) -> Candidates:
    """The best objects, best first; equal scores keep the model's order.

    Args:
        found: boxes of one sample.
        step: how overlapping boxes give way; None, or in the graph: the model has done it.
        min_score: softened boxes below it drop out.
        most: how many remain.
    """
    if step is None or step.in_graph:
        order = np.argsort(-found.scores, kind="stable")[:most]
        return Candidates(found.boxes[order], found.scores[order], found.classes[order])
    return _soft(found, step, min_score, most) if step.kind == "soft" else _hard(found, step, most)


def iou_with(box: Array, others: Array) -> Array:
    """Intersection over union of one box [4] with others [K, 4], x1, y1, x2, y2; 0 where both are empty."""
    top_left, bottom_right = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(bottom_right - top_left, 0.0), axis=1)
    whole = _area(box[None]) + _area(others) - common
    ratio: Array = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return ratio


def _area(boxes: Array) -> Array:
    area: Array = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    return area


def _hard(found: Candidates, step: Nms, most: int) -> Candidates:
    waiting = np.argsort(-found.scores, kind="stable")
    kept: list[int] = []
    while waiting.size and len(kept) < most:
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        overlaps = iou_with(found.boxes[best], found.boxes[waiting]) > step.iou
        if step.per_class:
            overlaps &= found.classes[waiting] == found.classes[best]
        waiting = waiting[~overlaps]
    return Candidates(found.boxes[kept], found.scores[kept], found.classes[kept])


def _soft(found: Candidates, step: Nms, min_score: float, most: int) -> Candidates:
    scores = found.scores.copy()
    waiting = np.arange(scores.size)
    kept: list[int] = []
    while waiting.size and len(kept) < most:
        position = int(np.argmax(scores[waiting]))
        best = waiting[position]
        waiting = np.delete(waiting, position)
        kept.append(int(best))
        overlap = iou_with(found.boxes[best], found.boxes[waiting])
        touched = overlap > step.iou
        if step.per_class:
            touched &= found.classes[waiting] == found.classes[best]
        scores[waiting] *= np.where(touched, 1.0 - overlap, 1.0)
        waiting = waiting[scores[waiting] >= min_score]
    return Candidates(found.boxes[kept], scores[kept], found.classes[kept])
