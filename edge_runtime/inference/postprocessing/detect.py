"""Detector families: from raw tensors to scored boxes in pixels of the model's input, as each family publishes it.

Sources: Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB (vision/utils/box_utils.py), dog-qiuqiu/FastestDet
(utils/tool.py), ultralytics/yolov5 and ultralytics (head.py), Megvii-BaseDetection/YOLOX (yolo_head.py), Liu et al.,
SSD, ECCV 2016, and TensorFlow's TFLite_Detection_PostProcess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.question_steps import Detect
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.postprocessing.priors import cell_centres, square_priors

_FORMULA: Final = re.compile(r"(?:(obj)(?:\^([0-9.]+))?\*)?cls(?:\^([0-9.]+))?")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before suppression, in the model's own order."""

    boxes: Array
    """float64 [K, 4]: x1, y1, x2, y2 in pixels of the model's input, which they may leave."""
    scores: Array
    """float64 [K]"""
    classes: Array
    """int64 [K]"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a family reads: its step, one sample's tensors, and where its boxes start from."""

    step: Detect
    tensors: Tensors
    """Canonical tensors of the sample, without batch axis."""
    size: tuple[int, int]
    """Height, width of the model's input."""
    priors: Array | None = None
    """float [A, 4] of the layer that the step names."""

    @property
    def extent(self) -> list[int]:
        """What turns normalised corners into pixels of the model's input."""
        height, width = self.size
        return [width, height, width, height]

    def named(self, name: str | None) -> Array:
        """A tensor that the step names."""
        assert name is not None  # check_detect has looked
        return self.tensors[name]

    def rows(self, columns: int, *, at_least: bool = False) -> Array:
        """The boxes' tensor as float64 [A, columns]. Raises: InferenceError."""
        rows = self.tensors[self.step.from_].astype(np.float64)
        if rows.ndim != 2 or (rows.shape[1] < columns if at_least else rows.shape[1] != columns):
            wanted = f"[boxes, {columns}{' or more' if at_least else ''}]"
            raise _mismatch(f"{self.step.from_} has shape {list(rows.shape)}, not {wanted}")
        return rows

    def cells(self, count: int) -> tuple[Array, Array]:
        """Centres and strides of the grids' cells, one for each box. Raises: InferenceError."""
        centres, stride = cell_centres(self.size, self.step.strides)
        if len(centres) != count:
            raise _mismatch(f"{count} boxes for {len(centres)} cells of strides {self.step.strides}")
        return centres, stride

    def corners(self, boxes: Array) -> Array:
        """Boxes [A, 4] in the step's format as x1, y1, x2, y2 in pixels of the model's input."""
        match self.step.box_format:
            case "xyxy":
                pass
            case "yxyx":
                boxes = boxes[:, [1, 0, 3, 2]]
            case "cxcywh":
                boxes = _from_centres(boxes[:, :2], boxes[:, 2:])
            case "ltrb":
                centres, stride = self.cells(len(boxes))
                reach = boxes * stride if self.step.box_units == "grid" else boxes
                return np.concatenate([centres - reach[:, :2], centres + reach[:, 2:]], axis=1)
            case "offsets":
                raise self.not_built("its boxes are no offsets")
        match self.step.box_units:
            case "input_px":
                return boxes
            case "normalized":
                return boxes * self.extent
            case "grid":
                raise self.not_built(f"{self.step.box_format} on a grid is not built")

    def not_built(self, because: str) -> UnsupportedFeature:
        """The refusal of a combination of fields."""
        return UnsupportedFeature(f"run postprocess step detect ({self.step.family})", because, "correct the manifest")


@dataclass(frozen=True, slots=True)
class _Raw:
    """What a family's tensors say, before scores are formed."""

    boxes: Array
    """[A, 4] x1, y1, x2, y2 in pixels of the model's input."""
    classes: Array
    """Scores [A, C], or class indices [A] where the model chose."""
    objectness: Array | None = None
    """[A]; the scores themselves where the model chose the class."""
    first_class: int = 0
    """Index of the first column: 1 where a background column was cut off."""


