"""The two sets of a recipe: opened, kept apart, and large enough for what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from converters.data.datasets import Dataset, open_dataset, without_shared
from converters.data.samples.sample import TruthKind, Wanted
from converters.errors import BadDataset, BadRecipe
from converters.planning.recipe import Recipe
from converters.planning.recipe_inputs import columns_of
from converters.planning.recipe_outputs import OutputRecipe
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.table_steps import Columns

CALIBRATION_MIN: Final = 8
"""Fewer examples than this give the ranges of those examples, not of what the model will see."""
CALIBRATION_USUAL: Final = 32
EVALUATION_USUAL: Final = 100
"""Below it one sample is more than a per cent, the loss that people usually allow."""

_TRUTHS: Final[Mapping[str, TruthKind]] = {
    "classes": "class",
    "score": "class",
    "anomaly": "class",
    "values": "values",
    "detections": "boxes",
    "segmentation": "mask",
}
"""What a person can say about an output, by its kind."""
_LABELLED_BY: Final = {"detections": "name annotations (COCO's JSON)", "segmentation": "name masks"}


@dataclass(frozen=True, slots=True)
class Sets:
    """What a model is calibrated and judged on."""

    evaluation: Dataset
    calibration: Dataset | None
    notes: tuple[str, ...]


def open_sets(recipe: Recipe, base: Path, labels: tuple[str, ...] | None) -> Sets:
    """Open both sets of a recipe.

    Args:
        recipe: which data, and what the model takes.
        base: folder that its paths are relative to.
        labels: label texts by class index; None when the model has none.

    Raises:
        BadDataset: a set cannot be used, is too small, or most of it is in the other one too.
        BadRecipe: the recipe asks for a judgement that the data cannot give.
    """
    main = next(iter(recipe.outputs.values()))
    wanted = _wanted(recipe, truth_of(main, recipe), labels)
    evaluation = open_dataset(recipe.evaluation, base, wanted)
    _check_judgeable(recipe, main, evaluation)
    notes = _thinned("evaluation", evaluation)
    calibration = None
    if recipe.calibration and "int8" in recipe.precisions:
        # Labels of a file are there anyway, and say whether its part is typical; folders of calibration have none.
        truth = wanted.truth if recipe.calibration.file and wanted.truth == "class" else None
        opened = open_dataset(recipe.calibration, base, replace(wanted, truth=truth))
        notes += _thinned("calibration", opened)
        calibration, note = without_shared(opened, evaluation)
        notes += [note] if note else []
        notes += _missing_classes(calibration, evaluation)
        notes += _judge_sizes(calibration, evaluation)
    return Sets(evaluation, calibration, tuple(notes))


def rehearse_sets(recipe: Recipe, base: Path, labels: tuple[str, ...] | None) -> None:
    """Refuse a judgement that the evaluation set cannot give, as far as it is there already; no sample is read.

    Raises:
        BadDataset, BadRecipe: as `open_sets`.
    """
    place, main = recipe.evaluation, next(iter(recipe.outputs.values()))
    if (base / (place.folder or place.file or "")).exists():
        wanted = _wanted(recipe, truth_of(main, recipe), labels)
        _check_judgeable(recipe, main, open_dataset(place, base, wanted))


def truth_of(output: OutputRecipe, recipe: Recipe) -> TruthKind | None:
    """Which labels judge an output; None when there are none for its kind."""
    if output.kind in _TRUTHS:
        return _TRUTHS[output.kind]
    # What the engineer's own function compares with is numbers.
    return "values" if recipe.evaluation.metric and ":" in recipe.evaluation.metric else None


def _wanted(recipe: Recipe, truth: TruthKind | None, labels: tuple[str, ...] | None) -> Wanted:
    inputs: dict[str, str] = {}
    columns: dict[str, tuple[str, ...]] = {}
    fills_gaps = keeps_gaps = False
    for name, entry in recipe.inputs.items():
        inputs[name] = entry.kind
        if entry.kind != "table":
            continue
        try:
            steps = entry.chain(name)
        except ContractError as error:
            raise BadRecipe(f"use inputs.{name}", error.because, error.remedy) from error
        columns[name] = tuple(columns_of(steps))
        fills_gaps = fills_gaps or any(isinstance(step, Columns) and step.missing != "error" for step in steps)
        keeps_gaps = keeps_gaps or any(isinstance(step, Columns) and step.missing == "keep" for step in steps)
    return Wanted(inputs, truth, labels, columns, fills_gaps, keeps_gaps)


def _check_judgeable(recipe: Recipe, main: OutputRecipe, evaluation: Dataset) -> None:
    kinds = {sample.truth for sample in evaluation.samples if isinstance(sample.truth, int)}
    if main.kind in {"anomaly", "score"} and evaluation.is_labelled and kinds != {0, 1}:
        raise BadDataset(
            f"judge by {evaluation.root}",
            f"its labels are {sorted(kinds)}, where 0 says normal and 1 anomalous, and both are needed",
            "label some of each, or leave the labels out and use min_agreement or min_snr_db",
        )
    if not recipe.limits.max_drop or evaluation.is_labelled:
        return
    if truth_of(main, recipe) is None:
        raise BadRecipe(
            "use max_drop", f"an output of kind {main.kind} has no metric of its own",
            "write evaluation.metric = 'module:function', or use min_agreement or min_snr_db",
        )  # fmt: skip
    remedy = f"{_LABELLED_BY.get(main.kind, 'write labels.csv')}, or use min_agreement"
    raise BadRecipe("use max_drop", f"{evaluation.root} has no labels", remedy)


def _thinned(which: str, dataset: Dataset) -> list[str]:
    """That a set was larger than what is used of it."""
    used = len(dataset.samples)
    return [f"{used} of {dataset.listed} {which} samples are used (max_samples)"] if used < dataset.listed else []


def _missing_classes(calibration: Dataset, evaluation: Dataset) -> list[str]:
    """A file that is sorted by class gives its first samples of one class only."""
    seen, judged = ({sample.label for sample in dataset.samples} - {None} for dataset in (calibration, evaluation))
    if not seen or len(judged & seen) * 2 > len(judged):
        return []
    step = max(2, (len(calibration.samples) + len(evaluation.samples)) // max(len(calibration.samples), 1))
    found = f"calibrated on {len(seen)} of {len(judged)} classes: is the file sorted?"
    return [f"{found} range = '::{step}' takes every {step}th sample, range = 'not ::{step}' the others"]


def _judge_sizes(calibration: Dataset, evaluation: Dataset) -> list[str]:
    count = len(calibration.samples)
    if count < CALIBRATION_MIN:
        raise BadDataset(
            f"calibrate on {calibration.root}",
            f"{count} examples are too few: int8 ranges would be theirs, not those of what the model will see",
            f"collect {CALIBRATION_USUAL} to 200 typical ones (at least {CALIBRATION_MIN}), or build float32 only",
        )
    notes: list[str] = []
    if count < CALIBRATION_USUAL:
        notes.append(f"calibrated on {count} examples only; {CALIBRATION_USUAL} to 200 are usual")
    if evaluation.is_labelled and len(evaluation.samples) < EVALUATION_USUAL:
        share = 100 / len(evaluation.samples)
        notes.append(f"judged on {len(evaluation.samples)} samples: one of them is {share:.1f} % of accuracy")
    return notes
