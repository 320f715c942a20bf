"""Draws what was found onto the picture: boxes, labels and masks that stay readable on any photo.

Sizes follow the picture's; every line and letter has a dark edge or a filled ground of its own, so that neither snow
nor night hides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.contract.errors import printable
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.question_results import Anomaly, Boxes, Mask
from edge_runtime.inference.postprocessing.results import Classes, Result, Scored, Values, label_of
from edge_runtime.pipelines.records import Finding, Record, Region

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    _Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Colour = tuple[int, int, int]
_Rectangle = tuple[float, float, float, float]

PALETTE: Final[tuple[Colour, ...]] = (
    (255, 196, 0), (0, 200, 255), (255, 92, 138), (92, 220, 92), (190, 130, 255), (255, 140, 40),
    (64, 224, 190), (240, 240, 90), (120, 160, 255), (255, 120, 220), (170, 220, 60), (230, 170, 120),
)  # fmt: skip
"""Bright colours, told apart by neighbours' hue and lightness; a class keeps its own."""

_DARK: Final[Colour] = (16, 18, 22)
_LIGHT: Final[Colour] = (255, 255, 255)
_MASK_SHARE: Final = 0.45
"""How much of a mask's colour covers the photo."""
_LABEL_MAX: Final = 28
_BACKGROUND: Final = "background"
"""Its pixels stay clear, also where the release does not ignore the class."""
_CAPTION_LINES: Final = 6


@dataclass(frozen=True, slots=True)
class _Sizes:
    """In pixels, from the picture's own size."""

    line: int
    edge: int
    font: int
    pad: int

    @classmethod
    def of(cls, width: int, height: int) -> _Sizes:
        side = min(width, height) * 0.6 + max(width, height) * 0.4
        line = max(2, round(side / 220))
        return cls(line, max(1, round(side / 600)), max(10, round(side / 38)), max(2, round(side / 150)))


@dataclass(frozen=True, slots=True)
class _Tag:
    """Text to stand at a box."""

    box: _Rectangle
    lines: tuple[str, ...]
    colour: Colour


def annotate(record: Record) -> Array:
    """The record's picture with everything that was found in it, uint8 [H, W, 3] RGB."""
    from PIL import Image, ImageDraw

    pixels = _with_masks(record)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    sizes = _Sizes.of(*image.size)
    tags = _tags(record)
    for tag in tags:
        _draw_box(draw, tag, sizes)
    taken: list[_Rectangle] = []
    caption = _caption(record)
    if caption:
        taken.append(_draw_caption(image, draw, caption, sizes))
    for tag in tags:
        if tag.lines:
            taken.append(_draw_tag(draw, tag, sizes, image.size, taken))
    return np.asarray(image)


def colour_of(index: int) -> Colour:
    """The colour of a class."""
    return PALETTE[index % len(PALETTE)]


def _tags(record: Record) -> list[_Tag]:
    """Boxes with their texts; what other models said about a crop stands below its detector's own line."""
    said: dict[tuple[int, int, int, int], list[str]] = {}
    for finding in record.findings:
        if finding.region is not None:
            texts = [text for part in finding.answer.values() if (text := _short(part))]
            said.setdefault(finding.region.box, []).extend(texts)
    tags: list[_Tag] = []
    regions = {finding.region.box: finding.region for finding in record.findings if finding.region is not None}
    matched: set[tuple[int, int, int, int]] = set()
    for finding in record.findings:
        for part in finding.answer.values():
            if not isinstance(part, Boxes):
                continue
            for corners, index, label, score in zip(
                part.boxes.tolist(), part.indices, part.labels, part.scores, strict=True
            ):
                more: list[str] = []
                region = _region_of(corners, label, score, regions.values(), matched)
                if region is not None:
                    matched.add(region.box)
                    more = said[region.box]
                first = f"{_cut(label)} {score:.0%}"
                tags.append(_Tag(tuple(corners), (first, *more), colour_of(index)))
    tags += [
        _Tag(box, tuple(texts), colour_of(regions[box].index)) for box, texts in said.items() if box not in matched
    ]
    # Small boxes last: they lie over large ones.
    return sorted(tags, key=lambda tag: -(tag.box[2] - tag.box[0]) * (tag.box[3] - tag.box[1]))


