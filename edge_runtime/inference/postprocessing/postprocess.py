"""From canonical output tensors to typed answers, one per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.steps import (
    Detect,
    Embedding,
    Nms,
    PostStep,
    RawTensor,
    Reconstruction,
    Regression,
    Score,
    Segment,
    TopK,
    op_of,
    parse_postprocess,
)
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.postprocessing.results import (
    Anomaly,
    Answer,
    Boxes,
    Classes,
    Mask,
    Result,
    Scored,
    TensorAnswer,
    Values,
    label_of,
)
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess

if TYPE_CHECKING:
    from edge_runtime.inference.postprocessing.stream_answers import StreamReader
    from edge_runtime.inference.preprocessing.framing import Framing
    from edge_runtime.inference.preprocessing.geometry import Placement

_ABOUT_THE_QUESTION: Final = (Detect, Segment, Reconstruction)
"""Steps whose answer depends on what was asked, not on the model's tensors alone."""


class _Sample(msgspec.Struct, frozen=True):
    """What one answer is made from."""

    tensors: Tensors
    """Canonical output tensors, [windows, …]; one window unless preprocessing cut the sample into several."""
    placement: Placement | None
    inputs: Tensors
    """Canonical input tensors, [windows, …]; empty when the question is not known."""

    def only(self, tensor: str) -> Array:
        """A tensor of the sample, which has one window. Raises: InferenceError."""
        array = self.tensors[tensor]
        if len(array) != 1:
            raise InferenceError("answer", f"the sample was cut into {len(array)} windows", "ask about one at a time")
        row: Array = array[0]
        return row


_Interpreter = Callable[[_Sample], Result]


class Postprocessor(msgspec.Struct, frozen=True):
    """Compiled postprocessing of one release."""

    _outputs: Mapping[str, _Interpreter]
    _reads: frozenset[str]
    """Output tensors that answers are made from."""
    _question: Preprocessor | None
    """All steps of the release, when an answer depends on its question."""
    stream: StreamReader | None
    """Answers about sounds that are heard frame by frame; None where every row is a sample."""
    compares: bool
    """Whether an answer is made from the prepared inputs too, not from the size of the picture alone."""
    raw: Mapping[str, str] | None
    """Tensor behind each public output when all of them are tensors as they are; None when one is made from them."""

    def __call__(self, tensors: Tensors, decoded: Tensors | None = None) -> list[Answer]:
        """Answers of a batch, one per sample.

        Args:
            tensors: canonical output tensors with batch axis.
            decoded: the inputs they answer, after `decode`; boxes, masks and anomaly scores need them.

        Raises:
            InferenceError: a tensor is missing, tensors disagree about the batch, or the question is needed.
        """
        rows = self._rows(tensors)
        if self.stream is not None:
            return self.stream.answers({name: tensors[name] for name in self._reads}, rows, decoded)
        placement, inputs, count = None, {}, rows
        if self._question is not None and decoded is not None:
            placement, count = self._question.placement(decoded), self._question.count(decoded)
            inputs = self._question.after_decode(decoded) if self.compares else {}
        if count == 0 or rows % count:
            raise InferenceError("answer", f"the model gave {rows} rows for {count} samples")
        windows = rows // count
        answers: list[Answer] = []
        for start in range(0, rows, windows):
            own = {name: tensors[name][start : start + windows] for name in self._reads}
            asked = {name: array[start : start + windows] for name, array in inputs.items() if array.ndim}
            sample = _Sample(own, placement, asked)
            answers.append({name: interpret(sample) for name, interpret in self._outputs.items()})
        return answers

    @property
    def needs_question(self) -> bool:
        """Whether answers depend on the inputs besides the model's tensors."""
        return self._question is not None or self.stream is not None

    def _rows(self, tensors: Tensors) -> int:
        sizes: set[int] = set()
        for name in self._reads:
            if name not in tensors or tensors[name].ndim == 0:
                raise InferenceError("answer", f"the model gave no batch of tensor {name}")
            sizes.add(len(tensors[name]))
        if len(sizes) != 1:
            raise InferenceError("answer", f"the model's outputs hold {sorted(sizes)} samples")
        return sizes.pop()


