"""An int8 TensorFlow Lite model of 2×2 grey pictures, one class per pixel, with pictures of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from converters.planning.recipe import Recipe
from tests.fakes.litert_models import int8_four_pixel_tflite
from tests.unit.converters.test_recipe import GOOD, parsed

CLASSES = ("zero", "one", "two", "three")


def four_pixel_folder(base: Path) -> Path:
    """Model, labels, and four pictures of each class in `e`; returns the folder."""
    (base / "m.tflite").write_bytes(int8_four_pixel_tflite(shape=(1, 2, 2, 1)))
    (base / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    for number, label in enumerate(CLASSES):
        (base / "e" / label).mkdir(parents=True)
        for shade in range(200, 240, 10):
            pixels = np.full(4, 40, np.uint8)
            pixels[number] = shade
            Image.fromarray(pixels.reshape(2, 2)).save(base / "e" / label / f"{shade}.png")
    return base


def four_pixel_recipe(**changes: object) -> Recipe:
    """The recipe of that folder, for LiteRT alone."""
    image = {**GOOD["inputs"]["image"], "tensor": "x", "layout": "NHWC", "color": "gray",
             "resize": {"mode": "none", "size": [2, 2]}}  # fmt: skip
    classes = {"tensor": "logits", "kind": "classes", "labels": "labels.txt", "activation": "softmax"}
    whole: dict[str, object] = {
        "model": "m.tflite", "inputs": {"image": image}, "outputs": {"classes": classes}, "engines": ["litert"],
        "calibration": None,
    }  # fmt: skip
    return parsed(**{**whole, **changes})
