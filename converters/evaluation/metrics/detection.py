"""Mean average precision as COCO defines it, and how far two detectors find the same objects."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field

import numpy as np

from converters.data.truth import TrueBoxes, Truth
from converters.errors import BadDataset
from converters.evaluation.metrics.metric import Reply, Score
from edge_runtime.inference.backend import Array
from edge_runtime.inference.checks.agreement import box_matches, f1
from edge_runtime.inference.postprocessing.question_results import Boxes

_STATISTICS = {"map": 0, "map50": 1}
"""Place in pycocotools' summary: AP at IoU 0.50:0.95, and at 0.50; all areas, 100 objects a picture."""


@dataclass(slots=True)
class MeanAveragePrecision:
    """Computed by pycocotools, so that the number is the one everybody else reports."""

    name: str
    output: str
    _found: list[Array] = field(default_factory=list, init=False)
    """float64 [objects, 7] per picture: picture, left, top, width, height, score, class."""
    _true: list[dict[str, object]] = field(default_factory=list, init=False)
    _classes: set[int] = field(default_factory=set, init=False)
    _count: int = field(default=0, init=False)

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadDataset."""
        if not isinstance(truth, TrueBoxes):
            raise BadDataset(f"measure {self.name}", "the evaluation set has no boxes", "write evaluation.annotations")
        self._count += 1
        for corners, label, is_crowd in zip(truth.corners, truth.classes, truth.crowds, strict=True):
            left, top, right, bottom = (float(edge) for edge in corners)
            box = [left, top, right - left, bottom - top]
            # Numbered from 1: pycocotools takes number 0 for "matched with nothing".
            self._true.append({
                "id": len(self._true) + 1, "image_id": self._count, "category_id": label, "bbox": box,
                "area": box[2] * box[3], "iscrowd": int(is_crowd),
            })  # fmt: skip
            self._classes.add(label)
        self._found.append(_rows(_boxes(reply, self.output), self._count))

    def score(self) -> Score:
        """What came out; no interval, since the precision of a set is no mean over its pictures."""
        if not self._true:
            raise BadDataset(f"measure {self.name}", "no picture of the evaluation set has a box", "add some that have")
        found = np.concatenate(self._found)
        # Classes that nobody marked have no precision; COCO's own tool leaves them out as well.
        found = found[np.isin(found[:, 6], sorted(self._classes))]
        value = _summary(self._true, found, self._count, self._classes)[_STATISTICS[self.name]] if len(found) else 0.0
        return Score(self.name, float(value), self._count)


@dataclass(slots=True)
class BoxAgreement:
    """Of all objects that either model finds, the share that both find: same class, IoU of at least a half."""

    output: str
    min_score: float
    """As the release uses it: weaker boxes are no answers."""
    _matched: int = field(default=0, init=False)
    _found: int = field(default=0, init=False)
    _count: int = field(default=0, init=False)

    def add(self, reference: Reply, reply: Reply) -> None:
        """Take one sample in."""
        first, second = (strong_boxes(_boxes(one, self.output), self.min_score) for one in (reference, reply))
        self._matched += box_matches(first.boxes, first.indices, second.boxes, second.indices)
        self._found += len(first.indices) + len(second.indices)
        self._count += 1

    def score(self) -> Score:
        """What came out; two models that find nothing agree."""
        return Score("box_agreement", f1(self._matched, self._found, 0), self._count)


def _boxes(reply: Reply, output: str) -> Boxes:
    result = reply.answer[output]
    if not isinstance(result, Boxes):
        raise BadDataset(f"judge {output}", "it gives no boxes")
    return result


def strong_boxes(boxes: Boxes, min_score: float) -> Boxes:
    """The boxes from that score on."""
    kept = [position for position, score in enumerate(boxes.scores) if score >= min_score]
    return Boxes(
        boxes.boxes[kept],
        tuple(boxes.indices[position] for position in kept),
        tuple(boxes.labels[position] for position in kept),
        tuple(boxes.scores[position] for position in kept),
    )


def _rows(boxes: Boxes, picture: int) -> Array:
    rows = np.zeros((len(boxes.indices), 7))
    rows[:, 0] = picture
    rows[:, 1:3] = boxes.boxes[:, :2]
    rows[:, 3:5] = boxes.boxes[:, 2:] - boxes.boxes[:, :2]
    rows[:, 5] = boxes.scores
    rows[:, 6] = boxes.indices
    return rows


def _summary(true: list[dict[str, object]], found: Array, count: int, classes: set[int]) -> Array:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It tells its progress on stdout, where --json puts the report.
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "images": [{"id": number} for number in range(1, count + 1)],
            "annotations": true,
            "categories": [{"id": label} for label in sorted(classes)],
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats: Array = evaluation.stats
    return stats
