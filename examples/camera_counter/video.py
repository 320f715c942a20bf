"""Makes the video that stands in for the camera: of given photos, or of the demo's digits on a conveyor belt."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Picture = npt.NDArray[np.uint8]
"""uint8 [H, W, 3], RGB."""

FPS: Final = 5
FRAMES_PER_PHOTO: Final = 5
_DIGITS: Final = Path(__file__).parents[1] / "fleet_on_a_laptop" / "model" / "live"
_TILE_PX: Final = 96
_ROWS, _COLUMNS = 2, 5
_FRAME: Final = (720, 540)
_SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


def write_belt(path: Path) -> list[str]:
    """A video of the digits that the model never saw, ten in each frame; returns what stands in it, in order."""
    with (_DIGITS / "labels.csv").open(encoding="utf-8", newline="") as opened:
        rows = [(row["file"], row["label"]) for row in csv.DictReader(opened)]
    per_frame = _ROWS * _COLUMNS
    rows = rows[: len(rows) // per_frame * per_frame]
    frames = (_belt_frame(rows[at : at + per_frame]) for at in range(0, len(rows), per_frame))
    write_video(path, frames)
    return [label for _, label in rows]


def write_slideshow(path: Path, photos: Path) -> int:
    """A video that shows each photo of a folder for a second, fitted into one size; returns how many there are."""
    names = sorted(one for one in photos.iterdir() if one.suffix.lower() in _SUFFIXES)
    write_video(path, _slides(names))
    return len(names)


def write_video(path: Path, frames: Iterable[Picture]) -> None:
    """An AVI of JPEG pictures, which every OpenCV can write and read."""
    writer: cv2.VideoWriter | None = None
    for frame in frames:
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, size)
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if writer is not None:
        writer.release()


def _belt_frame(rows: list[tuple[str, str]]) -> Picture:
    tiles = []
    for name, _ in rows:
        with Image.open(_DIGITS / name) as image:
            tiles.append(np.asarray(image.convert("RGB").resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC)))
    lines = [np.hstack(tiles[at : at + _COLUMNS]) for at in range(0, len(tiles), _COLUMNS)]
    return np.vstack(lines)


def _slides(names: list[Path]) -> Iterator[Picture]:
    for name in names:
        with Image.open(name) as image:
            fitted = ImageOps.pad(image.convert("RGB"), _FRAME, color=(32, 32, 32))
        for _ in range(FRAMES_PER_PHOTO):
            yield np.asarray(fitted)
