"""Answers that the model's numbers alone tell: classes, scores, values, embeddings."""

from __future__ import annotations

from functools import partial

import numpy as np

from edge_runtime.contract.answer_steps import Embedding, Regression, Score, TopK
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.steps import PostStep
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.results import (
    Classes,
    Interpreter,
    Sample,
    Scored,
    TensorAnswer,
    Values,
    label_of,
)


def plain_answer(step: PostStep, labels: tuple[str, ...]) -> Interpreter | None:
    """What makes an answer by one step; None for a step of another kind."""
    match step:
        case TopK():
            return partial(_top_k, step=step, labels=labels)
        case Score():
            return partial(_score, step=step)
        case Regression():
            return partial(_regression, step=step)
        case Embedding():
            return partial(_embedding, step=step)
        case _:
            return None


def _top_k(sample: Sample, *, step: TopK, labels: tuple[str, ...]) -> Classes:
    numbers = sample.only(step.from_).astype(np.float64).ravel()
    if not numbers.size:
        raise InferenceError("answer with classes", f"the model gave an empty tensor {step.from_}")
    scores = _activated(numbers, step)
    ignored = set(step.ignore)
    order = _best_first(scores, step.k + len(ignored)).tolist()
    best = [index for index in order if scores[index] >= step.min_score and index not in ignored][: step.k]
    return Classes(
        tuple(best),
        tuple(label_of(index + step.labels_offset, labels) for index in best),
        tuple(float(scores[index]) for index in best),
    )


def _best_first(scores: Array, count: int) -> Array:
    """Classes of the `count` best scores, best first; those that are no numbers are left out."""
    candidates = np.flatnonzero(scores == scores)  # noqa: PLR0124 (NaN is not equal to itself)
    # Stable, so that equal scores come in class order on every machine. Sorting all is quicker than looking for the
    # best ones first: that takes numpy several times as long where most are equal, as quantised ones are.
    return candidates[np.argsort(-scores[candidates], kind="stable")[:count]]


def _activated(logits: Array, step: TopK) -> Array:
    match step.activation:
        case "none":
            return logits
        case "softmax":
            with np.errstate(invalid="ignore"):
                powers = np.exp(logits - logits.max())
                shares: Array = powers / powers.sum()
            return shares
        case "sigmoid":
            # Written with tanh: exp(−x) overflows for strongly negative logits.
            probabilities: Array = 0.5 * (1.0 + np.tanh(0.5 * logits))
            return probabilities


def _score(sample: Sample, *, step: Score) -> Scored:
    row = sample.only(step.from_)
    if row.size != 1:
        raise InferenceError("answer with a score", f"the model gave {row.size} numbers instead of one")
    return Scored(float(row.ravel()[0]))


def _regression(sample: Sample, *, step: Regression) -> Values:
    row = sample.only(step.from_)
    return Values(tuple(float(value) * step.scale for value in row.ravel()), step.unit)


def _embedding(sample: Sample, *, step: Embedding) -> TensorAnswer:
    vector = sample.only(step.from_).astype(np.float32).ravel()
    length = float(np.linalg.norm(vector))
    return TensorAnswer(vector / length if step.normalise == "l2" and length > 0 else vector)
