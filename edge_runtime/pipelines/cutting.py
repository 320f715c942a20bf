"""Which parts of a frame a model is asked about, and where its answers lie in the frame."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np

from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.pipelines.description import BoxCrops, GridCrops
from edge_runtime.pipelines.records import Region


def cut_boxes(name: str, rule: BoxCrops, boxes: Boxes, size: tuple[int, int]) -> list[Region]:
    """Regions around what a detector found, best first, within the frame.

    Args:
        name: of the crops.
        rule: which boxes, and how much around them.
        boxes: in pixels of the frame.
        size: of the frame, width and height.
    """
    regions: list[Region] = []
    found = zip(boxes.boxes.tolist(), boxes.labels, boxes.scores, strict=True)
    for corners, label, score in sorted(found, key=lambda one: -one[2]):
        if (rule.labels and label not in rule.labels) or not score >= rule.min_score:
            continue
        box = _widened(corners, rule.margin, size)
        if box is None or min(box[2] - box[0], box[3] - box[1]) < rule.min_side_px:
            continue
        regions.append(Region(name, len(regions), box, label, float(score)))
        if len(regions) == rule.max:
            break
    return regions


def cut_grid(name: str, rule: GridCrops, size: tuple[int, int]) -> list[Region]:
    """Equal tiles, row after row; those that would be empty in a tiny frame are left out."""
    width, height = size
    xs = [width * column // rule.columns for column in range(rule.columns + 1)]
    ys = [height * row // rule.rows for row in range(rule.rows + 1)]
    tiles = [
        (left, top, right, bottom)
        for top, bottom in pairwise(ys)
        for left, right in pairwise(xs)
        if right > left and bottom > top
    ]
    return [Region(name, index, box) for index, box in enumerate(tiles)]


def in_frame(answer: Answer, region: Region) -> Answer:
    """An answer about a crop, its boxes in pixels of the frame."""
    offset = np.array([region.box[0], region.box[1], region.box[0], region.box[1]], np.float64)
    return {
        name: msgspec.structs.replace(part, boxes=part.boxes + offset) if isinstance(part, Boxes) else part
        for name, part in answer.items()
    }


def _widened(corners: list[float], margin: float, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Whole pixels that cover the box and its margin, cut at the frame; None when nothing is left."""
    if not all(math.isfinite(edge) for edge in corners):
        return None
    left, top, right, bottom = corners
    across, down = (right - left) * margin, (bottom - top) * margin
    # Bounded first: a box beyond all numbers has no whole pixel.
    x1, y1 = (math.floor(min(max(edge, 0), 1 << 30)) for edge in (left - across, top - down))
    x2, y2 = (
        math.ceil(max(min(edge, side), -1)) for edge, side in zip((right + across, bottom + down), size, strict=True)
    )
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
