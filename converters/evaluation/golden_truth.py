"""What people say about golden samples, as `truth.json` carries it: boxes and masks follow a picture that is scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.data.samples.sample import Sample
from converters.data.truth import MaskFile, TrueBoxes
from converters.evaluation.metrics.segmentation import VOID, read_mask
from edge_runtime.contract.golden import TrueMask, TrueObject, Truth
from edge_runtime.inference.checks.agreement import resized_map
from edge_runtime.inference.checks.golden_answers import pack_mask, true_objects
from edge_runtime.inference.postprocessing.question_results import OUTSIDE


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample of the golden set, and what happened to its picture."""

    sample: Sample
    scale: tuple[float, float] = (1.0, 1.0)
    """Stored over original, vertical and horizontal."""
    size: tuple[int, int] | None = None
    """Height, width of the stored picture; None for other inputs."""


def truth_of(kept: Sequence[Kept], output: str) -> Truth | None:
    """The labels of golden samples for one public output; None when nobody knows any. Raises: BadDataset."""
    truths = [one.sample.truth for one in kept]
    if all(truth is None for truth in truths):
        return None
    if any(isinstance(truth, TrueBoxes) for truth in truths):
        return Truth(objects={output: [_objects(one) for one in kept]})
    if any(isinstance(truth, MaskFile) for truth in truths):
        return Truth(masks={output: [_mask(one) for one in kept]})
    if any(isinstance(truth, tuple) for truth in truths):
        return Truth(values={output: [list(truth) if isinstance(truth, tuple) else None for truth in truths]})
    return Truth(labels={output: [truth if isinstance(truth, int) else None for truth in truths]})


def _objects(kept: Kept) -> list[TrueObject] | None:
    truth = kept.sample.truth
    if not isinstance(truth, TrueBoxes):
        return None
    vertical, horizontal = kept.scale
    # A crowd is no single object that an answer could match.
    single = [position for position, is_crowd in enumerate(truth.crowds) if not is_crowd]
    corners = truth.corners[single] * np.array([horizontal, vertical, horizontal, vertical])
    return true_objects(corners, [truth.classes[position] for position in single])


def _mask(kept: Kept) -> TrueMask | None:
    truth = kept.sample.truth
    if not isinstance(truth, MaskFile):
        return None
    classes = read_mask(truth).astype(np.int64)
    classes[classes == (VOID if truth.ignore is None else truth.ignore)] = OUTSIDE
    return pack_mask(classes if kept.size is None else resized_map(classes, kept.size))
