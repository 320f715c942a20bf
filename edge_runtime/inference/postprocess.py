"""From canonical output tensors to typed answers, one per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.steps import (
    Embedding,
    PostStep,
    RawTensor,
    Regression,
    Score,
    TopK,
    parse_postprocess,
)
from edge_runtime.inference.backend import Array, Tensors

_SHOWN: Final = 4
"""Numbers of a tensor that a line of text shows."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Best classes, best first; empty when none reaches the minimum score (or the scores are not numbers)."""

    indices: tuple[int, ...]
    labels: tuple[str, ...]
    """Same length as `indices`; the index as text where the release has no label list."""
    scores: tuple[float, ...]

    @property
    def top(self) -> int | None:
        """Index of the best class."""
        return self.indices[0] if self.indices else None


@dataclass(frozen=True, slots=True)
class Scored:
    """One number, as `score` promises it: between 0 and 1."""

    score: float


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers with a unit."""

    values: tuple[float, ...]
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class TensorAnswer:
    """A tensor of one sample, without its batch axis: raw output or embedding."""

    array: Array


Result = Classes | Scored | Values | TensorAnswer
Answer = dict[str, Result]
"""Results of one sample by public output name."""

Json = str | int | float | bool | list["Json"] | dict[str, "Json"] | None


@dataclass(frozen=True, slots=True)
class Postprocessor:
    """Compiled postprocessing of one release."""

    _outputs: Mapping[str, tuple[str, Callable[[Array], Result]]]

    def __call__(self, tensors: Tensors) -> list[Answer]:
        """Answers of a batch: canonical tensors with batch axis in, one answer per sample out.

        Raises:
            InferenceError: a tensor is missing, or tensors disagree about the batch.
        """
        batch = self._batch(tensors)
        return [
            {name: interpret(tensors[tensor][sample]) for name, (tensor, interpret) in self._outputs.items()}
            for sample in range(batch)
        ]

    def _batch(self, tensors: Tensors) -> int:
        sizes: set[int] = set()
        for name, (tensor, _) in self._outputs.items():
            if tensor not in tensors or tensors[tensor].ndim == 0:
                raise InferenceError(f"answer {name}", f"the model gave no batch of tensor {tensor}")
            sizes.add(len(tensors[tensor]))
        if len(sizes) != 1:
            raise InferenceError("answer", f"the model's outputs hold {sorted(sizes)} samples")
        return sizes.pop()


def compile_postprocess(release: ReleaseManifest, labels: Mapping[str, tuple[str, ...]]) -> Postprocessor:
    """Compile a release's postprocessing.

    Args:
        release: whose outputs are meant.
        labels: label lists by public output name, for those outputs that have one.

    Raises:
        UnsupportedFeature: a step that this runtime does not run.
        ContractError: an output without steps, or a step on an undeclared tensor.
    """
    outputs: dict[str, tuple[str, Callable[[Array], Result]]] = {}
    for spec in release.signature.outputs:
        steps = parse_postprocess(release.postprocess.get(spec.name, []))
        if not steps:
            raise ContractError(f"answer output {shown(spec.name)}", "the manifest has no postprocess steps for it")
        if len(steps) > 1:
            raise UnsupportedFeature(f"answer output {spec.name}", "chained postprocess steps are not built yet")
        if steps[0].from_ not in release.tensors:
            raise ContractError(f"answer output {spec.name}", f"tensor {shown(steps[0].from_)} is not declared")
        outputs[spec.name] = (steps[0].from_, _interpreter(steps[0], labels.get(spec.name, ())))
    if not outputs:
        raise ContractError(f"run model {release.name}", "its signature has no outputs")
    return Postprocessor(outputs)


def parse_labels(content: bytes) -> tuple[str, ...]:
    """A label list: UTF-8, one label a line. Raises: ContractError."""
    try:
        return tuple(line.strip() for line in content.decode("utf-8").rstrip("\r\n").splitlines())
    except UnicodeDecodeError as error:
        raise ContractError("read the label list", "it is not UTF-8 text") from error


def as_json(result: Result) -> Json:
    """A result as JSON can carry it; NaN and infinities become null."""
    match result:
        case Classes():
            rows = zip(result.indices, result.labels, result.scores, strict=True)
            return [{"index": index, "label": label, "score": score} for index, label, score in rows]
        case Scored():
            return _finite(result.score)
        case Values():
            return {"values": [_finite(value) for value in result.values], "unit": result.unit}
        case TensorAnswer():
            return [_finite(float(value)) for value in result.array.ravel()]


def as_text(result: Result) -> str:
    """A result in one short line for a person."""
    match result:
        case Classes():
            pairs = zip(result.labels, result.scores, strict=True)
            return ", ".join(f"{label} ({score:.3f})" for label, score in pairs) or "no class"
        case Scored():
            return f"{result.score:.3f}"
        case Values():
            return f"{', '.join(f'{value:.4g}' for value in result.values)} {result.unit}".rstrip()
        case TensorAnswer():
            first = ", ".join(f"{value:.4g}" for value in result.array.ravel()[:_SHOWN])
            more = ", …" if result.array.size > _SHOWN else ""
            return f"{result.array.dtype} {list(result.array.shape)}: {first}{more}"


def _interpreter(step: PostStep, labels: tuple[str, ...]) -> Callable[[Array], Result]:
    match step:
        case TopK():
            return partial(_top_k, step=step, labels=labels)
        case Score():
            return _score
        case Regression():
            return partial(_regression, step=step)
        case Embedding():
            return partial(_embedding, step=step)
        case RawTensor():
            return TensorAnswer
        case _:
            op = type(step).__struct_config__.tag
            raise UnsupportedFeature(f"run postprocess step {op}", "this runtime does not build it yet")


def _top_k(row: Array, *, step: TopK, labels: tuple[str, ...]) -> Classes:
    scores = _activated(row.astype(np.float64).ravel(), step)
    # Stable, so that equal scores come in class order on every machine; NaN fails the comparison and drops out.
    order = np.argsort(-scores, kind="stable")
    ignored = set(step.ignore)
    best = [int(index) for index in order if scores[index] >= step.min_score and int(index) not in ignored][: step.k]
    return Classes(
        tuple(best),
        tuple(_label(index + step.labels_offset, labels) for index in best),
        tuple(float(scores[index]) for index in best),
    )


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


def _label(index: int, labels: tuple[str, ...]) -> str:
    return labels[index] if 0 <= index < len(labels) else str(index)


def _score(row: Array) -> Scored:
    if row.size != 1:
        raise InferenceError("answer with a score", f"the model gave {row.size} numbers instead of one")
    return Scored(float(row.ravel()[0]))


def _regression(row: Array, *, step: Regression) -> Values:
    return Values(tuple(float(value) * step.scale for value in row.ravel()), step.unit)


def _embedding(row: Array, *, step: Embedding) -> TensorAnswer:
    vector = row.astype(np.float32).ravel()
    length = float(np.linalg.norm(vector))
    return TensorAnswer(vector / length if step.normalise == "l2" and length > 0 else vector)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
