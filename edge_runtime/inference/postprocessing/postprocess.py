"""From canonical output tensors to typed answers, one per sample."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.steps import PostStep, RawTensor, op_of, parse_postprocess
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.postprocessing.results import Answer, Interpreter, Sample, TensorAnswer
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess

if TYPE_CHECKING:
    from edge_runtime.inference.postprocessing.stream_answers import StreamReader
    from edge_runtime.inference.preprocessing.framing import Framing

_RECONSTRUCTION: Final = "reconstruction"
_ABOUT_THE_QUESTION: Final = frozenset({"detect", "segment", _RECONSTRUCTION})
"""Steps whose answer depends on what was asked, not on the model's tensors alone."""


class Postprocessor(msgspec.Struct, frozen=True):
    """Compiled postprocessing of one release."""

    _outputs: Mapping[str, Interpreter]
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
            sample = Sample(own, placement, asked)
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
    outputs: dict[str, Interpreter] = {}
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
        read = steps[0].tensors
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
        is_about_question |= op_of(steps[0]) in _ABOUT_THE_QUESTION
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
    compares = any(op_of(step) == _RECONSTRUCTION for steps in chains.values() for step in steps)
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


def _interpreter(
    steps: tuple[PostStep, ...], output: str, labels: tuple[str, ...], layers: Tensors
) -> Interpreter:
    """What makes one output's answer; the code of what a release does not answer is not loaded."""
    found: Interpreter | None = None
    first = steps[0]
    if op_of(first) in _ABOUT_THE_QUESTION:
        from edge_runtime.inference.postprocessing.question_answers import question_answer

        found = question_answer(steps, labels, layers)
    elif len(steps) == 1 and isinstance(first, RawTensor):
        found = partial(_as_it_is, tensor=first.from_)
    elif len(steps) == 1:
        from edge_runtime.inference.postprocessing.plain_answers import plain_answer

        found = plain_answer(first, labels)
    if found is not None:
        return found
    if len(steps) == 1:
        raise UnsupportedFeature(f"run postprocess step {op_of(first)}", "this runtime does not build it yet")
    ops = ", ".join(op_of(step) for step in steps)
    raise UnsupportedFeature(f"answer output {output}", f"the chain of steps {ops} is not built")


def _as_it_is(sample: Sample, *, tensor: str) -> TensorAnswer:
    windows = sample.tensors[tensor]
    # Of one sample: without the axis of windows when there is one.
    return TensorAnswer(windows[0] if len(windows) == 1 else windows)


def _copied(sample: Sample, *, tensor: str) -> TensorAnswer:
    return TensorAnswer(_as_it_is(sample, tensor=tensor).array.copy())
