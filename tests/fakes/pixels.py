"""A four-pixel classifier as a whole release with a golden set, and pictures for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.golden import Truth
from edge_runtime.contract.release import GoldenCheck
from edge_runtime.inference.checks.golden import pack_golden
from tests.fakes.models import WEIGHTS, Build, four_pixel_classifier, write_release


def write_pixels(
    layout: Path,
    version: str,
    *,
    weights: Any = WEIGHTS,
    content: bytes | None = None,
    builds: Sequence[Build] | None = None,
) -> Digest:
    """A release of the four-pixel classifier with a golden set; other weights than WEIGHTS fail it."""
    images = [picture(brightest) for brightest in range(4)]
    logits = [(image.reshape(1, 4) / 255.0 @ WEIGHTS).astype(np.float32) for image in images]
    golden = pack_golden(
        [{"image": image} for image in images],
        [{"logits": one} for one in logits],
        Truth(labels={"classes": [0, 1, 2, 3]}),
    )
    checks = [
        GoldenCheck(against="float", metric="snr_db", on="logits", min=30.0),
        GoldenCheck(against="truth", metric="top1", min=0.9),
    ]
    if builds is None:
        builds = [Build("ort-fp32", content=four_pixel_classifier(weights) if content is None else content)]
    return write_release(layout, builds, golden=golden, checks=checks, golden_count=4, version=version)


def write_source(folder: Path) -> Path:
    """Four pictures with labels, one of them labelled wrongly: measured accuracy is 0.75."""
    folder.mkdir()
    names = ["zero", "one", "two", "zero"]
    for brightest in range(4):
        Image.fromarray(picture(brightest)[:, :, 0]).save(folder / f"{brightest}.png")
    rows = "".join(f"{index}.png,{name}\n" for index, name in enumerate(names))
    (folder / "labels.csv").write_text("file,label\n" + rows)
    return folder


def picture(brightest: int) -> Any:
    """uint8 [2, 2, 1] with one bright pixel."""
    pixels = np.full(4, 20, np.uint8)
    pixels[brightest] = 250
    return pixels.reshape(2, 2, 1)
