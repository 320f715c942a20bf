"""From a JPEG file to the model's input, beside the best plain sequence that gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.inference.preprocessing.pictures import prepare
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess
from tests.bench.figures import table
from tests.bench.turns import heads, in_turns, load_note, rows
from tests.fakes.models import release_manifest

ROUNDS = 100
SIZE = (900, 1352)
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
BOUND = 1.02


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    content = _photo()
    section = [
        "## JPEG to input",
        "",
        f"A JPEG like a photo, {SIZE[1]} by {SIZE[0]} pixels, {len(content) // 1000} KB, to float32 [1, 3, 224, 224],",
        "normalised, without the engine. The plain sequence is written by hand for this one model; both give the",
        "same bytes.",
        load_note(),
    ]
    for title, antialias, plain in (
        ("OpenCV's bilinear (`antialias = false`)", False, _plain_opencv),
        ("Pillow's bilinear (`antialias = true`)", True, _plain_pillow),
    ):
        preprocess = compile_preprocess(_release(antialias=antialias))
        ours: Callable[[], Any] = lambda made=preprocess: prepare(made, {"image": content}).feeds["x"]  # noqa: E731
        by_hand: Callable[[], Any] = lambda made=plain: made(content)  # noqa: E731
        if not np.array_equal(ours(), by_hand()):
            raise AssertionError(f"{title}: the two do not give the same bytes")
        times = in_turns({"by hand": by_hand, "the release's steps": ours}, ROUNDS)
        found = rows(times, "by hand", {"the release's steps": BOUND}, 1000)
        section += ["", f"{title}:", "", *table(heads("ms"), found)]
    return section


def _photo() -> bytes:
    """Smooth shapes with fine noise, about as hard to decode as a photo."""
    chance = np.random.default_rng(0)
    coarse = Image.fromarray(chance.integers(0, 256, (30, 45, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(smooth + chance.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _plain_opencv(content: bytes) -> npt.NDArray[np.float32]:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    return _normalised(cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_LINEAR))


def _plain_pillow(content: bytes) -> npt.NDArray[np.float32]:
    return _normalised(np.asarray(Image.open(io.BytesIO(content)).resize((224, 224), Image.Resampling.BILINEAR)))


def _normalised(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = pixels.astype(np.float32)
    values -= np.float32(MEAN)
    values /= np.float32(STD)
    return np.ascontiguousarray(values.transpose(2, 0, 1))[None]


def _release(*, antialias: bool) -> ReleaseManifest:
    base = release_manifest(["v"])
    spec = msgspec.structs.replace(
        base.signature.inputs[0], shape=["N", "H", "W", 3], color="rgb", accept=["jpeg", "tensor"]
    )
    steps: list[dict[str, object]] = [
        {"id": "decode", "op": "decode", "from": "image", "color": "rgb", "exif": "apply", "reduced": "never"},
        {"id": "resize", "op": "resize", "mode": "stretch", "size": [224, 224], "filter": "bilinear",
         "antialias": antialias},
        {"id": "norm", "op": "normalize", "scale": 1.0, "mean": MEAN, "std": STD},
        {"id": "layout", "op": "layout", "to": "NCHW"},
    ]  # fmt: skip
    return msgspec.structs.replace(
        base,
        signature=msgspec.structs.replace(base.signature, inputs=[spec]),
        tensors={**base.tensors, "x": msgspec.structs.replace(base.tensors["x"], shape=["N", 3, 224, 224])},
        preprocess={"x": steps},
    )