def _region_of(
    corners: list[float], label: str, score: float, regions: Iterable[Region], matched: set[tuple[int, int, int, int]]
) -> Region | None:
    """The crop that was cut around this very box: same label, same score, and the box lies in it."""
    for region in regions:
        if region.box in matched or (region.label, region.score) != (label, score):
            continue
        centre_x, centre_y = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
        if region.box[0] <= centre_x <= region.box[2] and region.box[1] <= centre_y <= region.box[3]:
            return region
    return None


def _caption(record: Record) -> list[str]:
    """What was said about the whole picture, and what went wrong."""
    whole = [
        f"{finding.model}: {text}"
        for finding in record.findings
        if finding.region is None
        for part in finding.answer.values()
        if (text := _short(part))
    ]
    return [*whole, *(f"{failure.stage}: no answer" for failure in record.failures)][:_CAPTION_LINES]


def _short(part: Result) -> str | None:
    """A result in a few words; None for what is drawn, or says nothing to the eye."""
    match part:
        case Classes():
            return f"{_cut(part.labels[0])} {part.scores[0]:.0%}" if part.labels else None
        case Scored():
            return f"{part.score:.2f}"
        case Anomaly():
            verdict = {None: "", True: " anomalous", False: " normal"}[part.is_anomalous]
            return f"{part.score:.3g}{verdict}"
        case Values():
            return f"{', '.join(f'{value:.3g}' for value in part.values[:4])} {part.unit}".strip()
        case Mask():
            named = [(label_of(index, part.labels), share) for index, share in part.shares().items()]
            shares = [
                f"{_cut(label)} {share:.0%}" for label, share in named if label.lower() != _BACKGROUND and share >= 0.01
            ]
            return ", ".join(shares[:4]) or None
        case _:
            return None


def _cut(label: str) -> str:
    """A label as short as a picture needs it: of several names the first."""
    text = printable(label).replace("\n", " ").partition(",")[0]
    return text if len(text) <= _LABEL_MAX else text[: _LABEL_MAX - 1] + "…"


def _with_masks(record: Record) -> Array:
    """The picture, each mask's classes laid over it in their colours; ignored ones (the background) stay clear."""
    pixels: Array = np.array(record.frame.picture, dtype=np.uint8, copy=True)
    for finding in record.findings:
        for part in finding.answer.values():
            if isinstance(part, Mask):
                _lay_over(pixels, part, finding)
    return pixels


def _lay_over(pixels: Array, mask: Mask, finding: Finding) -> None:
    left, top, right, bottom = finding.region.box if finding.region else (0, 0, pixels.shape[1], pixels.shape[0])
    window = pixels[top:bottom, left:right]
    classes = _stretched(mask.classes, window.shape[0], window.shape[1])
    clear = mask.ignored.union(index for index, label in enumerate(mask.labels) if label.lower() == _BACKGROUND)
    shown = (classes >= 0) & ~np.isin(classes, list(clear))
    if not shown.any():
        return
    colours = np.array(PALETTE, np.float32)[np.clip(classes, 0, None) % len(PALETTE)]
    blended = window * (1 - _MASK_SHARE) + colours * _MASK_SHARE
    window[shown] = blended[shown].astype(np.uint8)
    rim = _rim(classes) & shown
    window[rim] = colours[rim].astype(np.uint8)


def _stretched(classes: Array, height: int, width: int) -> Array:
    """int [H, W] of the model's input, or of the picture already, as int [height, width] by nearest pixels."""
    if classes.shape == (height, width):
        return classes
    rows = np.arange(height) * classes.shape[0] // height
    columns = np.arange(width) * classes.shape[1] // width
    picked: Array = classes[rows][:, columns]
    return picked


def _rim(classes: Array) -> Array:
    """bool [H, W]: pixels with another class beside them."""
    rim = np.zeros(classes.shape, bool)
    across, down = classes[:, 1:] != classes[:, :-1], classes[1:] != classes[:-1]
    rim[:, 1:] |= across
    rim[:, :-1] |= across
    rim[1:] |= down
    rim[:-1] |= down
    return rim


