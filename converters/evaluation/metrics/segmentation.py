"""Mean intersection over union, and the share of pixels on which two models agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from converters.data.truth import MaskFile, Truth
from converters.errors import BadDataset
from converters.evaluation.metrics.metric import Reply, Score
from converters.evaluation.metrics.resampling import interval_of
from converters.evaluation.metrics.tensors import mean_of
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array
from edge_runtime.inference.checks.agreement import mean_iou, overlap_by_class, resized_map
from edge_runtime.inference.checks.golden_answers import pixel_agreement
from edge_runtime.inference.postprocessing.question_results import OUTSIDE, Mask
from edge_runtime.inference.preprocessing.images import MAX_PIXELS

VOID: Final = 255
"""Pixels that nobody judges, in PASCAL VOC and most sets after it."""
_CLASSES_MAX: Final = 256
"""A mask is a picture of bytes."""


@dataclass(slots=True)
class MeanIou:
    """Mean of intersection / union, pooled over all pictures, over the classes that somebody marked."""

    output: str
    _pictures: list[Array] = field(default_factory=list, init=False)
    """int64 [3, classes] per picture: intersections, unions, marked pixels."""

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadDataset."""
        if not isinstance(truth, MaskFile):
            raise BadDataset("measure mean_iou", "the evaluation set has no masks", "write evaluation.masks")
        known = read_mask(truth)
        found = resized_map(_classes(reply, self.output), (known.shape[0], known.shape[1]))
        judged = (known != (VOID if truth.ignore is None else truth.ignore)) & (found != OUTSIDE)
        known, found = known[judged].astype(np.int64), found[judged].astype(np.int64)
        if found.size and found.max() >= _CLASSES_MAX:
            raise BadDataset("measure mean_iou", f"the model answers class {int(found.max())}, masks hold 0 to 255")
        self._pictures.append(overlap_by_class(known, found, _CLASSES_MAX))

    def score(self) -> Score:
        """What came out, with an interval from pictures drawn again."""
        pictures = np.stack(self._pictures) if self._pictures else np.zeros((0, 3, 1))
        return Score("mean_iou", mean_iou(pictures.sum(axis=0)), len(pictures), interval_of(pictures, mean_iou))


@dataclass(slots=True)
class PixelAgreement:
    """Mean over pictures of the share of pixels that both models put into the same class."""

    output: str
    _shares: list[float] = field(default_factory=list, init=False)

    def add(self, reference: Reply, reply: Reply) -> None:
        """Take one sample in."""
        first, second = _classes(reference, self.output), _classes(reply, self.output)
        self._shares.append(pixel_agreement(first, second))

    def score(self) -> Score:
        """What came out."""
        return Score("pixel_agreement", *mean_of(self._shares))


def read_mask(mask: MaskFile) -> Array:
    """uint8 [height, width]: the class of each pixel. Raises: BadDataset: no picture of class numbers."""
    from PIL import Image

    try:
        with Image.open(mask.path) as picture:
            if picture.mode not in {"P", "L", "1"}:
                because = f"its pixels are {picture.mode}, not class numbers"
                raise BadDataset(f"read mask {mask.path.name}", because, "write one number per pixel, gray or palette")
            if picture.width * picture.height > MAX_PIXELS:
                because = f"it is {picture.width} wide and {picture.height} high, over {MAX_PIXELS} pixels"
                raise BadDataset(f"read mask {mask.path.name}", because, "make it as large as its picture")
            classes: Array = np.asarray(picture).astype(np.uint8)
    except BadDataset:
        raise
    except Exception as error:
        # Each of Pillow's decoders has classes of its own for a damaged file.
        raise BadDataset(f"read mask {mask.path.name}", shown(str(error), 120), "write it as PNG") from error
    return classes


def _classes(reply: Reply, output: str) -> Array:
    result = reply.answer[output]
    if not isinstance(result, Mask):
        raise BadDataset(f"judge {output}", "it gives no mask")
    return result.classes
