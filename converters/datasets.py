"""Calibration and evaluation folders: which files, which labels, always in the same order; nothing is kept decoded."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from converters.errors import BadDataset
from edge_runtime.contract.digest import Digest, digest_of_file
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.preprocess import Inputs, Preprocessor

LABELS_FILE: Final = "labels.csv"
_IMAGE_ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
_TENSOR_ENDINGS: Final = frozenset({".npy", ".npz"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One file, with its class index where it is known."""

    path: Path
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """One sample under way to the model."""

    decoded: Tensors
    """By public input."""
    canonical: Tensors
    """What the source model is fed, by canonical tensor."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The files of one folder, in a fixed order."""

    folder: Path
    samples: tuple[Sample, ...]
    kind: Literal["image", "tensor"]

    @property
    def is_labelled(self) -> bool:
        """Whether every sample has a label."""
        return all(sample.label is not None for sample in self.samples)

    def digest(self) -> Digest:
        """A digest over names, labels and contents, in order."""
        hasher = hashlib.sha256()
        for sample in self.samples:
            content, _ = digest_of_file(sample.path)
            hasher.update(f"{sample.path.relative_to(self.folder)}\0{sample.label}\0{content}\n".encode())
        return Digest("sha256:" + hasher.hexdigest())

    def decoded(self, preprocessor: Preprocessor) -> Iterator[dict[str, Array]]:
        """Each sample after its `decode` step, by public input name.

        Raises:
            BadDataset: a file is damaged or does not have the shape that the model takes.
        """
        for sample in self.samples:
            with self._naming(sample):
                decoded = preprocessor.decode(read_sample(sample.path, self.kind, preprocessor))
            yield decoded

    def prepared(self, preprocessor: Preprocessor) -> Iterator[Prepared]:
        """Each sample after all steps; asked first, so that a file no step can work on is named. Raises: as decoded."""
        for sample, decoded in zip(self.samples, self.decoded(preprocessor), strict=True):
            with self._naming(sample):
                canonical = preprocessor.after_decode(decoded)
            yield Prepared(decoded, canonical)

    @contextmanager
    def _naming(self, sample: Sample) -> Iterator[None]:
        try:
            yield
        except (InferenceError, OSError, ValueError) as error:
            because, remedy = (error.because, error.remedy) if isinstance(error, EdgeError) else (str(error), "")
            advice = f"{remedy or 'correct it'}, or remove it from {self.folder}"
            raise BadDataset(f"use {sample.path.relative_to(self.folder)}", because, advice) from error


def read_sample(path: Path, kind: Literal["image", "tensor"], preprocessor: Preprocessor) -> Inputs:
    """One file as public inputs: encoded bytes, a `.npy` array, or a `.npz` with one array per input."""
    names = [spec.name for spec in preprocessor.inputs]
    if kind == "image":
        return {names[0]: path.read_bytes()}
    # allow_pickle stays off: a data folder must not run code.
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive}
    array: Array = np.load(path, allow_pickle=False)
    return {names[0]: array}


def open_dataset(
    folder: Path, *, kind: Literal["image", "tensor"], labels: Sequence[str] | None, max_samples: int
) -> Dataset:
    """List a folder: class sub-folders, `labels.csv` (`file,label`), or plain files without labels.

    Args:
        folder: where the files are.
        kind: images, or `.npy`/`.npz` arrays.
        labels: label texts by class index; None when the model has none.
        max_samples: larger sets are thinned evenly, in order, so that every class stays.

    Raises:
        BadDataset: missing, empty, or labelled with names that the label list does not have.
    """
    if not folder.is_dir():
        raise BadDataset(f"read {folder}", "there is no such folder", "check the path")
    endings = _IMAGE_ENDINGS if kind == "image" else _TENSOR_ENDINGS
    if (folder / LABELS_FILE).is_file():
        samples = _from_table(folder, labels)
    elif subfolders := sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        samples = [
            Sample(path, _class_index(subfolder.name, labels, f"folder {subfolder.name}"))
            for subfolder in subfolders
            for path in _files(subfolder, endings)
        ]
    else:
        samples = [Sample(path) for path in _files(folder, endings)]
    if not samples:
        wanted = " or ".join(sorted(endings))
        raise BadDataset(f"read {folder}", f"it holds no {wanted} file", "name the folder of examples")
    return Dataset(folder, tuple(_thinned(samples, max_samples)), kind)


def read_labels(path: Path) -> tuple[str, ...]:
    """One label per line; empty lines at the end do not count. Raises: BadDataset."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataset(f"read labels {path}", str(error)[:120], "write one label per line, UTF-8") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise BadDataset(f"read labels {path}", "it is empty", "write one label per line")
    return tuple(line.strip() for line in lines)


def _files(folder: Path, endings: frozenset[str]) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.suffix.lower() in endings)


def _from_table(folder: Path, labels: Sequence[str] | None) -> list[Sample]:
    table = folder / LABELS_FILE
    with table.open(newline="", encoding="utf-8") as source:
        rows = csv.DictReader(source)
        if not {"file", "label"} <= set(rows.fieldnames or ()):
            raise BadDataset(f"read {table}", "it has no columns file,label", "write them in the first line")
        samples: list[Sample] = []
        for row in rows:
            path = (folder / row["file"]).resolve()
            if not path.is_relative_to(folder.resolve()) or not path.is_file():
                because = f"there is no file {shown(row['file'])} beside it"
                raise BadDataset(f"read {table}", because, "correct that row")
            label = _class_index(row["label"], labels, f"{LABELS_FILE}, file {row['file']}")
            samples.append(Sample(folder / row["file"], label))
    return sorted(samples, key=lambda sample: sample.path)


def _class_index(text: str, labels: Sequence[str] | None, where: str) -> int:
    """A label's index: by text first, because a label file of digits may be permuted, then by number."""
    if labels is not None and text in labels:
        return labels.index(text)
    count = len(labels) if labels is not None else None
    if text.isascii() and text.isdigit() and (count is None or int(text) < count):
        return int(text)
    raise BadDataset(
        "match the labels",
        f"{where} says {shown(text)}, which is none of the {count if count is not None else 'numeric'} labels",
        "use the label list's own words, or class numbers starting at 0",
    )


def _thinned(samples: list[Sample], limit: int) -> list[Sample]:
    if len(samples) <= limit:
        return samples
    return [samples[position * len(samples) // limit] for position in range(limit)]