def _draw_box(draw: ImageDraw.ImageDraw, tag: _Tag, sizes: _Sizes) -> None:
    left, top, right, bottom = (round(edge) for edge in tag.box)
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    reach = sizes.line + sizes.edge
    # A dark line inside and outside of the bright one: one of the three is seen on any ground.
    draw.rectangle((left - reach, top - reach, right + reach, bottom + reach), outline=_DARK, width=sizes.edge)
    draw.rectangle((left - sizes.line, top - sizes.line, right + sizes.line, bottom + sizes.line),
                   outline=tag.colour, width=sizes.line)  # fmt: skip
    draw.rectangle((left, top, right, bottom), outline=_DARK, width=sizes.edge)


def _draw_tag(
    draw: ImageDraw.ImageDraw, tag: _Tag, sizes: _Sizes, size: tuple[int, int], taken: Sequence[_Rectangle]
) -> _Rectangle:
    """Text on a filled ground at its box, where it covers the least of other text."""
    font = _font(sizes.font)
    text = "\n".join(_fitted(draw, line, font, size[0] - 2 * sizes.pad) for line in tag.lines)
    across, down = _measured(draw, text, font, sizes)
    reach = sizes.line + sizes.edge
    left, top, right, bottom = tag.box
    # Above the box, below it, inside at its head and foot; at its left edge, then at its right one.
    places = [
        (x, y)
        for x in (left - reach, right + reach - across)
        for y in (top - reach - down, bottom + reach, top + reach, bottom - reach - down)
    ]
    grounds = [_within(place, (across, down), size) for place in places]
    ground = min(grounds, key=lambda one: sum(_overlap(one, other) for other in taken))
    draw.rectangle(ground, fill=tag.colour, outline=_DARK, width=1)
    draw.multiline_text((ground[0] + sizes.pad, ground[1] + sizes.pad), text, font=font, fill=_ink_on(tag.colour),
                        spacing=sizes.pad)  # fmt: skip
    return ground


def _draw_caption(image: Image.Image, draw: ImageDraw.ImageDraw, lines: list[str], sizes: _Sizes) -> _Rectangle:
    """Lines about the whole picture, in its upper left corner on a dark, half transparent ground."""
    from PIL import Image as PillowImage

    font = _font(sizes.font)
    text = "\n".join(_fitted(draw, line, font, image.width - 2 * sizes.pad) for line in lines)
    across, down = _measured(draw, text, font, sizes)
    ground = (0, 0, min(round(across), image.width), min(round(down), image.height))
    below = image.crop(ground)
    image.paste(PillowImage.blend(below, PillowImage.new("RGB", below.size, _DARK), 0.72), ground[:2])
    draw.multiline_text((sizes.pad, sizes.pad), text, font=font, fill=_LIGHT, spacing=sizes.pad)
    return ground


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: _Font, width: float) -> str:
    """Text cut so that it is no wider than that."""
    while len(text) > 2 and draw.textlength(text, font=font) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def _within(place: tuple[float, float], extent: tuple[float, float], size: tuple[int, int]) -> _Rectangle:
    """A rectangle moved into the picture."""
    left = min(max(place[0], 0), max(size[0] - extent[0], 0))
    top = min(max(place[1], 0), max(size[1] - extent[1], 0))
    return left, top, left + extent[0], top + extent[1]


def _measured(draw: ImageDraw.ImageDraw, text: str, font: _Font, sizes: _Sizes) -> tuple[float, float]:
    left, _, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, spacing=sizes.pad)
    return right - min(left, 0) + 2 * sizes.pad, bottom + 2 * sizes.pad


@lru_cache(maxsize=16)
def _font(size: int) -> _Font:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _ink_on(ground: Colour) -> Colour:
    """Black or white, whichever stands out (luma of ITU-R BT.601)."""
    luma = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2]
    return _DARK if luma > 128 else _LIGHT


def _overlap(one: _Rectangle, other: _Rectangle) -> float:
    """Pixels that both cover."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(down, 0.0)
