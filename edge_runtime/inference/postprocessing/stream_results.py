"""Typed answers about a stream: a number for each step, or the pieces in which something lasted."""

from __future__ import annotations

import msgspec

from edge_runtime.inference.backend import Array


class Track(msgspec.Struct, frozen=True, eq=False):
    """A number for every step of a stream."""

    scores: Array
    """float64 [F], one per frame; empty when no frame was full yet."""
    start_s: float
    """When the first frame begins, in seconds of the stream."""
    step_s: float
    """Seconds from one frame to the next."""


class Segment(msgspec.Struct, frozen=True):
    """A piece of a stream."""

    start_s: float
    """Seconds since the stream began."""
    end_s: float


class Segments(msgspec.Struct, frozen=True):
    """Pieces of a stream in which something lasted, in the order of time."""

    segments: tuple[Segment, ...]
    """Those that ended; a piece that may still grow is not among them."""
    open_since_s: float | None
    """When the piece began that has not ended yet; None when there is none, and at the end of a stream."""
