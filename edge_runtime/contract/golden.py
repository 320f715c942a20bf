"""The golden set, as a release names it: what it promises and how it is judged."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Final, Literal

from edge_runtime.contract.codec import Document

GOLDEN_MAX_BYTES: Final = 4 * 1024 * 1024


class GoldenCheck(Document, frozen=True, kw_only=True):
    """One threshold; comes from the recipe, never from the candidate that is judged by it."""

    against: Literal["own", "float", "truth"]
    """`own`: is this silicon right?  `float`: is this variant good?  `truth`: is this model good?"""
    metric: str
    """On a tensor: `snr_db`, `max_abs`, `cosine`, `top1`. On the answer: `top1`, `box_agreement`, `pixel_agreement`,
    `segment_iou`.

    Against truth: `top1`, `top5`, `box_f1`, `mean_iou`, `r2`, `mae`, `auc`. A reader refuses what it does not know.
    """
    on: str | None = None
    """Canonical tensor the metric is computed on; None for task metrics on the answer."""
    min: float | None = None
    max: float | None = None


class GoldenSpec(Document, frozen=True, kw_only=True):
    """A small proof of sanity, not an accuracy measurement."""

    layer: str
    count: int
    contains_personal_data: bool
    checks: list[GoldenCheck]
    stored: str = "decoded"
    """Inputs after `decode`, of one sample (`decoded`) or of all that one session hears (`sequence`)."""
    max_bytes: int = GOLDEN_MAX_BYTES
