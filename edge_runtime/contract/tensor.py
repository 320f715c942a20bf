"""What goes into a model and what comes out: public signature and canonical tensors."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

import msgspec

from edge_runtime.contract.codec import Document

Shape = list[int | str]
"""Sizes; a string names a dynamic axis whose range stands in `Signature.axes`."""


class TensorSpec(Document, frozen=True, kw_only=True):
    """One canonical tensor, between preprocessing and the engine."""

    dtype: str
    """numpy name: `float32`, `uint8`, `int64`, …"""
    shape: Shape
    layout: str | None = None
    """`NCHW`, `NHWC`, `NTC`, …; None where axes have no such meaning."""
    constant: float | int | bool | None = None
    """Fed by the runtime with this value; not part of the public signature."""


class InputSpec(Document, frozen=True, kw_only=True):
    """One input as an application gives it."""

    name: str
    kind: str
    """`image`, `audio`, `tensor`, `table`, `text`."""
    dtype: str
    shape: Shape
    layout: str | None = None
    color: str | None = None
    """`rgb`, `bgr`, `gray` for images."""
    accept: list[str] = msgspec.field(default_factory=lambda: ["tensor"])
    """Encodings understood besides arrays: `jpeg`, `png`, `wav`, `s16le`, `tensor`."""
    sample_rate_hz: int | None = None
    channels: int | None = None
    range: list[float] | None = None
    """Lowest and highest meaningful value."""


class OutputSpec(Document, frozen=True, kw_only=True):
    """One answer as an application receives it."""

    name: str
    kind: str
    """`classes`, `detections`, `segmentation`, `anomaly`, `score`, `values`, `embedding`, `segments`, `tensor`."""
    labels: str | None = None
    """`layer:<title>` of the label list."""
    raw: str | None = None
    """Canonical tensor behind this answer, for callers who want the numbers."""
    unit: str | None = None


class AxisRange(Document, frozen=True, kw_only=True):
    """Sizes a named dynamic axis may take, both ends included."""

    min: int
    max: int


class Signature(Document, frozen=True, kw_only=True):
    """Everything an application must know to call the model."""

    inputs: list[InputSpec]
    outputs: list[OutputSpec]
    axes: dict[str, AxisRange] = {}
