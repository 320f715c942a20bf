"""How far a JPEG is reduced while it is decoded, where a release permits it; pure."""

from __future__ import annotations

from typing import Final

import msgspec

from edge_runtime.contract.image_steps import Decode, Resize
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.steps import PreStep
from edge_runtime.contract.tensor import AxisRange, InputSpec

_IN_THE_PICTURE: Final = frozenset({"detect", "nms", "segment"})
"""Postprocessing whose answers are pixels of the caller's picture, whose size a reduced one does not tell."""
_SIDE_MAX: Final = 65_535
"""Pixels: as long as a side of a JPEG can be."""


class Reduction(msgspec.Struct, frozen=True):
    """How far a JPEG may be reduced while it is decoded."""

    least: tuple[int, int]
    """Height, width that must be left."""
    is_exact: bool
    """Whether exactly that must be left."""
    most: tuple[int, int]
    """Height, width beyond which a picture is decoded whole: it is too large for the release, whose refusal says so."""


def reduction_of(
    decode: Decode, following: PreStep, source: InputSpec, release: ReleaseManifest
) -> Reduction | None:
    """What a decode step permits before the step that follows it; None when every picture is decoded whole.

    A picture is left twice as large as the resize makes it, so that the resize still sees more than it needs
    (Pillow's own `reducing_gap` for thumbnails is 2.0), unless only an exact scale is permitted. Where answers are
    places in the picture, it is never reduced.

    Args:
        decode: the step that permits it.
        following: only a resize that stretches leaves nothing of the picture's own size.
        source: the input, whose two sides must be free: a picture that must be of one very size is not reduced to it.
        release: what the input belongs to.
    """
    if decode.reduced == "never" or not isinstance(following, Resize) or following.mode != "stretch":
        return None
    if any(step.get("op") in _IN_THE_PICTURE for steps in release.postprocess.values() for step in steps):
        return None
    free, axes = AxisRange(min=1, max=_SIDE_MAX), release.signature.axes
    taken = [axes.get(size, free) for size in source.shape[-3:-1] if isinstance(size, str)]
    if len(taken) < 2:
        return None
    (height, width), most = following.size, (taken[0].max, taken[1].max)
    least = taken[0].min, taken[1].min
    if decode.reduced == "exact_scale":
        return Reduction((height, width), True, most) if height >= least[0] and width >= least[1] else None
    return Reduction((max(2 * height, least[0]), max(2 * width, least[1])), False, most)


def reducing_factor(reduction: Reduction | None, height: int, width: int) -> int:
    """1, 2, 4 or 8, by which a JPEG of that size is divided while it is decoded (libjpeg's scaled DCT)."""
    if reduction is None or height > reduction.most[0] or width > reduction.most[1]:
        return 1
    for factor in (8, 4, 2):
        left = height // factor, width // factor
        if reduction.is_exact:
            if left == reduction.least and (height % factor, width % factor) == (0, 0):
                return factor
        elif left[0] >= reduction.least[0] and left[1] >= reduction.least[1]:
            return factor
    return 1
