"""The models of the comparison, each with its data and what it may lose."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from tests.conftest import SHARED
from tests.fakes.digits import RECIPES, recipe_of
from tests.fakes.float_mobilenet import float_mobilenet

MODELS: Final = SHARED / "models"


class Unavailable(Exception):
    """The model is not on this machine."""


@dataclass(frozen=True)
class Case:
    """A model to quantise."""

    title: str
    budget: float
    recipe: Callable[[Path], dict[str, Any]]
    """Writes what it needs into a folder; paths in the recipe are absolute."""


def keywords(folder: Path) -> dict[str, Any]:
    """MLPerf Tiny's keyword spotting: 200 samples calibrate, the other 800 judge."""
    data = {"file": str(_shared("data/kws01_mfcc_int8.npz")), "truth": "y",
            "stored": {"scale": 0.5847029089927673, "zero_point": 83}}  # fmt: skip
    return _recipe(
        _shared("onnx/mlperf_tiny_kws.onnx"), {**data, "range": ":200"}, {**data, "range": "200:"},
        {"features": {"tensor": "x:0", "kind": "tensor"}}, _classes("Identity:0", "softmax"), {"max_drop": {"*": 0.01}},
    )  # fmt: skip


def mnist(folder: Path) -> dict[str, Any]:
    """The ONNX Runtime MNIST model: 200 digits calibrate, 2000 others judge."""
    with (
        gzip.open(_shared("data/mnist/t10k-images-idx3-ubyte.gz")) as images,
        gzip.open(_shared("data/mnist/t10k-labels-idx1-ubyte.gz")) as labels,
    ):
        pixels = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        right = np.frombuffer(labels.read(), np.uint8, offset=8)
    np.savez(folder / "digits.npz", image=pixels, y=right)
    data = {"file": str(folder / "digits.npz"), "truth": "y"}
    picture = _picture("Input3", 28, [0.0], [1.0], color="gray")
    return _recipe(
        _shared("onnx/mnist-8.onnx"), {**data, "range": ":200"}, {**data, "range": "200:2200", "max_samples": 2000},
        picture, _classes("Plus214_Output_0", "softmax"), {"max_drop": {"*": 0.01}},
    )  # fmt: skip


def digits(folder: Path) -> dict[str, Any]:
    """The demo's digits model."""
    model = RECIPES.parent / "model"
    recipe = recipe_of(1)
    sizes = {"tensor": recipe.inputs["image"].tensor}
    return _recipe(
        model / "digits.onnx", {"folder": str(model / "calibration")}, {"folder": str(model / "evaluation")},
        {"image": {**_picture(sizes["tensor"], 32, [0.0], [255.0], color="gray")["image"]}},
        _classes("logits", "softmax", labels=str(model / "labels.txt")), {"max_drop": {"*": 0.01}},
    )  # fmt: skip


def mobilenet(folder: Path) -> dict[str, Any]:
    """MobileNetV2 as float ONNX, from Coral's quantised file: photos calibrate, other photos judge by agreement."""
    content = _shared("tflite/mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    onnx.save(float_mobilenet(content), str(folder / "mobilenet_v2.onnx"))
    photos = str(_shared("data/calib"))
    halves = {"folder": photos, "range": "::2"}, {"folder": photos, "range": "1::2"}
    picture = _picture("input", 224, [127.5], [127.5], color="rgb")
    limits = {"min_agreement": {"*": 0.8}}
    return _recipe(folder / "mobilenet_v2.onnx", *halves, picture, _classes("scores", "none"), limits)


CASES: Final = (
    Case("Keyword spotting (MLPerf Tiny, DS-CNN)", 0.01, keywords),
    Case("mnist-8", 0.01, mnist),
    Case("The demo's digits", 0.01, digits),
    Case("MobileNetV2, 224×224", 0.2, mobilenet),
)


def _recipe(
    model: Path, calibration: dict[str, Any], evaluation: dict[str, Any], inputs: Any, outputs: Any, limits: Any
) -> dict[str, Any]:
    return {
        "model": str(model), "name": "bench", "version": "1", "task": "image_classification", "targets": ["cpu"],
        "calibration": calibration, "evaluation": evaluation, "inputs": inputs, "outputs": outputs, "limits": limits,
    }  # fmt: skip


def _picture(tensor: str, side: int, mean: list[float], std: list[float], *, color: str) -> Any:
    resize = {"mode": "stretch", "size": [side, side], "filter": "bilinear", "antialias": True}
    return {"image": {"tensor": tensor, "kind": "image", "color": color, "exif": "apply", "resize": resize,
                      "layout": "NCHW", "normalize": {"scale": 1.0, "mean": mean, "std": std}}}  # fmt: skip


def _classes(tensor: str, activation: str, **rest: Any) -> Any:
    return {"classes": {"tensor": tensor, "kind": "classes", "activation": activation, **rest}}


def _shared(name: str) -> Path:
    path = MODELS / name
    if not path.exists():
        raise Unavailable(f"needs {name} in ../shared/models, which is not part of the repository")
    return path