def compile_postprocess(
    release: ReleaseManifest, labels: Mapping[str, tuple[str, ...]], layers: Tensors | None = None
) -> Postprocessor:
    """Compile a release's postprocessing.

    Args:
        release: whose outputs are meant.
        labels: label lists by public output name, for those outputs that have one.
        layers: arrays of the release by `layer:<title>` reference, for those steps that name one.

    Raises:
        UnsupportedFeature: a step that this runtime does not run.
        ContractError: an output without steps, or a step on an undeclared tensor.
    """
    outputs: dict[str, _Interpreter] = {}
    chains: dict[str, tuple[PostStep, ...]] = {}
    stream = _framing(release)
    reads: set[str] = set()
    whole: set[str] = set()
    """Tensors that are given out as they are."""
    is_about_question = False
    for spec in release.signature.outputs:
        steps = parse_postprocess(release.postprocess.get(spec.name, []))
        if not steps:
            raise ContractError(f"answer output {shown(spec.name)}", "the manifest has no postprocess steps for it")
        read = _tensors_of(steps[0])
        if undeclared := sorted(read - release.tensors.keys()):
            raise ContractError(f"answer output {spec.name}", f"tensor {shown(undeclared[0])} is not declared")
        chains[spec.name] = steps
        if stream is None:
            outputs[spec.name] = _interpreter(steps, spec.name, labels.get(spec.name, ()), layers or {})
            if isinstance(steps[0], RawTensor):
                if steps[0].from_ in whole:
                    # Results own their memory: a change of one output must not be one of another.
                    outputs[spec.name] = partial(_copied, tensor=steps[0].from_)
                whole.add(steps[0].from_)
        reads |= read
        is_about_question |= isinstance(steps[0], _ABOUT_THE_QUESTION)
    if not chains:
        raise ContractError(f"run model {release.name}", "its signature has no outputs")
    if stream is not None:
        from edge_runtime.inference.postprocessing.stream_answers import compile_stream_reader

        shapes = {name: release.tensors[name].shape for name in reads}
        reader = compile_stream_reader(chains, stream, shapes)
        return Postprocessor({}, frozenset(reads), None, reader, compares=False, raw=None)
    question = compile_preprocess(release) if is_about_question else None
    is_raw = len(whole) == len(chains) and all(len(steps) == 1 for steps in chains.values())
    raw = {name: steps[0].from_ for name, steps in chains.items()} if is_raw else None
    compares = any(isinstance(step, Reconstruction) for steps in chains.values() for step in steps)
    return Postprocessor(outputs, frozenset(reads), question, None, compares, raw)


def _framing(release: ReleaseManifest) -> Framing | None:
    if not release.is_sequential:
        return None
    from edge_runtime.inference.preprocessing.framing import compile_framing

    return compile_framing(compile_preprocess(release))


def parse_labels(content: bytes) -> tuple[str, ...]:
    """A label list: UTF-8, one label a line. Raises: ContractError."""
    try:
        # Some editors begin a text with a byte order mark, which is no part of the first label. Not by the codec
        # `utf-8-sig`, which Python has to load first.
        text = content.decode().removeprefix("\ufeff")
        return tuple(line.strip() for line in text.rstrip("\r\n").splitlines())
    except UnicodeDecodeError as error:
        raise ContractError("read the label list", "it is not UTF-8 text") from error


def _tensors_of(step: PostStep) -> set[str]:
    names = {step.from_}
    if isinstance(step, Detect):
        names |= {name for name in (step.scores, step.classes, step.count) if name is not None}
    return names


def _interpreter(
    steps: tuple[PostStep, ...], output: str, labels: tuple[str, ...], layers: Tensors
) -> _Interpreter:
    match steps:
        case (Detect() as detect,):
            return _detector(detect, None, labels, layers)
        case (Detect() as detect, Nms(from_="detect") as nms):
            return _detector(detect, nms, labels, layers)
        case (single,):
            return _single(single, labels)
        case _:
            ops = ", ".join(op_of(step) for step in steps)
            raise UnsupportedFeature(f"answer output {output}", f"the chain of steps {ops} is not built")


