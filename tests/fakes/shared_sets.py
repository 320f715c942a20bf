"""Real examples for each model that lies beside the repository: some to calibrate, others to judge."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Final

import numpy as np

_KEYWORDS: Final = {
    "file": "data/kws01_mfcc_int8.npz", "truth": "y", "stored": {"scale": 0.5847029089927673, "zero_point": 83},
}  # fmt: skip
_FRAMES: Final = 10


def sets_of(name: str, told: Any, models: Path, work: Path, count: int) -> dict[str, Any]:
    """What a recipe says of its examples: calibration, evaluation, and an input that takes them as they are stored.

    Args:
        name: the model's path below `models`.
        told: inputs and outputs of its recipe.
        models: folder that the recipe's paths are relative to.
        work: for sets that have to be put together first.
        count: how many judge.
    """
    entry = next(iter(told["inputs"].values()))
    if "mnist" in name:
        return _split({"file": str(_digits(models, work)), "truth": "y"}, count)
    if entry["kind"] == "image":
        return _split({"folder": "data/calib"}, count)
    if entry["kind"] == "audio":
        # The published features, because few sounds are there; the front end is another test's matter.
        return {"inputs": {"mfcc": {"tensor": entry["tensor"], "kind": "tensor"}}, **_split(_KEYWORDS, count)}
    if entry["kind"] == "table":
        table = {"file": "data/hand_keypoint.csv", "header": False, "truth": "0"}
        return _split(table, count, spread=20)
    points = {"x": np.linspace(0, 6.28, 100, dtype=np.float32)[:, None]}
    made = _machine(models) if "frames" in told["inputs"] else points
    np.savez(work / "set.npz", **made)
    return _split({"file": str(work / "set.npz")}, count)


def _split(place: dict[str, Any], count: int, *, spread: int = 1) -> dict[str, Any]:
    """Every other example judges, the rest calibrates; `spread` takes fewer, from all over the set."""
    judged, rest = {"range": f"::{2 * spread}"}, {"range": f"{spread}::{2 * spread}"}
    unlabelled = {key: value for key, value in place.items() if key != "truth" or "folder" not in place}
    return {
        "evaluation": {**place, **judged, "max_samples": count},
        "calibration": {**unlabelled, **rest, "max_samples": 16},
    }


def _machine(models: Path) -> dict[str, Any]:
    raw = np.fromfile(models / "data/ad01/normal_id_01_00000000_hist_librosa.bin", np.float32)
    return {"frames": raw.reshape(-1, _FRAMES, 128)}


def _digits(models: Path, work: Path) -> Path:
    """A hundred of MNIST's test digits."""
    with (
        gzip.open(models / "data/mnist/t10k-images-idx3-ubyte.gz") as images,
        gzip.open(models / "data/mnist/t10k-labels-idx1-ubyte.gz") as labels,
    ):
        pixels = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)[:100]
        right = np.frombuffer(labels.read(), np.uint8, offset=8)[:100]
    path = work / "digits.npz"
    np.savez(path, image=pixels, y=right)
    return path
