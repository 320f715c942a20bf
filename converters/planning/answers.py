"""Whether answers that a recipe promises can be made from the model's outputs, label by label; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from converters.errors import BadDataset, BadRecipe
from converters.model.source import Imported
from converters.planning.recipe_outputs import OutputRecipe
from edge_runtime.contract.steps import RawStep

Labels = Mapping[str, tuple[str, ...]]
"""By public output."""

_BACKGROUND: Final = frozenset({"ultraface", "ultraface_raw", "ssd_priors"})
"""Families whose first class is the background."""
_BEFORE_CLASSES: Final = 5
"""Objectness and box in a cell of FastestDet's grid."""


def check_answers(outputs: Mapping[str, OutputRecipe], imported: Imported, labels: Labels) -> None:
    """Refuse what would give nonsense without a complaint.

    Args:
        outputs: what the recipe promises.
        imported: the model.
        labels: label texts, of the outputs that have some.

    Raises:
        BadModel: the model has no such output.
        BadRecipe: classes are read from what is not one number for each class.
        BadDataset: more or fewer labels than classes.
    """
    for name, entry in outputs.items():
        port = imported.output(entry.tensor)
        if entry.kind == "classes" and not port.is_vector:
            raise BadRecipe(
                f"read classes from {entry.tensor}",
                f"it is {port.dtype} {list(port.shape)}, and classes are [N, C], one number for each",
                f"write another kind for outputs.{name}: detections (docs/how-to/quantise-a-detector.md), "
                "segmentation, or tensor for the numbers as they are",
            )
        if name in labels:
            _check_labels(entry, imported, len(labels[name]))


def unlabelled(outputs: Mapping[str, OutputRecipe]) -> Iterator[str]:
    """Notes about objects that applications will know by number only."""
    for name, entry in outputs.items():
        if entry.kind == "detections" and entry.labels is None:
            yield f"outputs.{name} has no labels: objects are told by the number of their class"


def _check_labels(entry: OutputRecipe, imported: Imported, count: int) -> None:
    classes = _classes(entry, imported)
    if classes is None or classes == count:
        return
    family = _detect(entry).get("family")
    order = ", the background in the first line" if family in _BACKGROUND else ""
    raise BadDataset(
        f"use {entry.labels}",
        f"it has {count} labels, the model's output {entry.tensor} has {classes} classes",
        f"write one label per class, in the order of the classes{order}",
    )


def _classes(entry: OutputRecipe, imported: Imported) -> int | None:
    """How many classes an answer knows, the background included; None where its tensors do not tell."""
    shape = imported.output(entry.tensor).shape
    if entry.kind == "classes":
        port = imported.output(entry.tensor)
        return port.width or (shape[-1] if shape else None)
    detect = _detect(entry)
    scores = detect.get("scores")
    if isinstance(scores, str) and detect.get("classes") is None:
        last = imported.output(scores).shape[-1:]
        return last[0] if last else None
    if detect.get("family") == "fastestdet" and len(shape) == 4 and shape[1] is not None:
        return shape[1] - _BEFORE_CLASSES
    return None


def _detect(entry: OutputRecipe) -> RawStep:
    return next((step for step in entry.steps or () if step.get("op") == "detect"), {})
