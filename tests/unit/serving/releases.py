"""Releases that the tests of serving share, and questions about them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from edge_runtime.serving.calls import Call, Reply
from tests.fakes.faulty_backend import ACCELERATOR, ENGINE
from tests.fakes.models import WEIGHTS, Build, four_pixel_classifier
from tests.fakes.pixels import picture, write_pixels


def plain(folder: Path, version: str, scale: float = 1.0, name: str = "layout") -> Path:
    """A release with one variant for the CPU; small differences in scale tell versions apart."""
    layout = folder / f"{name}-{version}"
    write_pixels(layout, version, weights=(WEIGHTS * scale).astype(np.float32))
    return layout


def accelerated(folder: Path, version: str = "1.0.0", *, has_stand_in: bool = True) -> Path:
    """A release whose best variant needs the accelerator; its scale tells who answered."""
    builds = [Build("npu", engine=ENGINE, accelerator=ACCELERATOR)]
    if has_stand_in:
        builds.append(Build("cpu", content=four_pixel_classifier((WEIGHTS * 1.001).astype(np.float32))))
    layout = folder / f"accelerated-{version}"
    write_pixels(layout, version, builds=builds)
    return layout


def png(brightest: int) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture(brightest)[:, :, 0]).save(buffer, "png")
    return buffer.getvalue()


def about(brightest: int, outputs: tuple[str, ...] | None = None, deadline: float | None = None) -> Call:
    """A question about a picture."""
    return Call({"image": picture(brightest)[None]}, outputs, deadline)


def brightest(reply: Reply) -> int:
    """What the answer says."""
    logits = reply.tensors["logits"]
    assert not isinstance(logits, list)
    return int(logits[0].argmax())
