"""Which metric and which agreement fit an output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, assert_never

from converters.errors import BadRecipe
from converters.evaluation.metrics.classes import TopK, TopOneAgreement
from converters.evaluation.metrics.detection import BoxAgreement, MeanAveragePrecision
from converters.evaluation.metrics.metric import Agreement, Metric
from converters.evaluation.metrics.own_function import own_metric
from converters.evaluation.metrics.ranking import Auc
from converters.evaluation.metrics.regression import R2, MeanAbsoluteError, NumbersAgreement
from converters.evaluation.metrics.segmentation import MeanIou, PixelAgreement
from converters.evaluation.metrics.streams import SegmentAgreement
from converters.evaluation.metrics.tensors import MeanCosine
from edge_runtime.contract import answer_steps, question_steps
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.steps import PostStep, parse_postprocess

Family = Literal["classes", "boxes", "mask", "anomaly", "score", "segments", "track", "values", "tensor"]
"""What an output answers with."""

_FEW: Final = 8
"""Numbers from which the angle between two answers says how far they are apart."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is judged by: its first public output."""

    output: str
    """Public name."""
    family: Family
    tensor: str
    """Canonical tensor behind it."""
    metric: str | None
    """None: without labels, or the output has no metric."""
    ignore: tuple[int, ...] = ()
    """Classes that are never an answer."""
    min_score: float = 0.0
    """Score below which a box is no answer."""
    is_long: bool = True
    """Whether the tensor holds many numbers for each sample."""
    folder: Path = Path()
    """Of the recipe, where the engineer's own metrics are."""


USUAL: Final[Mapping[Family, str]] = {
    "classes": "top1",
    "boxes": "map",
    "mask": "mean_iou",
    "anomaly": "auc",
    "score": "auc",
    "values": "r2",
}
"""The metric of each family unless the recipe names another; a bare tensor has none."""

METRICS: Final[Mapping[str, tuple[frozenset[Family], Callable[[Task], Metric]]]] = {
    "top1": (frozenset({"classes"}), lambda task: TopK("top1", task.tensor, 1, task.ignore)),
    "top5": (frozenset({"classes"}), lambda task: TopK("top5", task.tensor, 5, task.ignore)),
    "map": (frozenset({"boxes"}), lambda task: MeanAveragePrecision("map", task.output)),
    "map50": (frozenset({"boxes"}), lambda task: MeanAveragePrecision("map50", task.output)),
    "mean_iou": (frozenset({"mask"}), lambda task: MeanIou(task.output)),
    "auc": (frozenset({"anomaly", "score"}), lambda task: Auc(task.output)),
    "mae": (frozenset({"values", "score"}), lambda task: MeanAbsoluteError(task.output)),
    "r2": (frozenset({"values", "score"}), lambda task: R2(task.output)),
}
"""The families that each metric judges, and how it is made."""


def task_of(release: ReleaseManifest, *, metric: str | None, is_labelled: bool, folder: Path) -> Task:
    """The task of a release.

    Args:
        release: whose first output is meant.
        metric: what the recipe asks for; None: the usual one for that family.
        is_labelled: whether every sample of the evaluation set has a label.
        folder: of the recipe.

    Raises:
        BadRecipe: there is no such metric, or it does not fit the output.
    """
    output = release.signature.outputs[0]
    first = parse_postprocess(release.postprocess[output.name])[0]
    is_heard = release.stream is not None and release.stream.unit == "frame"
    family = _family(first, is_heard=is_heard)
    tensor = release.tensors[first.from_]
    sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
    task = Task(
        output=output.name,
        family=family,
        tensor=first.from_,
        metric=(metric or USUAL.get(family)) if is_labelled else None,
        ignore=tuple(first.ignore) if isinstance(first, answer_steps.TopK) else (),
        min_score=first.min_score if isinstance(first, question_steps.Detect) else 0.0,
        is_long=is_heard or len(sizes) < len(tensor.shape[1:]) or _product(sizes) >= _FEW,
        folder=folder,
    )
    if metric is not None:
        _check_metric(metric, task)
    return task


def metric_of(task: Task) -> Metric | None:
    """A fresh metric for one model; None when the task has none. Raises: BadRecipe."""
    if task.metric is None:
        return None
    if ":" in task.metric:
        return own_metric(task.metric, task.output, task.folder)
    return METRICS[task.metric][1](task)


def agreement_of(task: Task) -> Agreement:
    """A fresh agreement with the source model."""
    match task.family:
        case "classes":
            return TopOneAgreement(task.tensor, task.ignore)
        case "boxes":
            return BoxAgreement(task.output, task.min_score)
        case "mask":
            return PixelAgreement(task.output)
        case "segments":
            return SegmentAgreement(task.output)
        case "anomaly" | "score" | "track" | "values" | "tensor":
            return MeanCosine(task.tensor) if task.is_long else NumbersAgreement(task.tensor)
        case _:
            assert_never(task.family)


def _check_metric(metric: str, task: Task) -> None:
    if ":" in metric:
        own_metric(metric, task.output, task.folder)
        return
    fitting = [name for name, (families, _) in METRICS.items() if task.family in families]
    if metric not in fitting:
        raise BadRecipe(
            f"measure {shown(metric)}", f"it is no metric of output {task.output}",
            f"write {' or '.join([*fitting, 'module:function'])}",
        )  # fmt: skip


def _family(step: PostStep, *, is_heard: bool) -> Family:
    match step:
        case answer_steps.Hysteresis():
            return "segments"
        case answer_steps.Score() if is_heard:
            return "track"
        case answer_steps.TopK():
            return "classes"
        case question_steps.Detect():
            return "boxes"
        case question_steps.Segment():
            return "mask"
        case question_steps.Reconstruction():
            return "anomaly"
        case answer_steps.Score():
            return "score"
        case answer_steps.Regression():
            return "values"
        case _:
            return "tensor"


def _product(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
