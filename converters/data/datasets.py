"""Calibration and evaluation sets: which samples, always in the same order; nothing is kept decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from converters.data.samples.arrays import Stored, open_arrays
from converters.data.samples.coco import list_coco
from converters.data.samples.files import Files, list_folder
from converters.data.samples.sample import Sample, Source, Wanted
from converters.data.samples.table import open_table
from converters.data.truth import truth_text
from converters.errors import BadDataset
from converters.planning.recipe import CalibrationRecipe, EvaluationRecipe
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.preprocessing.preprocess import Inputs, Preprocessor

_OVERLAP_SHARE = 0.5
"""Of the calibration set; more in common with the evaluation set is a mistake, not some stray copies."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One sample under way to the model."""

    decoded: Tensors
    """By public input."""
    canonical: Tensors
    """What the source model is fed, by canonical tensor."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples of one folder or file, in a fixed order."""

    root: Path
    """The folder or file."""
    samples: tuple[Sample, ...]
    source: Source
    allows_nan: bool = False
    """Whether missing numbers are the model's own business."""
    listed: int = 0
    """How many samples there were before `max_samples` took a part of them."""

    @property
    def is_labelled(self) -> bool:
        """Whether every sample has a truth."""
        return all(sample.truth is not None for sample in self.samples)

    def digest(self) -> Digest:
        """A digest over names, truths and contents, in order. Raises: BadDataset."""
        hasher = hashlib.sha256()
        for sample in self.samples:
            line = f"{sample.name_in(self.root)}\0{truth_text(sample.truth)}\0{self.digest_of(sample)}\n"
            hasher.update(line.encode())
        return Digest("sha256:" + hasher.hexdigest())

    def digest_of(self, sample: Sample) -> Digest:
        """Of one sample's inputs: equal for equal samples. Raises: BadDataset."""
        with self._naming(sample):
            return self.source.digest(sample)

    def decoded(self, preprocessor: Preprocessor) -> Iterator[dict[str, Array]]:
        """Each sample after its `decode` step, by public input name.

        Raises:
            BadDataset: a sample is damaged or does not have the shape that the model takes.
        """
        names = [spec.name for spec in preprocessor.inputs]
        for sample in self.samples:
            with self._naming(sample):
                read = _as_declared(self.source.read(sample, names), preprocessor)
                decoded = preprocessor.decode(read)
            yield decoded

    def prepared(self, preprocessor: Preprocessor) -> Iterator[Prepared]:
        """Each sample after all steps; asked first, so that a sample no step can work on, or with NaN, is named.

        Raises:
            BadDataset: as `decoded`, or the model would be fed what is not a number.
        """
        for sample, decoded in zip(self.samples, self.decoded(preprocessor), strict=True):
            with self._naming(sample):
                canonical = preprocessor.after_decode(decoded)
                if not self.allows_nan:
                    _refuse_nan(canonical)
            yield Prepared(decoded, canonical)

    @contextmanager
    def _naming(self, sample: Sample) -> Iterator[None]:
        try:
            yield
        except (InferenceError, BadDataset, OSError, ValueError) as error:
            because, remedy = (error.because, error.remedy) if isinstance(error, EdgeError) else (str(error), "")
            advice = f"{remedy or 'correct it'}, or remove it from {self.root}"
            raise BadDataset(f"use {sample.name_in(self.root)}", because, advice) from error


def open_dataset(place: CalibrationRecipe | EvaluationRecipe, base: Path, wanted: Wanted) -> Dataset:
    """List the samples that a recipe names.

    Args:
        place: folder or file, and which part of it.
        base: folder that its paths are relative to.
        wanted: what the model takes, and which labels.

    Raises:
        BadDataset: missing, empty, or labelled with names that the label list does not have.
    """
    root = base / (place.folder or place.file or "")
    if place.folder is not None and not os.path.isdir(root):  # noqa: PTH112 (False, too, for what no path can be)
        raise BadDataset(f"read {root}", "there is no such folder", "check the path")
    if place.file is not None and not os.path.isfile(root):  # noqa: PTH113 (as above)
        raise BadDataset(f"read {root}", "there is no such file", "check the path")
    try:
        source, samples = _listed(place, base, root, wanted)
    except (OSError, ValueError) as error:
        raise BadDataset(f"read {root}", shown(str(error), 200), "check that it can be read") from error
    chosen = _chosen(samples, place)
    if not chosen:
        because = f"range {place.range!r} holds none of its {len(samples)} samples"
        raise BadDataset(f"read {root}", because, "correct the range")
    return Dataset(
        root,
        tuple(_thinned(chosen, place.max_samples)),
        source,
        allows_nan=place.missing == "nan" or wanted.keeps_gaps,
        listed=len(chosen),
    )


