"""The steps whose answers depend on what was asked: where boxes and masks lie, how far an input is from its copy."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Annotated, Literal

import msgspec

from edge_runtime.contract.steps import Count, Reading

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Detect(Reading, frozen=True, kw_only=True, tag="detect"):
    """Raw detector tensors to scored boxes; `from` names the boxes, or the one tensor that holds everything."""

    family: Literal[
        "tflite_postprocess",
        "ssd_priors",
        "ultraface",
        "ultraface_raw",
        "fastestdet",
        "yolo_v5",
        "yolo_v8",
        "yolox",
        "raw",
    ]
    score: str
    """`cls`, `obj*cls` or `obj^a*cls^b`."""
    activation: Literal["none", "softmax", "sigmoid"]
    box_format: Literal["xyxy", "yxyx", "cxcywh", "ltrb", "offsets"]
    box_units: Literal["normalized", "input_px", "grid"]
    min_score: float
    max: Count
    """Most objects that an answer holds."""
    scores: str | None = None
    """Canonical tensor of class scores, where they are no part of `from`."""
    classes: str | None = None
    """Canonical tensor of class indices, where the model chose the class itself."""
    count: str | None = None
    """Canonical tensor that says how many boxes are valid."""
    strides: list[Count] = []
    """Input pixels per cell of each grid, finest first."""
    anchors: str | None = None
    anchor_sizes: list[list[float]] = []
    """For each stride, sides of its square priors in input pixels."""
    priors: str | None = None
    """`layer:<title>` of a .npy, float32 [A, 4]: centre x, centre y, width, height, normalised."""
    variances: list[float] = []
    """Of the centre, of the size."""

    @property
    def tensors(self) -> frozenset[str]:
        """All that it reads."""
        return frozenset(name for name in (self.from_, self.scores, self.classes, self.count) if name is not None)


class Nms(Reading, frozen=True, kw_only=True, tag="nms"):
    """Non-maximum suppression of what `from` names, an earlier step; boxes leave as xyxy pixels of the caller's image.

    `soft` is the linear form: a box that overlaps a better one by more than `iou` keeps 1 − overlap of its score.
    """

    iou: Share
    per_class: bool
    kind: Literal["hard", "soft"]
    in_graph: bool


class Segment(Reading, frozen=True, kw_only=True, tag="segment"):
    """Per-pixel classes."""

    source: Literal["logits", "classmap"]
    resize_to: Literal["input", "original"]
    axis: int | None = None
    """Axis of the classes, the batch axis being 0; needed for logits."""
    ignore: list[int] = []
    """Classes that a summary leaves out."""


class Reconstruction(Reading, frozen=True, kw_only=True, tag="reconstruction"):
    """Distance between input and reconstruction (anomaly score)."""

    metric: Literal["mse", "mae"]
    over: str
    """Canonical input tensor that was to be reconstructed."""
    aggregate: Literal["mean", "max"]
    """Over the windows of one sample."""
    threshold: float | None = None
