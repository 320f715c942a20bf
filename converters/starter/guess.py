"""What a model probably takes and answers, from shapes alone: a beginning for a recipe, never more; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from converters.model.source import Imported, Port
from converters.planning.recipe_outputs import OutputKind
from edge_runtime.contract.steps import RawStep

_SIDE_MIN: Final = 16
_BOX: Final = 4
"""Numbers of a box."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What the answer may be."""

    kind: OutputKind
    task: str
    port: Port
    """The output that it is made from."""
    because: str
    """For a person."""
    steps: tuple[RawStep, ...] = ()
    """With the model's names of its tensors."""


def looks_like_image(port: Port) -> bool:
    """Whether an input takes pictures: float32, four axes, one or three channels, sides as pictures have them.

    Small pictures are square, and so are grey ones: features of a sound, 49 frames of 10 numbers or 96 of 64, have one
    channel as well.
    """
    layout = layout_of(port)
    if port.dtype != "float32" or layout is None:
        return False
    height, width = port.shape[2:] if layout == "NCHW" else port.shape[1:3]
    sides = [side for side in (height, width) if side is not None]
    if height != width and has_one_channel(port):
        return False
    return all(side >= _SIDE_MIN for side in sides) or height == width


def has_one_channel(port: Port) -> bool:
    """Whether an input may be a grey picture, or features that look like one."""
    layout = layout_of(port)
    return layout is not None and port.shape[1 if layout == "NCHW" else 3] == 1


def layout_of(port: Port) -> Literal["NCHW", "NHWC"] | None:
    """Where the one or three channels stand; None when nowhere."""
    if len(port.shape) != 4:
        return None
    if port.shape[1] in {1, 3}:
        return "NCHW"
    return "NHWC" if port.shape[3] in {1, 3} else None


def guess_answer(imported: Imported) -> Guess:
    """What shapes say about the first answer."""
    entry, first = imported.inputs[0], imported.outputs[0]
    is_image = looks_like_image(entry)
    if found := _detector(imported):
        return found
    if len(imported.inputs) == 1 and len(first.shape) > 1 and first.width != 1 and first.shape == entry.shape:
        step: RawStep = {"op": "reconstruction", "metric": "mse", "over": entry.name, "aggregate": "mean"}
        because = "it has the shape of the input, as an autoencoder's"
        return Guess("anomaly", "anomaly_detection", first, because, (step,))
    if is_image and (mask := _mask(entry, first)):
        return Guess("segmentation", "image_segmentation", first, "it has the sides of the picture", (mask,))
    if first.width == 1:
        return Guess("score", "regression", first, "it is one number; values is for a regression")
    if first.is_vector:
        task = "image_classification" if is_image else "classification"
        return Guess("classes", task, first, "it is one number for each class")
    return Guess("tensor", "other", first, "its shape is neither of classes nor of boxes beside scores")


def _detector(imported: Imported) -> Guess | None:
    """Boxes beside scores of as many candidates."""
    floats = [port for port in imported.outputs if port.dtype == "float32"]
    for boxes in floats:
        for scores in floats:
            if boxes is not scores and _are_boxes_and_scores(boxes, scores):
                return _boxes_beside(boxes, scores)
    return None


def _are_boxes_and_scores(boxes: Port, scores: Port) -> bool:
    is_paired = len(boxes.shape) == len(scores.shape) == 3 and boxes.shape[1] == scores.shape[1]
    named_otherwise = "box" in scores.name.lower() or "score" in boxes.name.lower()
    return is_paired and boxes.shape[2] == _BOX and scores.shape[2] is not None and not named_otherwise


def _boxes_beside(boxes: Port, scores: Port) -> Guess:
    detect: RawStep = {
        "op": "detect", "family": "ultraface" if scores.shape[2] == 2 else "raw", "scores": scores.name, "score": "cls",
        "activation": "none", "box_format": "xyxy", "box_units": "normalized", "min_score": 0.5, "max": 100,
    }  # fmt: skip
    nms: RawStep = {"op": "nms", "iou": 0.45, "per_class": True, "kind": "hard", "in_graph": False}
    because = f"{boxes.name} {shape_text(boxes)} and {scores.name} {shape_text(scores)} look like boxes and scores"
    return Guess("detections", "object_detection", boxes, because, (detect, nms))


def _mask(entry: Port, answer: Port) -> RawStep | None:
    """The step for a class, or a score of each class, for every pixel."""
    sides = entry.shape[2:] if layout_of(entry) == "NCHW" else entry.shape[1:3]
    if None in sides:
        return None
    if answer.shape[1:] == sides:
        return {"op": "segment", "source": "classmap", "resize_to": "original"}
    if len(answer.shape) == 4 and sides in {answer.shape[2:], answer.shape[1:3]}:
        axis = 1 if answer.shape[2:] == sides else 3
        return {"op": "segment", "source": "logits", "axis": axis, "resize_to": "original"}
    return None


def shape_text(port: Port) -> str:
    """Sizes for a person."""
    return str([size or "N" for size in port.shape]).replace("'", "")
