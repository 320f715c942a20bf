"""Properties that Ultralytics writes into an exported ONNX file: task, class names, image size.

What they do not say is what its own predictor does: letterbox with 114 at the centre (OpenCV's linear filter), RGB,
x / 255, confidence 0.25, overlap 0.45 (YOLOv5) or 0.7 (later).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Final

from converters.model.source import Port
from converters.starter.metadata.facts import AnswerFacts, Facts, PictureFacts
from edge_runtime.contract.ids import shown
from edge_runtime.contract.steps import RawStep

SOURCE: Final = "Ultralytics properties"
_GREY: Final = 114.0
_CONFIDENCE: Final = 0.25
_ROW: Final = 6
"""Box, score, class: a row of a model that has done the suppression itself."""
_NAMES_MAX: Final = 100_000
_TEXT_MAX: Final = 1024 * 1024
"""Characters; reading a literal takes 250 bytes for each."""


def facts_of_ultralytics(properties: Mapping[str, str], outputs: Sequence[Port]) -> Facts | None:
    """What the properties of an ONNX file say; None when Ultralytics did not write them."""
    if not ({"stride", "names", "task"} <= properties.keys()):
        return None
    task, names = properties["task"], _names(properties["names"])
    size = _size(properties.get("imgsz", ""))
    if task == "detect" and outputs:
        detect, nms = _steps(outputs[0], len(names), ends=properties.get("end2end") == "True")
        steps = tuple(step for step in (detect, nms) if step is not None)
        notes = () if steps else (f"{SOURCE} name {len(names)} classes, output {outputs[0].name} has another shape",)
        return Facts(SOURCE, picture=_letterbox(size), answer=AnswerFacts("detections", None, _CONFIDENCE, steps),
                     labels=names, task="object_detection", licence=properties.get("license"), notes=notes)  # fmt: skip
    if task == "classify":
        picture = PictureFacts(
            color="rgb", mode="shortest_side", size=size, filter="bilinear", antialias=True, crop=size,
            scale=1.0, mean=(0.0,), std=(255.0,),
        )  # fmt: skip
        return Facts(SOURCE, picture=picture, answer=AnswerFacts("classes", "none"), labels=names,
                     task="image_classification", licence=properties.get("license"))  # fmt: skip
    note = f"{SOURCE} say task {shown(task)}, for which there is no postprocessing here"
    return Facts(SOURCE, picture=_letterbox(size), labels=names, licence=properties.get("license"), notes=(note,))


def _letterbox(size: tuple[int, int] | None) -> PictureFacts:
    return PictureFacts(
        color="rgb", mode="fit_pad", size=size, filter="bilinear", antialias=False, pad_value=_GREY,
        pad_anchor="center", scale=1.0, mean=(0.0,), std=(255.0,),
    )  # fmt: skip


def _steps(output: Port, classes: int, *, ends: bool) -> tuple[RawStep | None, RawStep | None]:
    """[N, 4 + C, A] is YOLOv8 and later, [N, A, 5 + C] YOLOv5, [N, A, 6] a model with the suppression inside."""
    plain: RawStep = {"op": "detect", "activation": "none", "box_units": "input_px", "min_score": _CONFIDENCE,
                      "max": 300}  # fmt: skip
    nms: RawStep = {"op": "nms", "per_class": True, "kind": "hard", "in_graph": False}
    rows = output.shape[1:]
    if len(rows) != 2:
        return None, None
    if ends and rows[1] == _ROW:
        return {**plain, "family": "raw", "score": "cls", "box_format": "xyxy"}, {**nms, "iou": 0.7, "in_graph": True}
    if rows[0] == 4 + classes:
        return {**plain, "family": "yolo_v8", "score": "cls", "box_format": "cxcywh"}, {**nms, "iou": 0.7}
    if rows[1] == 5 + classes:
        return {**plain, "family": "yolo_v5", "score": "obj*cls", "box_format": "cxcywh"}, {**nms, "iou": 0.45}
    return None, None


def _names(text: str) -> tuple[str, ...]:
    """Class names from the text of a Python dict or list."""
    names = _literal(text)
    if isinstance(names, dict) and all(isinstance(key, int) for key in names) and len(names) <= _NAMES_MAX:
        return tuple(str(names[key]) for key in sorted(names)) if sorted(names) == list(range(len(names))) else ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _size(text: str) -> tuple[int, int] | None:
    match _literal(text):
        case [int(height), int(width)] if min(height, width) > 0:
            return int(height), int(width)
    return None


def _literal(text: str) -> object:
    """What a Python literal says; None when it is none, or longer than a list of names can be."""
    try:
        return ast.literal_eval(text) if len(text) <= _TEXT_MAX else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
