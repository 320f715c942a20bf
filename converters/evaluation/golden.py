"""The golden set of a release: which samples, how they are stored, and what source model and people say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from converters.data.datasets import Dataset, Prepared
from converters.data.samples.sample import Sample
from converters.data.truth import TrueBoxes
from converters.errors import BadDataset
from converters.evaluation.golden_truth import Kept, truth_of
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.golden import Truth
from edge_runtime.contract.ids import parse_layer_name
from edge_runtime.contract.layout import LayoutFolder, read_checked
from edge_runtime.contract.release import GOLDEN_MAX_BYTES, GoldenSpec
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.checks.golden import (
    GoldenSample,
    GoldenSet,
    narrowed,
    pack_golden,
    run_golden,
    unpack_golden,
)
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Preprocessor

_USABLE_BYTES: Final = GOLDEN_MAX_BYTES * 9 // 10
"""Of the archive, what inputs and references may take; headers and labels need the rest."""

_STEPS_MIN: Final = 64
"""Steps of a stream that a question has at least, where the stream is that long."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Inputs after `decode` and labels; the same questions may be put to several releases of a model."""

    inputs: tuple[Tensors, ...]
    truth: Truth | None


def choose_samples(dataset: Dataset, count: int) -> tuple[Sample, ...]:
    """The same samples every time: one class after the other, evenly spaced inside each, until there are enough.

    Where the truth is no class, pictures with objects come by the class of the largest, numbers by their size, and
    unlabelled samples evenly spaced.
    """
    by_class: dict[int, list[Sample]] = {}
    for sample in sorted(dataset.samples, key=_order_of):
        by_class.setdefault(_class_of(sample), []).append(sample)
    groups = [by_class[label] for label in sorted(by_class)]
    quotas = [0] * len(groups)
    wanted = min(count, len(dataset.samples))
    while sum(quotas) < wanted:
        for position, samples in enumerate(groups):
            quotas[position] += sum(quotas) < wanted and quotas[position] < len(samples)
    chosen = [_spread(samples, quota) for samples, quota in zip(groups, quotas, strict=True)]
    return tuple(one for row in zip_longest(*chosen) for one in row if one is not None)