def _single(step: PostStep, labels: tuple[str, ...]) -> _Interpreter:
    match step:
        case TopK():
            return partial(_top_k, step=step, labels=labels)
        case Segment():
            from edge_runtime.inference.postprocessing.segment import check_segment

            check_segment(step)
            return partial(_segment, step=step, labels=labels)
        case Reconstruction():
            return partial(_reconstruction, step=step)
        case Score():
            return partial(_score, step=step)
        case Regression():
            return partial(_regression, step=step)
        case Embedding():
            return partial(_embedding, step=step)
        case RawTensor():
            return lambda sample: TensorAnswer(_whole(sample.tensors[step.from_]))
        case _:
            op = op_of(step)
            raise UnsupportedFeature(f"run postprocess step {op}", "this runtime does not build it yet")


def _detector(detect: Detect, nms: Nms | None, labels: tuple[str, ...], layers: Tensors) -> _Interpreter:
    from edge_runtime.inference.postprocessing.detect import check_detect

    check_detect(detect)
    # Who only compares tensors need not read them; a box without them is refused.
    priors = layers.get(detect.priors or "")
    return partial(_boxes, detect=detect, nms=nms, labels=labels, priors=priors)


def _boxes(
    sample: _Sample, *, detect: Detect, nms: Nms | None, labels: tuple[str, ...], priors: Array | None
) -> Boxes:
    from edge_runtime.inference.postprocessing.detect import Asked, find_candidates
    from edge_runtime.inference.postprocessing.suppression import suppress

    if sample.placement is None:
        raise InferenceError("answer with boxes", "the question is not known", "give interpret the decoded inputs")
    tensors = {name: sample.only(name) for name in _tensors_of(detect)}
    found = find_candidates(Asked(detect, tensors, sample.placement.size, priors))
    best = suppress(found, nms, min_score=detect.min_score, most=detect.max)
    indices = tuple(best.classes.tolist())
    named = tuple(label_of(index, labels) for index in indices)
    return Boxes(sample.placement.to_picture(best.boxes), indices, named, tuple(best.scores.tolist()))


def _segment(sample: _Sample, *, step: Segment, labels: tuple[str, ...]) -> Mask:
    from edge_runtime.inference.postprocessing.segment import classes_of

    classes = classes_of(step, sample.only(step.from_), sample.placement)
    return Mask(classes, labels, frozenset(step.ignore))


def _reconstruction(sample: _Sample, *, step: Reconstruction) -> Anomaly:
    made = sample.tensors[step.from_].astype(np.float64)
    if step.over not in sample.inputs:
        raise InferenceError("answer with an anomaly", "the question is not known", "give interpret the decoded inputs")
    asked = sample.inputs[step.over].astype(np.float64)
    if made.size != asked.size:
        because = f"{step.from_} has shape {list(made.shape)}, {step.over} has {list(asked.shape)}"
        raise InferenceError("answer with an anomaly score", because)
    apart = made.reshape(len(made), -1) - asked.reshape(len(made), -1)
    by_window = (np.square(apart) if step.metric == "mse" else np.abs(apart)).mean(axis=1)
    score = float(by_window.mean() if step.aggregate == "mean" else by_window.max())
    return Anomaly(score, None if step.threshold is None else score > step.threshold)


def _top_k(sample: _Sample, *, step: TopK, labels: tuple[str, ...]) -> Classes:
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


def _score(sample: _Sample, *, step: Score) -> Scored:
    row = sample.only(step.from_)
    if row.size != 1:
        raise InferenceError("answer with a score", f"the model gave {row.size} numbers instead of one")
    return Scored(float(row.ravel()[0]))


def _regression(sample: _Sample, *, step: Regression) -> Values:
    row = sample.only(step.from_)
    return Values(tuple(float(value) * step.scale for value in row.ravel()), step.unit)


def _embedding(sample: _Sample, *, step: Embedding) -> TensorAnswer:
    vector = sample.only(step.from_).astype(np.float32).ravel()
    length = float(np.linalg.norm(vector))
    return TensorAnswer(vector / length if step.normalise == "l2" and length > 0 else vector)


def _copied(sample: _Sample, *, tensor: str) -> TensorAnswer:
    return TensorAnswer(_whole(sample.tensors[tensor]).copy())


def _whole(windows: Array) -> Array:
    """A tensor of one sample: without the axis of windows when there is one."""
    return windows[0] if len(windows) == 1 else windows
