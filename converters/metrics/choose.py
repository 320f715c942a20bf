"""Which metric and which agreement fit an output; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from converters.errors import BadRecipe
from converters.metrics.classes import TopK, TopOneAgreement
from converters.metrics.metric import Agreement, Metric
from converters.metrics.tensors import MeanCosine
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.steps import TopK as TopKStep
from edge_runtime.contract.steps import parse_postprocess


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is judged by: its first public output."""

    output: str
    """Public name."""
    kind: str
    """Of that output: `classes`, `tensor`, …"""
    tensor: str
    """Canonical tensor behind it."""
    metric: str | None
    """None: nothing can be said without labels, or the output has no metric."""
    ignore: tuple[int, ...] = ()
    """Classes that are never an answer."""


_DEFAULT: Final[Mapping[str, str]] = {"classes": "top1"}
"""Metric by kind of output."""

_METRICS: Final[Mapping[str, Callable[[Task], Metric]]] = {
    "top1": lambda task: TopK("top1", task.tensor, 1, task.ignore),
    "top5": lambda task: TopK("top5", task.tensor, 5, task.ignore),
}
_AGREEMENTS: Final[Mapping[str, Callable[[Task], Agreement]]] = {
    "classes": lambda task: TopOneAgreement(task.tensor, task.ignore),
}
"""Agreement by kind of output; what has none is compared by its angle."""


def task_of(release: ReleaseManifest, *, metric: str | None, is_labelled: bool) -> Task:
    """The task of a release.

    Args:
        release: whose first output is meant.
        metric: what the recipe asks for; None: the usual one for that kind of output.
        is_labelled: whether every sample of the evaluation set has a label.
    """
    output = release.signature.outputs[0]
    step = parse_postprocess(release.postprocess[output.name])[0]
    ignore = tuple(step.ignore) if isinstance(step, TopKStep) else ()
    wanted = metric or _DEFAULT.get(output.kind)
    return Task(output.name, output.kind, step.from_, wanted if is_labelled else None, ignore)


def metric_of(task: Task) -> Metric | None:
    """A fresh metric for one model; None when the task has none. Raises: BadRecipe."""
    if task.metric is None:
        return None
    if task.metric not in _METRICS:
        raise BadRecipe(
            f"measure {shown(task.metric)}", "there is no such metric", f"write one of {', '.join(_METRICS)}"
        )
    return _METRICS[task.metric](task)


def agreement_of(task: Task) -> Agreement:
    """A fresh agreement with the source model."""
    made = _AGREEMENTS.get(task.kind)
    return made(task) if made else MeanCosine(task.tensor)