def without_shared(calibration: Dataset, evaluation: Dataset) -> tuple[Dataset, str | None]:
    """The calibration set without samples that the evaluation set holds too, and a note when there were any.

    A model must not be judged by what set its ranges, whatever the files are called: contents are compared.

    Raises:
        BadDataset: most of it is in both.
    """
    judged = {evaluation.digest_of(sample): sample for sample in evaluation.samples}
    shared = [sample for sample in calibration.samples if calibration.digest_of(sample) in judged]
    if not shared:
        return calibration, None
    twin = judged[calibration.digest_of(shared[0])]
    example = f"{shared[0].name_in(calibration.root)} is {twin.name_in(evaluation.root)} of the evaluation set"
    if len(shared) > _OVERLAP_SHARE * len(calibration.samples):
        raise BadDataset(
            f"calibrate on {calibration.root}",
            f"{len(shared)} of its {len(calibration.samples)} samples are in the evaluation set too ({example})",
            "keep examples for judging apart; range = ':200' and range = '200:' split one set",
        )
    left_out = set(shared)
    kept = tuple(sample for sample in calibration.samples if sample not in left_out)
    note = f"left out of the calibration set: {len(shared)} of {len(calibration.samples)} ({example})"
    return replace(calibration, samples=kept), note


def read_labels(path: Path) -> tuple[str, ...]:
    """One label per line; empty lines at the end do not count. Raises: BadDataset."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise BadDataset(f"read labels {path}", error.strerror or str(error), "check the path") from error
    except ValueError as error:
        raise BadDataset(f"read labels {path}", str(error)[:120], "write one label per line, UTF-8") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise BadDataset(f"read labels {path}", "it is empty", "write one label per line")
    return tuple(line.strip() for line in lines)


def _listed(
    place: CalibrationRecipe | EvaluationRecipe, base: Path, root: Path, wanted: Wanted
) -> tuple[Source, list[Sample]]:
    if root.is_dir():
        if isinstance(place, EvaluationRecipe) and place.annotations is not None:
            return Files(), list_coco(base / place.annotations, root, wanted.labels)
        masks = base / place.masks if isinstance(place, EvaluationRecipe) and place.masks is not None else None
        return Files(), list_folder(root, wanted, masks)
    truth = [place.truth] if isinstance(place.truth, str) else place.truth or []
    if root.suffix.lower() == ".csv":
        allows_missing = place.missing == "nan" or wanted.fills_gaps
        return open_table(root, wanted, truth=truth, has_header=place.header, allows_missing=allows_missing)
    if root.suffix.lower() in {".npz", ".npy"}:
        stored = Stored(place.stored.scale, place.stored.zero_point) if place.stored else None
        return open_arrays(root, wanted, truth=truth[0] if truth else None, stored=stored)
    raise BadDataset(f"read {root}", "it is no .npz, .npy or .csv file", "name a folder, or one of these files")


def _chosen(samples: list[Sample], place: CalibrationRecipe | EvaluationRecipe) -> list[Sample]:
    if place.range is None:
        return samples
    ordered = _in_turn(samples)
    return [ordered[position] for position in place.positions(len(ordered))]


def _in_turn(samples: list[Sample]) -> list[Sample]:
    """Samples of class sub-folders one class after the other, so that a part of them holds every class."""
    by_folder: dict[Path, list[Sample]] = {}
    for sample in samples:
        by_folder.setdefault(sample.path.parent, []).append(sample)
    return [one for row in zip_longest(*by_folder.values()) for one in row if one is not None]


def _thinned(samples: list[Sample], limit: int) -> list[Sample]:
    """Evenly, in order, so that every class stays."""
    if len(samples) <= limit:
        return samples
    return [samples[position * len(samples) // limit] for position in range(limit)]


def _as_declared(read: Inputs, preprocessor: Preprocessor) -> dict[str, bytes | Array]:
    """Arrays in the dtype that the model takes, where people's files usually hold a wider or a narrower one."""
    declared = {spec.name: np.dtype(spec.dtype) for spec in preprocessor.inputs}
    return {name: given if isinstance(given, bytes) or name not in declared else _cast(given, declared[name])
            for name, given in read.items()}  # fmt: skip


def _cast(array: Array, wanted: np.dtype[np.generic]) -> Array:
    # float64 is what numpy saves unless told otherwise; the model would round it all the same.
    is_wide_float = array.dtype == np.float64 and wanted == np.float32
    return array.astype(wanted) if is_wide_float or np.can_cast(array.dtype, wanted, "safe") else array


def _refuse_nan(canonical: Tensors) -> None:
    for name, array in canonical.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            what = "NaN" if np.isnan(array).any() else "infinity"
            raise BadDataset("use the sample", f"input {name} holds {what}", "correct it")