def find_candidates(asked: Asked) -> Candidates:
    """Boxes of one sample that reach the minimum score.

    Raises:
        InferenceError: tensors do not have the family's shape.
        UnsupportedFeature: a combination of fields that is not built.
    """
    step = asked.step
    # What a model gives may be anything: what is no number drops out below.
    with np.errstate(over="ignore", invalid="ignore"):
        raw = _FAMILIES[step.family](asked)
        if raw.classes.ndim == 1:
            scores, classes = raw.objectness, np.nan_to_num(raw.classes, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
            assert scores is not None
        else:
            scores, best = _scores(step, raw)
            classes = best + raw.first_class
    kept = (scores >= step.min_score) & (classes >= 0) & np.isfinite(raw.boxes).all(axis=1)
    return Candidates(raw.boxes[kept].astype(np.float64), scores[kept].astype(np.float64), classes[kept])


def check_detect(step: Detect) -> None:
    """Refuse fields that do not make a detector, before a model is loaded. Raises: ContractError."""
    match = _FORMULA.fullmatch(step.score)
    if match is None:
        raise _incomplete(step, f"score {shown(step.score)} is no formula", "write cls, obj*cls or obj^0.6*cls^0.4")
    if (match[1] is not None) != (step.family in _WITH_OBJECTNESS):
        has = "has" if step.family in _WITH_OBJECTNESS else "has no"
        raise _incomplete(step, f"its family {has} objectness, its score is {step.score}")
    wanted = {name: getattr(step, name) for name in _NEEDED.get(step.family, ())}
    if missing := [name for name, value in wanted.items() if not value]:
        raise _incomplete(step, f"its family needs {' and '.join(missing)}")
    if len(step.variances) not in {0, 2}:
        raise _incomplete(step, f"it has {len(step.variances)} variances", "write that of the centre, that of the size")
    if step.box_format == "ltrb" and not step.strides:
        raise _incomplete(step, "distances to the edges need strides")


def _incomplete(step: Detect, because: str, remedy: str = "") -> ContractError:
    return ContractError(f"run postprocess step detect ({step.family})", because, remedy)


def _scores(step: Detect, raw: _Raw) -> tuple[Array, Array]:
    """Score and class of the best class of each box; of equal classes the first."""
    numbers = _activated(raw.classes.astype(np.float64), step)
    best = numbers.argmax(axis=1)
    chosen = np.take_along_axis(numbers, best[:, None], axis=1)[:, 0]
    match = _FORMULA.fullmatch(step.score)
    assert match is not None
    scores = chosen ** float(match[3] or 1)
    if raw.objectness is not None:
        objectness = raw.objectness.astype(np.float64)
        if step.activation == "sigmoid":
            objectness = _sigmoid(objectness)
        scores = objectness ** float(match[2] or 1) * scores
    return scores, best


def _activated(numbers: Array, step: Detect) -> Array:
    match step.activation:
        case "none":
            return numbers
        case "sigmoid":
            return _sigmoid(numbers)
        case "softmax":
            powers = np.exp(numbers - numbers.max(axis=1, keepdims=True))
            shares: Array = powers / powers.sum(axis=1, keepdims=True)
            return shares


def _sigmoid(numbers: Array) -> Array:
    # Written with tanh: exp(−x) overflows for strongly negative logits.
    return 0.5 * (1.0 + np.tanh(0.5 * numbers))


def _tflite_postprocess(asked: Asked) -> _Raw:
    step, boxes = asked.step, asked.rows(4)
    counted = asked.named(step.count).ravel()
    if counted.size != 1:
        raise _mismatch(f"{counted.size} numbers say how many boxes there are")
    count = int(np.clip(np.nan_to_num(counted[0]), 0, len(boxes)))
    classes, scores = (_one_each(asked.named(name), boxes)[:count] for name in (step.classes, step.scores))
    return _Raw(asked.corners(boxes[:count]), np.rint(classes), scores)


def _raw(asked: Asked) -> _Raw:
    """Boxes with scores of all classes, or with one score and one class each, in three tensors or in rows of six."""
    step = asked.step
    if step.scores is None:
        rows = asked.rows(6)
        return _Raw(asked.corners(rows[:, :4]), np.rint(rows[:, 5]), rows[:, 4])
    boxes, scores = asked.corners(asked.rows(4)), asked.named(step.scores)
    if step.classes is not None:
        return _Raw(boxes, np.rint(_one_each(asked.named(step.classes), boxes)), _one_each(scores, boxes))
    return _Raw(boxes, _matching(scores, boxes))


def _ultraface(asked: Asked) -> _Raw:
    boxes = asked.corners(asked.rows(4))
    return _without_background(boxes, _matching(asked.named(asked.step.scores), boxes))


def _ultraface_raw(asked: Asked) -> _Raw:
    return _from_priors(asked, square_priors(asked.size, asked.step.strides, asked.step.anchor_sizes))


def _ssd_priors(asked: Asked) -> _Raw:
    if asked.priors is None:
        raise _incomplete(asked.step, "the layer of its priors was not read")
    return _from_priors(asked, asked.priors)


def _from_priors(asked: Asked, priors: Array) -> _Raw:
    """Offsets from priors: centre = offset · variance · side + centre, side = exp(offset · variance) · side."""
    offsets, (of_centre, of_size) = asked.rows(4), asked.step.variances
    if priors.shape != offsets.shape:
        raise _mismatch(f"{len(offsets)} boxes for priors of shape {list(priors.shape)}")
    centres = offsets[:, :2] * of_centre * priors[:, 2:] + priors[:, :2]
    boxes = _from_centres(centres, np.exp(offsets[:, 2:] * of_size) * priors[:, 2:]) * asked.extent
    return _without_background(boxes, _matching(asked.named(asked.step.scores), boxes))


def _fastestdet(asked: Asked) -> _Raw:
    """[1 + 4 + C, H, W]: objectness; tanh offset of the centre in cells; sigmoid share of the picture; classes."""
    grid = asked.named(asked.step.from_)
    if grid.ndim != 3 or grid.shape[0] < 6:
        raise _mismatch(f"{asked.step.from_} has shape {list(grid.shape)}, not [5 + classes, rows, columns]")
    rows, columns = grid.shape[1:]
    cells = grid.astype(np.float64).reshape(grid.shape[0], -1).T
    y, x = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    centres = (np.tanh(cells[:, 1:3]) + np.stack([x, y], axis=1)) / [columns, rows]
    boxes = _from_centres(centres, _sigmoid(cells[:, 3:5])) * asked.extent
    return _Raw(boxes, cells[:, 5:], cells[:, 0])


def _yolo_v5(asked: Asked) -> _Raw:
    """[A, 5 + C]: box, objectness, classes."""
    rows = asked.rows(6, at_least=True)
    return _Raw(asked.corners(rows[:, :4]), rows[:, 5:], rows[:, 4])


def _yolo_v8(asked: Asked) -> _Raw:
    """[4 + C, A]: box, classes."""
    columns = asked.named(asked.step.from_).astype(np.float64)
    if columns.ndim != 2 or columns.shape[0] < 5:
        raise _mismatch(f"{asked.step.from_} has shape {list(columns.shape)}, not [4 + classes, boxes]")
    return _Raw(asked.corners(columns[:4].T), columns[4:].T)


def _yolox(asked: Asked) -> _Raw:
    """[A, 5 + C]; on the grid: centre = (offset + cell) · stride, side = exp(offset) · stride."""
    rows = asked.rows(6, at_least=True)
    if asked.step.box_units != "grid":
        return _Raw(asked.corners(rows[:, :4]), rows[:, 5:], rows[:, 4])
    centres, stride = asked.cells(len(rows))
    # Centres are half a cell in; this family counts from the cell's corner.
    corner = centres - stride / 2
    boxes = _from_centres(rows[:, :2] * stride + corner, np.exp(rows[:, 2:4]) * stride)
    return _Raw(boxes, rows[:, 5:], rows[:, 4])


_FAMILIES: Final[Mapping[str, Callable[[Asked], _Raw]]] = {
    "tflite_postprocess": _tflite_postprocess,
    "ssd_priors": _ssd_priors,
    "ultraface": _ultraface,
    "ultraface_raw": _ultraface_raw,
    "fastestdet": _fastestdet,
    "yolo_v5": _yolo_v5,
    "yolo_v8": _yolo_v8,
    "yolox": _yolox,
    "raw": _raw,
}
_WITH_OBJECTNESS: Final = frozenset({"fastestdet", "yolo_v5", "yolox"})
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "tflite_postprocess": ("scores", "classes", "count"),
    "ssd_priors": ("scores", "priors", "variances"),
    "ultraface": ("scores",),
    "ultraface_raw": ("scores", "strides", "anchor_sizes", "variances"),
}


def _without_background(boxes: Array, scores: Array) -> _Raw:
    """SSD's first class is the background: it takes part in no comparison."""
    if scores.shape[1] < 2:
        raise _mismatch(f"scores of shape {list(scores.shape)} have no class beside the background")
    return _Raw(boxes, scores[:, 1:], first_class=1)


def _from_centres(centres: Array, sides: Array) -> Array:
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)


def _matching(scores: Array, boxes: Array) -> Array:
    if scores.ndim != 2 or len(scores) != len(boxes) or scores.shape[1] < 1:
        raise _mismatch(f"scores of shape {list(scores.shape)} for {len(boxes)} boxes")
    return scores


def _one_each(numbers: Array, boxes: Array) -> Array:
    """[A]: one number for each box. Raises: InferenceError."""
    if numbers.size != len(boxes):
        raise _mismatch(f"scores or classes of shape {list(numbers.shape)} for {len(boxes)} boxes")
    return numbers.ravel()


def _mismatch(because: str) -> InferenceError:
    return InferenceError("read the detector's tensors", because, "correct the recipe's family")
