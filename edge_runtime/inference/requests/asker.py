"""Asks a loaded variant, and tells who is to blame when there is no answer: the question or the engine.

Whoever calls holds a slot of the model's admission, so nothing here waits. `Model` asks and is counted; what serves
many callers counts calls itself and takes `straight`, `run`, `ask` and `interpret`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import count
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Final, final

import msgspec

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.blame import BadInput, blame_engine, blame_question
from edge_runtime.inference.postprocessing.results import Answer, TensorAnswer
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Batch, Inputs
from edge_runtime.inference.preprocessing.values import are_listed, check_named, longest, one_by_one
from edge_runtime.inference.requests.accounting import INTERPRET, PREPARE, Accounting, Record, count_failure, fail
from edge_runtime.inference.requests.direct import Direct, Gate, direct_call

if TYPE_CHECKING:
    from edge_runtime.inference.requests.drift import Drift
    from edge_runtime.inference.requests.finite import FiniteCheck, NanPolicy
    from edge_runtime.inference.requests.together import Together
    from edge_runtime.inference.streams import Sessions, Turn

LOOKED_AT: Final = 16
"""Of so many requests the last one is looked at; the others, a model's first answer among them, pay for a counter."""


class Asked(msgspec.Struct, frozen=True):
    """What the engine answered to one question, before anybody interprets it."""

    tensors: dict[str, Array]
    """Canonical output tensors."""
    decoded: Tensors | None
    """The inputs after `decode`; None: the caller had prepared them."""
    seen: Inputs
    """What to look at when asking what inputs are like."""
    samples: int
    prepare_ns: int
    run_ns: int


class Made(msgspec.Struct, frozen=True):
    """What became of inputs."""

    decoded: Tensors | None
    """After `decode`; None: the caller had prepared them."""
    feeds: dict[str, Array] | None
    """None: a sequence, which is prepared row by row while it runs."""
    seen: Inputs
    samples: int
    run: Callable[[], dict[str, Array]]
    """Has the engine answer to it."""


