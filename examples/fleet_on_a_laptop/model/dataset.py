"""Turns scikit-learn's handwritten digits into the folders of PNG pictures that the demo uses.

Guards that no picture is in two sets: what trains, calibrates, judges and plays live are four disjoint parts.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE_PX = 32
SOURCE_MAX = 16.0
HELD_OUT = 420
LIVE = 60
CALIBRATION = 100
LENS_CAP_PICTURES = 48
LENS_CAP_BRIGHTEST = 8

Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DigitSet:
    """Digits of one purpose: source indices [n], pictures uint8 [n, 32, 32] grey, labels int64 [n] in 0..9."""

    indices: Labels
    pictures: Pictures
    labels: Labels


@dataclass(frozen=True, slots=True)
class Digits:
    """The 1797 digits in four disjoint parts, each with the classes in the same proportions."""

    training: DigitSet
    calibration: DigitSet
    evaluation: DigitSet
    live: DigitSet


def load(seed: int) -> Digits:
    """Return all digits, split the same way for the same seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    pictures = np.stack([enlarge(picture) for picture in source.images])
    labels = np.asarray(source.target, dtype=np.int64)

    def parted(indices: Labels, count: int) -> tuple[Labels, Labels]:
        rest, part = train_test_split(indices, test_size=count, random_state=seed, stratify=labels[indices])
        return np.sort(rest), np.sort(part)

    def chosen(indices: Labels) -> DigitSet:
        return DigitSet(indices, pictures[indices], labels[indices])

    seen, held_out = parted(np.arange(len(labels)), HELD_OUT)
    training, calibration = parted(seen, CALIBRATION)
    evaluation, live = parted(held_out, LIVE)
    return Digits(chosen(training), chosen(calibration), chosen(evaluation), chosen(live))


def enlarge(picture: npt.NDArray[np.float64]) -> Pictures:
    """Return a digit of 8x8 values in 0..16 as 32x32 grey uint8: scaled to 0..255, then Pillow's bilinear resize."""
    grey = np.rint(picture * (255.0 / SOURCE_MAX)).astype(np.uint8)
    resized = Image.fromarray(grey).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


def lens_cap_pictures(seed: int) -> Pictures:
    """Return uint8 [48, 32, 32] of sensor noise behind a lens cap: the right shape, and nothing that calibrates."""
    noise = np.random.default_rng(seed).integers(0, LENS_CAP_BRIGHTEST + 1, (LENS_CAP_PICTURES, SIDE_PX, SIDE_PX))
    return noise.astype(np.uint8)


def write_folders(digits: Digits, folder: Path, seed: int) -> None:
    """Write calibration/, evaluation/, live/ and wrong_calibration/ under the folder."""
    _write_digits(digits.calibration, folder / "calibration", labelled=False)
    _write_digits(digits.evaluation, folder / "evaluation", labelled=True)
    _write_digits(digits.live, folder / "live", labelled=True)
    names = [f"frame-{number:04d}.png" for number in range(LENS_CAP_PICTURES)]
    _write_pictures(lens_cap_pictures(seed), names, folder / "wrong_calibration")


def _write_digits(part: DigitSet, folder: Path, *, labelled: bool) -> None:
    names = [f"digit-{index:04d}.png" for index in part.indices]
    _write_pictures(part.pictures, names, folder)
    if not labelled:
        return
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("file", "label"))
        rows.writerows(zip(names, part.labels.tolist(), strict=True))


def _write_pictures(pictures: Pictures, names: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name in zip(pictures, names, strict=True):
        Image.fromarray(picture).save(folder / name, optimize=True)
