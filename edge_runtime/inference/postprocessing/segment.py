"""Per-pixel classes, in the model's size or laid back over the caller's picture (nearest pixel)."""

from __future__ import annotations

import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.question_steps import Segment
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.question_results import NO_CLASS, OUTSIDE
from edge_runtime.inference.preprocessing.geometry import Placement


def classes_of(step: Segment, tensor: Array, placement: Placement | None) -> Array:
    """Classes int32 [H, W] of one sample.

    Args:
        step: where the classes stand.
        tensor: of the sample, without batch axis: [C, H, W], [H, W, C] or a class map [H, W].
        placement: of the picture; needed for `resize_to` original.

    Raises:
        InferenceError: the tensor is no map of classes, or the picture's size is not known.
    """
    if not tensor.size:
        raise InferenceError("read a mask", f"its shape is {list(tensor.shape)}, which holds nothing")
    if step.source == "logits":
        if step.axis is None or tensor.ndim != 3 or not 1 <= step.axis <= 3:
            raise InferenceError("read a mask", f"shape {list(tensor.shape)} has no class axis {step.axis}")
        classes = tensor.argmax(axis=step.axis - 1)
    else:
        classes = np.squeeze(tensor) if tensor.ndim > 2 else tensor
    if classes.ndim != 2:
        raise InferenceError("read a mask", f"its shape is {list(tensor.shape)}, not one class per pixel")
    classes = _named(classes)
    return _original(classes, placement) if step.resize_to == "original" else classes


def check_segment(step: Segment) -> None:
    """Refuse fields that make no mask. Raises: ContractError."""
    if step.source == "logits" and step.axis is None:
        raise ContractError("run postprocess step segment", "logits need the axis of their classes", "write axis")


def _named(classes: Array) -> Array:
    """Classes int32, NO_CLASS where the model's number names none: only a crop may put a pixel beyond judgement."""
    # Not in the tensor's own type: float16, and whatever numpy makes of small integers, ends far below int32.
    rounded = classes.astype(np.int64) if classes.dtype.kind in "iub" else np.rint(classes.astype(np.float64))
    known = (rounded >= 0) & (rounded <= np.iinfo(np.int32).max)
    return np.where(known, rounded, NO_CLASS).astype(np.int32)


def _original(classes: Array, placement: Placement | None) -> Array:
    """Each pixel of the picture takes the class at the point where its own centre lies in the model's answer."""
    if placement is None:
        raise InferenceError("answer with a mask", "the question is not known", "give interpret the decoded inputs")
    picked: list[Array] = []
    inside: list[Array] = []
    for axis in (0, 1):
        # The answer may be coarser than the input.
        coarse = classes.shape[axis] / placement.size[axis]
        centres = (np.arange(placement.picture[axis]) + 0.5) * placement.scale[axis] + placement.offset[axis]
        index = np.floor(centres * coarse).astype(np.int64)
        inside.append((index >= 0) & (index < classes.shape[axis]))
        picked.append(np.clip(index, 0, classes.shape[axis] - 1))
    spread = classes[np.ix_(*picked)]
    return np.where(inside[0][:, None] & inside[1][None], spread, np.int32(OUTSIDE))