@final
class Asker:
    """The loaded variant, for callers that hold a slot; any thread."""

    def __init__(
        self, predictor: Predictor, accounting: Accounting, nan: NanPolicy = "off", at_once: int | None = None
    ) -> None:
        self._predictor = predictor
        self._at_once = at_once
        self._record = accounting.record
        self._call = direct_call(predictor.session)
        self.direct = Direct(predictor, accounting.record)
        """The short way."""
        # What the shortest way needs, at hand.
        self._feed, self._raw = self.direct.public.feed, self.direct.raw
        # Counting is one step of the interpreter, so no lock is needed to share it.
        self._requests = count(1)
        # Whoever compares the answer with the picture needs all of its pixels.
        needs_pixels = predictor.postprocess.compares or predictor.sequencer is not None
        chains = predictor.preprocess.chains
        self._has_short_pictures = not needs_pixels and any(chain.is_resized_by_pillow for chain in chains)
        self.check: FiniteCheck | None = None
        """The NaN policy, for whoever asks without this class; None where nothing is looked at."""
        if nan != "off":
            from edge_runtime.inference.requests.finite import FiniteCheck

            self.check = FiniteCheck(predictor.preprocess, nan)

    @cached_property
    def together(self) -> Together:
        """The engine, asked for several samples at once."""
        from edge_runtime.inference.requests.together import Together

        return Together(self._predictor, self._at_once)

    @cached_property
    def drift(self) -> Drift:
        """Confidence and inputs of what was answered with classes, objects or scores."""
        from edge_runtime.inference.requests.drift import Drift

        return Drift()

    def infer(self, inputs: Inputs, deadline: float | None = None) -> Answer:
        """The answer to one sample, by public output name. Raises: InferenceError."""
        outputs = self._raw
        if not outputs or (fed := self._feed(inputs)) is None:
            return _only(self._infer_stacked(inputs, deadline))
        raw = self._run(fed, inputs)
        answer: Answer = {}
        for public, place, read in outputs:
            rows = raw[place] if read is None else read(raw[place])
            if len(rows) != 1:
                return _only(self._predictor.interpret(self.direct.tensors(raw)))
            answer[public] = TensorAnswer(rows[0])
        return answer

    def infer_batch(self, inputs: Batch, deadline: float | None = None) -> list[Answer]:
        """The answers to a batch, in order: stacked arrays, or lists of samples. Raises: InferenceError."""
        check_named(inputs)
        if any(map(are_listed, inputs.values())):
            return self.infer_all(list(one_by_one(inputs)), deadline)
        return self._infer_stacked(inputs, deadline)  # type: ignore[arg-type] # what is no array is told so there

    def _infer_stacked(self, inputs: Inputs, deadline: float | None) -> list[Answer]:
        fed = None if self._predictor.postprocess.needs_question else self._feed(inputs)
        if fed is not None and ((most := self.together.most) is None or longest(fed) <= most):
            tensors, decoded, seen = self.direct.tensors(self._run(fed, inputs)), None, inputs
        else:
            asked = self._counted(self.ask, inputs, deadline)
            tensors, decoded, seen = asked.tensors, asked.decoded, asked.seen
        began = perf_counter_ns()
        answers = self.interpret(tensors, decoded, seen)
        self._record().time(INTERPRET, perf_counter_ns() - began)
        return answers

    def infer_all(self, questions: Sequence[Inputs], deadline: float | None = None) -> list[Answer]:
        """The answers to questions of one sample each, such as pictures of all sizes, in order.

        Each is prepared by itself; the engine is asked about several at once where the variant takes a free number of
        samples: as many as was found best on this machine.

        Raises:
            InferenceError: as `infer`, of one of them; ask one by one to know which.
        """
        size = self.together.questions
        if size == 1 or len(questions) == 1:
            return [self.infer(question, deadline) for question in questions]
        answers: list[Answer] = []
        for start in range(0, len(questions), size):
            answers += self._infer_together(questions[start : start + size], deadline)
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
            BadInput: names, dtypes or shapes that the model does not take.
            InferenceError: the engine failed.
        """
        if outputs is not None:
            from edge_runtime.inference.requests.prepared import check_outputs

            check_outputs(self._predictor, outputs)
        fed = self._feed(tensors)
        if fed is None:
            fed = self.direct.canonical.feed(tensors)
        if fed is not None:
            answers = self.direct.tensors(self._run(fed, tensors))
        else:
            answers = self._counted(self.ask_either, tensors, deadline).tensors
        return answers if outputs is None else {name: answers[name] for name in outputs}

    def run_canonical(self, feeds: Tensors) -> dict[str, Array]:
        """Canonical output tensors for what `Preprocessor` returns. Raises: InferenceError."""
        record = self._record()
        try:
            if self.check is not None:
                self.check(feeds, record)
            began = perf_counter_ns()
            tensors = self._predictor.run_canonical(feeds)
            record.answered(perf_counter_ns() - began, longest(feeds))
        except BaseException as error:  # noqa: BLE001 - raised again
            fail(record, blame_engine, error)
        return tensors

    def sessions(self, turn: Turn) -> Sessions | None:
        """Streams of this variant, each of whose calls takes a turn; None when its calls do not know of each other."""
        if self._predictor.sequencer is None:
            return None
        from edge_runtime.inference.requests.sessions import sessions_of

        return sessions_of(self._predictor, self._predictor.sequencer, turn)

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
        except InferenceError as error:
            fail(record, blame_question, error)
        except BaseException as error:
            count_failure(record, error)
            raise

    def straight(self, inputs: Inputs) -> dict[str, Array] | None:
        """Canonical tensors or public inputs that need no preparation, by file tensor; None: they may need some."""
        fed = self.direct.canonical.feed(inputs)
        return self._feed(inputs) if fed is None else fed

    def run(self, fed: dict[str, Array]) -> Sequence[Array]:
        """The engine's outputs, in its order, for what `straight` returned; not counted. Raises: as `ask`."""
        try:
            return self._call(fed)
        except BaseException as error:  # noqa: BLE001 - raised again
            blame_engine(error)

    def ask(self, inputs: Inputs, deadline: float | None = None) -> Asked:
        """What the engine answers to public inputs; not counted.

        Raises:
            BadInput: the question is to blame.
            DeadlinePassed: while the inputs were prepared; the engine was not asked.
            EngineFault: the engine is to blame.
            InferenceError: there is not enough memory.
        """
        return self._ask(self._prepare, self.direct.public, inputs, deadline)

    def ask_either(self, inputs: Inputs, deadline: float | None = None) -> Asked:
        """As `ask`, to public inputs or to canonical tensors, whichever they are; where names are the same, by axes."""
        from edge_runtime.inference.requests.prepared import are_prepared

        if are_prepared(self._predictor.preprocess, inputs):
            return self._ask(self._take_prepared, self.direct.canonical, inputs, deadline)
        return self.ask(inputs, deadline)

    def make(self, inputs: Inputs) -> Made:
        """What the engine is fed for public inputs; any thread, whoever has a slot or not. Raises: BadInput."""
        try:
            check_named(inputs)
            return self._prepare(inputs)
        except BaseException as error:  # noqa: BLE001 - raised again
            blame_question(error)

    def interpret(self, tensors: Tensors, decoded: Tensors | None, seen: Inputs) -> list[Answer]:
        """Answers from canonical output tensors, one per sample.

        Args:
            tensors: what the engine answered.
            decoded: the inputs after `decode`; None: nobody knows them.
            seen: what to look at when asking what inputs are like.

        Raises:
            InferenceError: the model does not answer as its release says.
        """
        try:
            answers = self._predictor.interpret(tensors, decoded)
        except EdgeError:
            raise
        except Exception as error:
            because = f"{type(error).__name__}: {shown(str(error))}"
            raise InferenceError("read the model's answer", because, "build the release again") from error
        if not self._raw and not (number := next(self._requests)) % LOOKED_AT:
            self.drift.look(number, answers, seen)
        return answers

    def _run(self, fed: dict[str, Array], inputs: Inputs) -> Sequence[Array]:
        record = self._record()
        try:
            if self.check is not None:
                self.check(inputs, record)
            began = perf_counter_ns()
            raw = self._call(fed)
            ended = perf_counter_ns()
        except BaseException as error:  # noqa: BLE001 - raised again
            fail(record, blame_engine, error)
        for array in fed.values():
            record.answered(ended - began, len(array))
            break
        return raw

    def _counted(
        self, ask: Callable[[Inputs, float | None], Asked], inputs: Inputs, deadline: float | None
    ) -> Asked:
        record = self._record()
        try:
            if self.check is not None:
                check_named(inputs)
                self.check(inputs, record)
            asked = ask(inputs, deadline)
        except BaseException as error:
            count_failure(record, error)
            raise
        record.time(PREPARE, asked.prepare_ns)
        record.answered(asked.run_ns, asked.samples)
        return asked

    def _infer_together(self, questions: Sequence[Inputs], deadline: float | None) -> list[Answer]:
        record = self._record()
        try:
            began = perf_counter_ns()
            made = [self._checked(question, record) for question in questions]
            prepared = perf_counter_ns()
            _check_time(deadline)
            tensors = self.together.run_all([one.feeds or {} for one in made])
            ended = perf_counter_ns()
        except BaseException as error:
            count_failure(record, error)
            raise
        record.time(PREPARE, prepared - began)
        record.answered(ended - prepared, len(made))
        pairs = zip(tensors, made, strict=True)
        answers = [_only(self.interpret(said, one.decoded, one.seen)) for said, one in pairs]
        record.time(INTERPRET, perf_counter_ns() - ended)
        return answers

    def _checked(self, question: Inputs, record: Record) -> Made:
        if self.check is not None:
            check_named(question)
            self.check(question, record)
        return self.make(question)

    def _ask(
        self, prepare: Callable[[Inputs], Made], gate: Gate, inputs: Inputs, deadline: float | None
    ) -> Asked:
        began = perf_counter_ns()
        try:
            check_named(inputs)
            made = prepare(inputs)
        except BaseException as error:  # noqa: BLE001 - raised again
            blame_question(error)
        prepared = perf_counter_ns()
        _check_time(deadline)
        try:
            tensors = made.run()
        except BaseException as error:  # noqa: BLE001 - raised again
            blame_engine(error)
        ended = perf_counter_ns()
        if made.feeds is not None:
            # Not before the file has taken them: the short way does not ask whether it does.
            gate.learn(inputs, made.feeds)
        return Asked(tensors, made.decoded, made.seen, made.samples, prepared - began, ended - prepared)

    def _prepare(self, inputs: Inputs) -> Made:
        predictor, preprocess = self._predictor, self._predictor.preprocess
        if self._has_short_pictures and any(isinstance(given, bytes) for given in inputs.values()):
            from edge_runtime.inference.preprocessing.pictures import prepare

            prepared = prepare(preprocess, inputs)
            decoded, feeds, seen = prepared.decoded, prepared.feeds, prepared.seen
        else:
            decoded = seen = preprocess.decode(inputs)
            if predictor.sequencer is not None:
                return Made(decoded, None, seen, _samples(decoded), partial(predictor.run_decoded, decoded))
            feeds = preprocess.after_decode(decoded)
        run = predictor.run_canonical if longest(feeds) == 1 else self.together.run
        return Made(decoded, feeds, seen, _samples(decoded), partial(run, feeds))

    def _take_prepared(self, tensors: Inputs) -> Made:
        from edge_runtime.inference.requests.prepared import feeds_of_prepared

        feeds = feeds_of_prepared(self._predictor, tensors)
        return Made(None, feeds, tensors, longest(feeds), partial(self._predictor.run_canonical, feeds))


def _check_time(deadline: float | None) -> None:
    if deadline is not None and monotonic() >= deadline:
        from edge_runtime.inference.requests.refusals import DeadlinePassed

        raise DeadlinePassed


def _only(answers: list[Answer]) -> Answer:
    if len(answers) != 1:
        raise BadInput("answer", f"the inputs hold {len(answers)} samples", "use infer_batch")
    return answers[0]


def _samples(decoded: Tensors) -> int:
    """How many `decode` gave a batch axis."""
    return next(len(array) for array in decoded.values())