def ask_from(
    dataset: Dataset, preprocessor: Preprocessor, *, count: int, output: str, reference_bytes: int
) -> Questions:
    """Questions from an evaluation set, stored decoded, without their batch axis.

    Args:
        dataset: samples to choose from.
        preprocessor: of the source model.
        count: how many are wanted; fewer are taken when they would not fit with their answers.
        output: public output that the labels are about.
        reference_bytes: what the source model's answer to one sample takes.

    Raises:
        BadDataset: a chosen file cannot be used.
    """
    first = next(replace(dataset, samples=dataset.samples[:1]).prepared(preprocessor))
    given = sum(array.nbytes for array in first.decoded.values())
    fitting = max(1, _USABLE_BYTES // _least_bytes(first, preprocessor, reference_bytes))
    chosen = replace(dataset, samples=choose_samples(dataset, min(count, fitting)))
    budget = _USABLE_BYTES // max(len(chosen.samples), 1)
    # The answer to half of a stream is half as long; that to a smaller picture is not.
    budget = budget - reference_bytes if preprocessor.rules is None else budget * given // (given + reference_bytes)
    inputs: list[Tensors] = []
    kept: list[Kept] = []
    for sample, prepared in zip(chosen.samples, chosen.prepared(preprocessor), strict=True):
        stored = _fitted(prepared.decoded, preprocessor, budget)
        inputs.append(stored)
        kept.append(_kept(sample, prepared.decoded, stored))
    return Questions(tuple(inputs), truth_of(kept, output))


def reference_bytes(dataset: Dataset, source: Predictor) -> int:
    """What the source model's answer to one sample takes in a golden set. Raises: BadDataset, InferenceError."""
    # By its own steps: a quantised source takes integers.
    first = next(replace(dataset, samples=dataset.samples[:1]).prepared(source.preprocess))
    answer = source.run_decoded(first.decoded)
    return sum(narrowed(array).nbytes for array in answer.values())


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
    return Questions(
        tuple(sample.inputs for sample in golden.samples), golden.truth if golden.truth.lengths() else None
    )


def answered(questions: Questions, source: Predictor) -> GoldenSet:
    """The questions with the source model's answers. Raises: InferenceError when it cannot answer."""
    samples = tuple(GoldenSample(inputs, source.run_decoded(inputs)) for inputs in questions.inputs)
    return GoldenSet(samples, questions.truth or Truth())


def packed(golden: GoldenSet) -> bytes:
    """`golden.tar`. Raises: ContractError over 4 MiB."""
    truth = golden.truth if golden.truth.lengths() else None
    inputs, floats = [one.inputs for one in golden.samples], [one.float_outputs for one in golden.samples]
    return pack_golden(inputs, floats, truth)


def truth_results(source: Predictor, golden: GoldenSet, spec: GoldenSpec) -> list[CheckResult]:
    """What the labels say about the source model itself; empty when there are none."""
    checks = [check for check in spec.checks if check.against == "truth"]
    if not checks or not golden.truth.lengths():
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


def _order_of(sample: Sample) -> float:
    return sample.truth[0] if isinstance(sample.truth, tuple) and sample.truth else 0.0


def _class_of(sample: Sample) -> int:
    """What a sample stands for; −1 where that is nothing in particular."""
    match sample.truth:
        case int():
            return sample.truth
        case TrueBoxes() if sample.truth.classes:
            corners = sample.truth.corners
            areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
            return sample.truth.classes[int(areas.argmax())]
        case _:
            return -1


def _least_bytes(first: Prepared, preprocessor: Preprocessor, reference_bytes: int) -> int:
    """What a question and its answer take at least."""
    given = sum(array.nbytes for array in first.decoded.values())
    if preprocessor.rules is not None:
        # A stream may be cut anywhere.
        steps = max(1, len(preprocessor.rows(first.canonical)))
        return max(1, (given + reference_bytes) * min(steps, _STEPS_MIN) // steps)
    # A picture smaller than the model's input would be another question: what the model sees has as many numbers as
    # the smallest picture that hides nothing from it, a byte each.
    return reference_bytes + min(given, sum(array.size for array in first.canonical.values()))


def _kept(sample: Sample, decoded: Tensors, stored: Tensors) -> Kept:
    pictures = [(decoded[name], stored[name]) for name in stored if _is_picture(stored[name])]
    if len(pictures) != 1:
        return Kept(sample)
    before, after = pictures[0]
    height, width = before.shape[-3:-1]
    size = (after.shape[-3], after.shape[-2])
    return Kept(sample, (size[0] / height, size[1] / width), size)


def _is_picture(array: Array) -> bool:
    return array.ndim >= 3 and array.dtype == np.uint8 and array.shape[-1] in {1, 3}


def _fitted(decoded: Tensors, preprocessor: Preprocessor, budget: int) -> Tensors:
    """Images scaled down until they fit, unless the model takes no other size; streams cut short."""
    single = {name: array[0] if array.shape[0] == 1 else array for name, array in decoded.items()}
    if preprocessor.rules is not None:
        return {name: _beginning(array, budget) for name, array in single.items()}
    scaled = {name: _scaled(array, budget) for name, array in single.items()}
    if any(scaled[name] is not single[name] for name in single):
        try:
            preprocessor.after_decode(scaled)
        except InferenceError:
            return single
    return scaled


def _beginning(array: Array, budget: int) -> Array:
    """As much of a stream as fits; its answers are those of the whole stream's beginning."""
    steps = max(1, budget // max(array[:1].nbytes, 1))
    return array[:steps]


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
