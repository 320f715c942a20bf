"""Asks a loaded variant and counts what that took.

Whoever calls holds a slot of the model's admission, so nothing here waits; `Model` is the same with the waiting.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, final

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.postprocessing.results import Answer, TensorAnswer
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.given import check_named
from edge_runtime.inference.preprocessing.preprocess import Inputs
from edge_runtime.inference.requests.accounting import EXPIRED, FAILED, INTERPRET, PREPARE, Accounting
from edge_runtime.inference.requests.direct import Direct, direct_call
from edge_runtime.inference.requests.refusals import DeadlinePassed, Refused

if TYPE_CHECKING:
    from edge_runtime.inference.requests.drift import Drift
    from edge_runtime.inference.requests.finite import FiniteCheck, NanPolicy
    from edge_runtime.inference.streams import Sessions, Turn


@final
class Asker:
    """The loaded variant, for callers that hold a slot; any thread."""

    def __init__(self, predictor: Predictor, accounting: Accounting, nan: NanPolicy = "off") -> None:
        self._predictor = predictor
        self._record = accounting.record
        self._call = direct_call(predictor.session)
        self._direct = Direct(predictor)
        # What the shortest way needs, at hand.
        self._feed, self._raw = self._direct.public.feed, self._direct.raw
        # Whoever compares the answer with the picture needs all of its pixels.
        self._has_short_pictures = not predictor.postprocess.compares
        self.check = _finite_check(predictor, nan)
        """The NaN policy, for whoever asks without this class; None where nothing is looked at."""

    @cached_property
    def drift(self) -> Drift:
        """Confidence and inputs of what was answered with classes, objects or scores."""
        from edge_runtime.inference.requests.drift import Drift

        return Drift()

    def infer(self, inputs: Inputs, deadline: float | None = None) -> Answer:
        """The answer to one sample, by public output name. Raises: InferenceError."""
        outputs = self._raw
        if not outputs or (fed := self._feed(inputs)) is None:
            return _only(self.infer_batch(inputs, deadline))
        raw = self._run(fed, inputs)
        answer: Answer = {}
        for public, place, read in outputs:
            rows = raw[place] if read is None else read(raw[place])
            if len(rows) != 1:
                return _only(self._predictor.interpret(self._direct.tensors(raw)))
            answer[public] = TensorAnswer(rows[0])
        return answer

    def infer_batch(self, inputs: Inputs, deadline: float | None = None) -> list[Answer]:
        """The answers to a batch, in order. Raises: InferenceError."""
        if not self._predictor.postprocess.needs_question and (fed := self._feed(inputs)) is not None:
            tensors, decoded, seen = self._direct.tensors(self._run(fed, inputs)), None, inputs
        else:
            tensors, decoded, seen = self._prepare_and_run(inputs, deadline)
        began = perf_counter_ns()
        answers = self._predictor.interpret(tensors, decoded)
        record = self._record()
        record.time(INTERPRET, perf_counter_ns() - began)
        if not self._direct.raw:
            self.drift.saw(answers, seen)
        return answers

    def infer_tensors(
        self, tensors: Tensors, *, outputs: Collection[str] | None = None, deadline: float | None = None
    ) -> dict[str, Array]:
        """Canonical output tensors.

        Args:
            tensors: all public inputs as arrays, or all canonical tensors (preprocessing already done), by name.
            outputs: which ones are wanted; None: all.
            deadline: the engine is not asked after it.

        Raises:
            InferenceError: names, dtypes or shapes that the model does not take, or the engine failed.
        """
        if outputs is not None:
            self._check_known(outputs)
        direct = self._direct
        fed = self._feed(tensors)
        if fed is None:
            fed = direct.canonical.feed(tensors)
        if fed is not None:
            answers = direct.tensors(self._run(fed, tensors))
        elif self._predictor.preprocess.are_prepared(tensors):
            answers = self._run_prepared(tensors)
        else:
            answers, _, _ = self._prepare_and_run(tensors, deadline)
        return answers if outputs is None else {name: answers[name] for name in outputs}

    def run_canonical(self, feeds: Tensors) -> dict[str, Array]:
        """Canonical output tensors for what `Preprocessor` returns. Raises: InferenceError."""
        if self.check is not None:
            record = self._record()
            try:
                self.check(feeds, record)
            except BaseException:
                record.count(FAILED)
                raise
        return self._run_feeds(feeds)

    def _run_feeds(self, feeds: Tensors) -> dict[str, Array]:
        record = self._record()
        try:
            began = perf_counter_ns()
            tensors = self._predictor.run_canonical(feeds)
            record.answered(perf_counter_ns() - began, _rows(feeds))
        except BaseException:
            record.count(FAILED)
            raise
        return tensors

    def sessions(self, turn: Turn) -> Sessions | None:
        """Streams of this variant, each of whose calls takes a turn; None when its calls do not know of each other."""
        predictor = self._predictor
        if predictor.sequencer is None:
            return None
        from edge_runtime.inference.requests.prepared import feeds_of_prepared
        from edge_runtime.inference.streams import Hearer, Sessions

        return Sessions(Hearer(predictor.sequencer, predictor.run_once, partial(feeds_of_prepared, predictor), turn))

    @contextmanager
    def counted(self, given: Mapping[str, object]) -> Iterator[None]:
        """Around a call that somebody else makes, on what he was given. Raises: InferenceError: it is not finite."""
        record = self._record()
        try:
            if self.check is not None:
                self.check(given, record)
            began = perf_counter_ns()
            yield
            record.answered(perf_counter_ns() - began, 1)
        except BaseException:
            record.count(FAILED)
            raise

    def _run(self, fed: dict[str, Array], inputs: Inputs) -> Sequence[Array]:
        record = self._record()
        try:
            if self.check is not None:
                self.check(inputs, record)
            began = perf_counter_ns()
            raw = self._call(fed)
            ended = perf_counter_ns()
        except BaseException:
            record.count(FAILED)
            raise
        for array in fed.values():
            record.answered(ended - began, len(array))
            break
        return raw

    def _prepare_and_run(self, inputs: Inputs, deadline: float | None) -> tuple[dict[str, Array], Tensors, Inputs]:
        """Canonical output tensors, the inputs after `decode`, and what to look at when asking what inputs are like."""
        record, preprocess = self._record(), self._predictor.preprocess
        try:
            check_named(inputs)
            if self.check is not None:
                self.check(inputs, record)
            began = perf_counter_ns()
            decoded, feeds, seen = self._prepare(inputs)
            prepared = perf_counter_ns()
            if feeds is not None:
                self._direct.public.learn(inputs, feeds)
            if deadline is not None and monotonic() >= deadline:
                raise DeadlinePassed
            started = perf_counter_ns()
            tensors = self._predictor.run_decoded(decoded) if feeds is None else self._predictor.run_canonical(feeds)
            ended = perf_counter_ns()
        except BaseException as error:
            record.count(EXPIRED if isinstance(error, Refused) else FAILED)
            raise
        record.time(PREPARE, prepared - began)
        record.answered(ended - started, preprocess.count(decoded))
        return tensors, decoded, seen

    def _prepare(self, inputs: Inputs) -> tuple[Tensors, dict[str, Array] | None, Inputs]:
        """As `_prepare_and_run`, with feeds; no feeds for a sequence, which is prepared row by row while it runs."""
        preprocess = self._predictor.preprocess
        if self._predictor.sequencer:
            decoded = preprocess.decode(inputs)
            return decoded, None, decoded
        if self._has_short_pictures and any(isinstance(given, bytes) for given in inputs.values()):
            from edge_runtime.inference.preprocessing.pictures import prepare

            prepared = prepare(preprocess, inputs)
            return prepared.decoded, prepared.feeds, prepared.seen
        decoded = preprocess.decode(inputs)
        return decoded, preprocess.after_decode(decoded), decoded

    def _run_prepared(self, tensors: Tensors) -> dict[str, Array]:
        from edge_runtime.inference.requests.prepared import feeds_of_prepared

        record = self._record()
        try:
            if self.check is not None:
                self.check(tensors, record)
            feeds = feeds_of_prepared(self._predictor, tensors)
        except BaseException:
            record.count(FAILED)
            raise
        answers = self._run_feeds(feeds)
        self._direct.canonical.learn(tensors, feeds)
        return answers

    def _check_known(self, outputs: Collection[str]) -> None:
        known = sorted(self._predictor.file_outputs.keys() & self._predictor.release.tensors.keys())
        for name in outputs:
            if name not in known:
                raise InferenceError(
                    f"give output {shown(name)}", "the model has no such tensor", f"choose of {', '.join(known)}"
                )


def _finite_check(predictor: Predictor, nan: NanPolicy) -> FiniteCheck | None:
    if nan == "off":
        return None
    from edge_runtime.inference.requests.finite import FiniteCheck

    return FiniteCheck(predictor.preprocess, nan)


def _only(answers: list[Answer]) -> Answer:
    if len(answers) != 1:
        raise InferenceError("answer", f"the inputs hold {len(answers)} samples", "use infer_batch")
    return answers[0]


def _rows(feeds: Tensors) -> int:
    return max((len(array) for array in feeds.values() if array.ndim), default=1)
