"""The golden set of a release: which samples, how they are stored, and what source model and people say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from converters.datasets import Dataset
from converters.errors import BadDataset
from converters.samples.sample import Sample
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.golden import GOLDEN_MAX_BYTES, GoldenSpec, Truth
from edge_runtime.contract.ids import parse_layer_name
from edge_runtime.contract.layout import LayoutFolder, read_checked
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.golden import GoldenSample, GoldenSet, pack_golden, run_golden, unpack_golden
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocess import Preprocessor

_ARCHIVE_SHARE: Final = 0.75
"""Of the 4 MiB, the part that inputs may take; references and headers need the rest."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Inputs after `decode` and labels; the same questions may be put to several releases of a model."""

    inputs: tuple[Tensors, ...]
    truth: Truth | None


def choose_samples(dataset: Dataset, count: int) -> tuple[Sample, ...]:
    """The same samples every time: one class after the other, evenly spaced inside each, until there are enough."""
    by_label: dict[int | None, list[Sample]] = {}
    for sample in dataset.samples:
        by_label.setdefault(sample.label, []).append(sample)
    wanted = min(count, len(dataset.samples))
    chosen: list[Sample] = []
    share = -(-wanted // len(by_label))
    spread = {label: _spread(samples, share) for label, samples in by_label.items()}
    for position in range(share):
        for label in sorted(spread, key=lambda label: -1 if label is None else label):
            if position < len(spread[label]) and len(chosen) < wanted:
                chosen.append(spread[label][position])
    return tuple(chosen)


def ask_from(dataset: Dataset, preprocessor: Preprocessor, *, count: int, output: str, max_bytes: int) -> Questions:
    """Questions from an evaluation set, stored decoded, without their batch axis.

    Raises:
        BadDataset: a chosen file cannot be used.
    """
    chosen = replace(dataset, samples=choose_samples(dataset, count))
    budget = int(max_bytes * _ARCHIVE_SHARE) // max(len(chosen.samples), 1)
    inputs = tuple(_fitted(sample.decoded, preprocessor, budget) for sample in chosen.prepared(preprocessor))
    labels = [sample.label for sample in chosen.samples]
    return Questions(inputs, Truth(labels={output: labels}) if chosen.is_labelled else None)


def ask_as(release: Path) -> Questions:
    """The questions of an earlier release: its inputs and labels, not its answers.

    Raises:
        BadDataset: it is no release, or has no golden set.
    """
    try:
        golden = _golden_of(LayoutFolder(release))
    except EdgeError as error:
        raise BadDataset(f"take the golden set of {release}", error.because, error.remedy) from error
    if golden is None:
        raise BadDataset(f"take the golden set of {release}", "that release has none", "name another release")
    return Questions(tuple(sample.inputs for sample in golden.samples), golden.truth if golden.truth.labels else None)


def answered(questions: Questions, source: Predictor) -> GoldenSet:
    """The questions with the source model's answers. Raises: InferenceError when it cannot answer."""
    samples = tuple(GoldenSample(inputs, source.run_decoded(inputs)) for inputs in questions.inputs)
    return GoldenSet(samples, questions.truth or Truth())


def packed(golden: GoldenSet) -> bytes:
    """`golden.tar`. Raises: ContractError over 4 MiB."""
    truth = golden.truth if golden.truth.labels else None
    inputs, floats = [one.inputs for one in golden.samples], [one.float_outputs for one in golden.samples]
    return pack_golden(inputs, floats, truth)


def truth_results(source: Predictor, golden: GoldenSet, spec: GoldenSpec) -> list[CheckResult]:
    """What the labels say about the source model itself; empty when there are none."""
    checks = [check for check in spec.checks if check.against == "truth"]
    if not checks or not golden.truth.labels:
        return []
    return run_golden(source, golden, msgspec.structs.replace(spec, checks=checks))


def _golden_of(folder: LayoutFolder) -> GoldenSet | None:
    opened = folder.open()
    spec = opened.manifest.golden
    if spec is None:
        return None
    descriptor = opened.layers.descriptor(parse_layer_name(spec.layer))
    return unpack_golden(read_checked(folder, descriptor, max_bytes=GOLDEN_MAX_BYTES))


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    count = min(count, len(samples))
    return [samples[position * len(samples) // count] for position in range(count)]


def _fitted(decoded: Tensors, preprocessor: Preprocessor, budget: int) -> Tensors:
    """Images scaled down until they fit, unless the model resizes nothing and takes no other size."""
    single = {name: array[0] if array.shape[0] == 1 else array for name, array in decoded.items()}
    scaled = {name: _scaled(array, budget) for name, array in single.items()}
    if any(scaled[name] is not single[name] for name in single):
        try:
            preprocessor.after_decode(scaled)
        except InferenceError:
            return single
    return scaled


def _scaled(array: Array, budget: int) -> Array:
    """An image scaled down until it fits; everything else as it is."""
    if array.nbytes <= budget or array.ndim != 3 or array.dtype != np.uint8:
        return array
    from PIL import Image

    height, width, channels = array.shape
    factor = (budget / array.nbytes) ** 0.5
    size = (max(1, int(width * factor)), max(1, int(height * factor)))
    picture = Image.fromarray(array[..., 0] if channels == 1 else array)
    scaled: Array = np.asarray(picture.resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)
    return scaled[..., None] if channels == 1 else scaled
