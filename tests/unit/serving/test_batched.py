"""Several callers, one run of the engine: each gets exactly its rows, and nobody pays for another's fault."""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.release import BatchSpec
from edge_runtime.inference.blame import BadInput, EngineFault
from edge_runtime.inference.preprocessing.preprocess import Inputs, Preprocessor
from edge_runtime.inference.requests.accounting import SAMPLES, Accounting, Record
from edge_runtime.inference.requests.refusals import Cancelled, DeadlinePassed
from edge_runtime.serving.batched import BatchedInstance
from edge_runtime.serving.batching import ALONE, BatchPolicy
from edge_runtime.serving.calls import BadCall, Call, SequenceStep, Values
from edge_runtime.serving.events import Event, Happened
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.instance import Instance
from edge_runtime.serving.served import Served
from tests.fakes.models import Build, averaging_classifier
from tests.fakes.pixels import write_pixels
from tests.fakes.probe import probe_input, write_probe
from tests.fakes.streams import Hearing
from tests.fakes.tuned import tuned_here
from tests.unit.serving.releases import about, png


class Doubling:
    """`y` = 2 · `x`; negative numbers are the caller's fault, a million is the engine's."""

    slots = 1
    is_gone = False

    def __init__(self) -> None:
        self.variant = msgspec.structs.replace(Build("v").manifest(), batch=BatchSpec(max=64, dynamic=True))
        self.sizes: list[int] = []
        self.vouched: list[bool] = []
        self.free = threading.Event()
        self.free.set()
        self.inside = 0
        self.most_inside = 0

    def answer(self, call: Call, record: Record) -> dict[str, Values]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.vouched.append(call.is_vouched_for)
        try:
            self.free.wait(30)
            return self._doubled(call, record)
        finally:
            self.inside -= 1

    def _doubled(self, call: Call, record: Record) -> dict[str, Values]:
        values = call.inputs["x"]
        if isinstance(values, list):
            self.sizes.append(len(values))
            return {"y": values}
        self.sizes.append(len(values))
        if values.min() < 0:
            raise BadCall("take input x", "it is negative")
        if values.max() > 1e5:
            raise EngineFault("run the model", "it broke")
        record.count(SAMPLES, len(values))
        firsts = values.reshape(len(values), -1)[:, 0].astype(int).tolist()
        return {"y": values * 2, "n": [b"%d" % first for first in firsts]}

    def open_sequences(self) -> Collection[int | str]:
        return ()

    def golden_check(self) -> list[CheckResult]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def engine() -> Doubling:
    return Doubling()


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def batched(engine: Doubling, size: int = 8, delay_s: float = 0.0) -> BatchedInstance:
    return BatchedInstance(engine, {"x": {2}}, BatchPolicy(size, delay_s))


def call(*numbers: float, **options: Any) -> Call:
    """One row for each number."""
    return Call({"x": np.array(numbers, np.float32).reshape(-1, 1)}, **options)


def ask_while_busy(
    engine: Doubling, instance: BatchedInstance, pool: ThreadPoolExecutor, calls: list[Call],
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Future[dict[str, Values]]]:  # fmt: skip
    """Ask all of them, in this order, while the engine works on a call of its own; then let it go on."""
    record = Accounting().record()
    engine.free.clear()
    first = pool.submit(instance.answer, call(0.0), record)
    until(lambda: engine.inside == 1)
    asked = []
    for position, one in enumerate(calls):
        asked.append(pool.submit(instance.answer, one, record))
        until(lambda position=position: len(instance._line) == position + 1)
    meanwhile()
    engine.free.set()
    first.result(30)
    return asked


def instance_of(served: Served) -> Instance:
    seat = served._place.live.seating.seat
    assert seat is not None
    return seat.instance


def until(holds: Callable[[], bool]) -> None:
    """Come back as soon as something holds."""
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        threading.Event().wait(0.001)


def test_what_waits_while_the_engine_is_busy_runs_together(engine: Doubling, pool: ThreadPoolExecutor) -> None:
    instance = batched(engine)

    asked = ask_while_busy(engine, instance, pool, [call(1), call(2, 3), call(4)])

    answers = [future.result(30) for future in asked]
    assert engine.sizes == [1, 4]
    assert [one["y"].ravel().tolist() for one in answers] == [[2], [4, 6], [8]]
    assert [one["n"] for one in answers] == [[b"1"], [b"2", b"3"], [b"4"]]


def test_a_batch_never_exceeds_its_size_nor_what_the_variant_takes(engine: Doubling, pool: ThreadPoolExecutor) -> None:
    engine.variant = msgspec.structs.replace(engine.variant, batch=BatchSpec(max=3, dynamic=True))
    instance = batched(engine, size=8)

    asked = ask_while_busy(engine, instance, pool, [call(1, 2), call(3), call(4, 5), call(6, 7)])

    assert [future.result(30)["y"].ravel().tolist() for future in asked] == [[2, 4], [6], [8, 10], [12, 14]]
    assert engine.sizes == [1, 3, 2, 2]


def test_many_callers_at_once_get_each_their_own_rows(engine: Doubling, pool: ThreadPoolExecutor) -> None:
    instance = batched(engine, delay_s=0.0005)
    record = Accounting().record()

    def ask(caller: int) -> bool:
        right = True
        for number in range(40):
            numbers = [caller * 1000 + number * 10 + row for row in range(1 + (caller + number) % 3)]
            got = instance.answer(call(*numbers), record)["y"]
            right &= got.ravel().tolist() == [2 * one for one in numbers]
        return right

    assert all(pool.map(ask, range(16)))
    assert engine.most_inside == 1
    assert len(engine.sizes) < 16 * 40


def test_one_bad_call_gets_its_error_and_the_others_their_answers(engine: Doubling, pool: ThreadPoolExecutor) -> None:
    asked = ask_while_busy(engine, batched(engine), pool, [call(1), call(-1), call(3)])

    assert asked[0].result(30)["y"].tolist() == [[2]]
    with pytest.raises(BadCall, match="it is negative"):
        asked[1].result(30)
    assert asked[2].result(30)["y"].tolist() == [[6]]


def test_an_engine_that_fails_fails_all_of_its_batch_and_none_of_them_twice(
    engine: Doubling, pool: ThreadPoolExecutor
) -> None:
    asked = ask_while_busy(engine, batched(engine), pool, [call(1), call(1e6)])

    errors = [future.exception(30) for future in asked]
    assert [type(error) for error in errors] == [EngineFault, EngineFault]
    assert errors[0] is not errors[1]
    assert engine.sizes == [1, 2]


def test_a_call_whose_deadline_passes_in_the_line_never_reaches_the_engine(
    engine: Doubling, pool: ThreadPoolExecutor
) -> None:
    instance = batched(engine)

    def is_told_in_time() -> None:
        with pytest.raises(DeadlinePassed):
            instance.answer(call(2, deadline=time.monotonic() + 0.05), Accounting().record())
        assert engine.inside == 1  # a hanging engine would keep him for ever
        assert len(instance._line) == 2

    asked = ask_while_busy(engine, instance, pool, [call(1), call(3)], meanwhile=is_told_in_time)

    assert [one.result(30)["y"].tolist() for one in asked] == [[[2]], [[6]]]
    assert engine.sizes == [1, 2]


def test_the_urgent_go_first(engine: Doubling, pool: ThreadPoolExecutor) -> None:
    order: list[float] = []
    inner = engine._doubled
    engine._doubled = lambda asked, record: (order.extend(asked.inputs["x"].ravel().tolist()), inner(asked, record))[1]  # type: ignore[method-assign]

    asked = ask_while_busy(engine, batched(engine), pool, [call(1), call(2), call(3, priority=1)])

    for future in asked:
        future.result(30)
    assert order == [0, 3, 1, 2]


@pytest.mark.parametrize(
    "lonely",
    [
        Call({"x": [b"jpeg"]}),
        Call({"x": np.ones((1, 1), np.float32)}, sequence=SequenceStep(7)),
        Call({"x": np.ones((1, 1, 1), np.float32)}),
        call(*range(8)),
    ],
)
def test_what_cannot_be_put_together_runs_alone(engine: Doubling, pool: ThreadPoolExecutor, lonely: Call) -> None:
    asked = ask_while_busy(engine, batched(engine), pool, [call(1), lonely, call(2)])

    for future in asked:
        future.result(30)
    assert sorted(engine.sizes[1:]) == sorted([2, len(lonely.inputs["x"])])


def test_calls_that_want_other_outputs_run_apart(engine: Doubling, pool: ThreadPoolExecutor) -> None:
    asked = ask_while_busy(engine, batched(engine), pool, [call(1, outputs=("y",)), call(2), call(3, outputs=("y",))])

    for future in asked:
        future.result(30)
    assert engine.sizes == [1, 2, 1]


def test_calls_that_somebody_vouches_for_run_apart_from_those_of_strangers(
    engine: Doubling, pool: ThreadPoolExecutor
) -> None:
    known = [replace(call(number), is_vouched_for=True) for number in (2, 4)]
    asked = ask_while_busy(engine, batched(engine), pool, [call(1), known[0], call(3), known[1]])

    for future in asked:
        future.result(30)
    assert engine.sizes == [1, 2, 2]
    assert engine.vouched == [False, False, True]


def test_a_model_that_keeps_its_rows_together_is_asked_one_by_one_from_then_on(
    engine: Doubling, pool: ThreadPoolExecutor
) -> None:
    instance = batched(engine)
    engine._doubled = lambda asked, record: (engine.sizes.append(len(asked.inputs["x"])), {"y": np.ones((1, 1))})[1]  # type: ignore[method-assign]

    for numbers in ((1, 2), (3, 4)):
        asked = ask_while_busy(engine, instance, pool, [call(number) for number in numbers])
        assert [future.result(30)["y"].tolist() for future in asked] == [[[1]]] * 2

    assert engine.sizes == [1, 2, 1, 1, 1, 1, 1]


def test_a_model_that_refuses_batches_is_asked_one_by_one_from_then_on(
    engine: Doubling, pool: ThreadPoolExecutor
) -> None:
    told: list[str] = []
    instance = BatchedInstance(engine, {"x": {2}}, BatchPolicy(8), lambda: told.append("unbatched"))
    inner = engine._doubled

    def takes_one(asked: Call, record: Record) -> dict[str, Values]:
        if len(asked.inputs["x"]) > 1:
            engine.sizes.append(len(asked.inputs["x"]))
            raise BadInput("take input x", "it has several rows")
        return inner(asked, record)

    engine._doubled = takes_one  # type: ignore[method-assign]
    for numbers in ((1, -2), (1, 2), (3, 4)):
        asked = ask_while_busy(engine, instance, pool, [call(number) for number in numbers])
        assert [future.exception(30) is None for future in asked] == [number > 0 for number in numbers]

    assert engine.sizes == [1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1], "the first time somebody was to blame"
    assert told == ["unbatched"]


def test_who_is_interrupted_while_he_runs_a_batch_leaves_nobody_waiting(
    engine: Doubling, pool: ThreadPoolExecutor
) -> None:
    inner = engine._doubled

    def interrupted(asked: Call, record: Record) -> dict[str, Values]:
        if len(asked.inputs["x"]) > 1:
            raise KeyboardInterrupt
        return inner(asked, record)

    engine._doubled = interrupted  # type: ignore[method-assign]
    instance = batched(engine)

    asked = ask_while_busy(engine, instance, pool, [call(1), call(2)])

    assert {type(future.exception(30)) for future in asked} == {KeyboardInterrupt, Cancelled}
    assert instance.answer(call(3), Accounting().record())["y"].tolist() == [[6]]


def test_a_full_batch_does_not_wait_for_the_delay(engine: Doubling, pool: ThreadPoolExecutor) -> None:
    instance = batched(engine, size=4, delay_s=60.0)
    record = Accounting().record()

    asked = [pool.submit(instance.answer, call(number), record) for number in range(4)]

    assert [future.result(30)["y"].tolist() for future in asked] == [[[0]], [[2]], [[4]], [[6]]]
    assert engine.sizes == [4]


def test_a_host_shows_that_several_calls_cost_one_run(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    release = write_probe(tmp_path)
    inputs = [probe_input(seed) for seed in range(4)]
    with ModelHost(batching={"probe": BatchPolicy(4, 30.0)}) as host:
        served = host.load(release)
        replies = list(pool.map(lambda values: served.call(Call({"x": values})), inputs))
        statistics = served.statistics()

    for values, reply in zip(inputs, replies, strict=True):
        assert np.allclose(reply.tensors["y"], values.mean((2, 3)), atol=1e-4)
    assert (statistics.success.count, statistics.inference_count, statistics.execution_count) == (4, 4, 1)
    assert statistics.queue.ns > 0


def pictures(*brightest: int, outputs: tuple[str, ...] = ("logits", "classes"), **options: Any) -> Call:
    """Encoded pictures, one for each number."""
    return Call({"image": [png(number) for number in brightest]}, outputs, **options)


def said(tensors: dict[str, Values]) -> tuple[list[int], list[int]]:
    """What the logits say, and what the documents say."""
    logits, documents = tensors["logits"], tensors["classes"]
    assert not isinstance(logits, list)
    assert isinstance(documents, list)
    return logits.argmax(1).tolist(), [json.loads(one)[0]["index"] for one in documents]


@pytest.fixture
def free_pixels(tmp_path: Path) -> Path:
    """The four-pixel classifier with a free number of samples."""
    write_pixels(tmp_path / "pixels", "1.0.0", builds=[Build("ort-fp32", samples=8)])
    return tmp_path / "pixels"


def test_encoded_pictures_of_several_callers_run_together(free_pixels: Path, pool: ThreadPoolExecutor) -> None:
    with ModelHost(batching={"pixels": BatchPolicy(5, 30.0)}) as host:
        served = host.load(free_pixels)
        calls = [pictures(3), pictures(0, 2), pictures(1), pictures(2, outputs=("logits",))]
        replies = [reply.tensors for reply in pool.map(served.call, calls)]
        statistics = served.statistics()

    assert [said(tensors) for tensors in replies[:3]] == [([3], [3]), ([0, 2], [0, 2]), ([1], [1])]
    assert (replies[3].keys(), replies[3]["logits"].argmax()) == ({"logits"}, 2)  # type: ignore[union-attr]
    assert (statistics.inference_count, statistics.execution_count) == (5, 1)


@pytest.mark.parametrize("kind", ["arrays", "pictures"])
def test_a_variant_whose_answers_do_not_follow_its_rows_is_found_out_once(
    tmp_path: Path, pool: ThreadPoolExecutor, kind: str
) -> None:
    write_pixels(tmp_path, "1.0.0", builds=[Build("ort-fp32", samples=8, content=averaging_classifier())])
    events: list[Event] = []

    with ModelHost(batching={"pixels": BatchPolicy(2, 30.0)}, on_event=events.append) as host:
        served = host.load(tmp_path)

        def answers(*brightest: int) -> list[int]:
            calls = [pictures(one) if kind == "pictures" else about(one) for one in brightest]
            replies = pool.map(served.call, calls)
            return [int(np.argmax(reply.tensors["logits"])) for reply in replies]

        together = answers(3, 1)
        afterwards = answers(2, 0)
        served._place.live.seating.vacate()
        loaded_again = answers(1, 2)
        statistics = served.statistics()

    assert (together, afterwards, loaded_again) == ([3, 1], [2, 0], [1, 2])
    # The runs of arrays that nobody was answered by are counted as well.
    assert (statistics.inference_count, statistics.execution_count) == (6, 7 if kind == "arrays" else 5)
    learned = [event for event in events if event.what is Happened.UNBATCHED]
    assert [(event.model, event.variant) for event in learned] == [("pixels", "ort-fp32")]


def test_a_picture_that_cannot_be_read_hurts_nobody_else(free_pixels: Path, pool: ThreadPoolExecutor) -> None:
    with ModelHost(batching={"pixels": BatchPolicy(3, 30.0)}) as host:
        served = host.load(free_pixels)
        good = [pool.submit(served.call, pictures(number)) for number in (1, 3)]
        for broken in ([b"no picture"], [png(0), b""]):
            with pytest.raises(BadInput):
                served.call(Call({"image": broken}, ("logits",)))
        good.append(pool.submit(served.call, pictures(2)))
        answers = [said(future.result(30).tensors) for future in good]
        statistics = served.statistics()

    assert answers == [([1], [1]), ([3], [3]), ([2], [2])]
    assert (statistics.success.count, statistics.execution_count) == (3, 1)


def test_pictures_that_wait_for_a_batch_are_kept_as_what_the_engine_is_fed(
    free_pixels: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Preprocessor.decode
    decoded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def watched(self: Preprocessor, inputs: Inputs) -> Any:
        found = decode(self, inputs)
        decoded.append(weakref.ref(found["image"]))
        alive.append(sum(one() is not None for one in decoded))
        return found

    with ModelHost(batching={"pixels": BatchPolicy(8, 30.0)}) as host:
        served = host.load(free_pixels)
        instance = instance_of(served)
        assert isinstance(instance, BatchedInstance)
        monkeypatch.setattr(Preprocessor, "decode", watched)
        replies = list(pool.map(served.call, [pictures(number % 4) for number in range(8)]))

    assert [said(reply.tensors)[1] for reply in replies] == [[number % 4] for number in range(8)]
    assert len(decoded) == 8
    assert max(alive) <= instance._inner.slots + 1


def test_the_pictures_of_one_call_are_one_run(free_pixels: Path) -> None:
    with ModelHost(batching={"pixels": BatchPolicy(4)}) as host:
        served = host.load(free_pixels)
        one_run = said(served.call(pictures(3, 1, 0, 2)).tensors)
        runs = served.statistics().execution_count
        more_than_a_batch = said(served.call(pictures(3, 1, 0, 2, 1)).tensors)

    assert one_run == ([3, 1, 0, 2], [3, 1, 0, 2])
    assert runs == 1
    assert more_than_a_batch == ([3, 1, 0, 2, 1], [3, 1, 0, 2, 1])


def test_a_picture_whose_deadline_passes_in_the_line_is_not_run(free_pixels: Path) -> None:
    with ModelHost(batching={"pixels": BatchPolicy(4)}) as host:
        served = host.load(free_pixels)
        with pytest.raises(DeadlinePassed):
            served.call(pictures(1, deadline=time.monotonic()))

        assert served.statistics().execution_count == 0


def test_a_picture_whose_deadline_passes_while_others_are_decoded_is_not_decoded(
    free_pixels: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Preprocessor.decode
    is_first, ends = threading.Event(), threading.Event()
    decoded: list[Inputs] = []

    def slow(self: Preprocessor, inputs: Inputs) -> Any:
        decoded.append(inputs)
        is_first.set()
        assert ends.wait(60)
        return decode(self, inputs)

    with ModelHost(batching={"pixels": BatchPolicy(4)}) as host:
        served = host.load(free_pixels)
        instance = instance_of(served)
        assert isinstance(instance, BatchedInstance)
        instance._decoding = threading.BoundedSemaphore(1)
        monkeypatch.setattr(Preprocessor, "decode", slow)
        first = pool.submit(served.call, pictures(1))
        assert is_first.wait(60)
        deadline = time.monotonic() + 0.1
        late = pool.submit(served.call, pictures(2, deadline=deadline))
        while served._place.live.seating.seat.admission.running < 2 or time.monotonic() < deadline:
            pass
        ends.set()

        with pytest.raises(DeadlinePassed):
            late.result(60)
        assert said(first.result(60).tensors) == ([1], [1])
        assert served.statistics().expired == 1
    assert len(decoded) == 1


def test_without_a_wish_calls_are_gathered_as_it_was_tuned_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_probe(tmp_path / "release")
    tuned_here(release, tmp_path / "edgefleet", threads=2, batch=4)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    with ModelHost() as host:
        instance, tuned = instance_of(host.load(release)), host.find("probe").tuned

    assert isinstance(instance, BatchedInstance)
    assert instance._policy == BatchPolicy(4)
    assert tuned is not None
    assert (tuned.threads, tuned.batch) == (None, 4), "its variant fixes the threads"


@pytest.mark.parametrize(("threads", "left"), [(2, (2, None)), (None, None)])
def test_of_what_was_tuned_a_variant_that_takes_no_batch_after_all_shows_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None, left: tuple[int, None] | None
) -> None:
    release = tmp_path / "release"
    write_pixels(release, "1.0.0", builds=[Build("ort-fp32", samples=8, content=averaging_classifier())])
    tuned_here(release, tmp_path / "edgefleet", threads=threads, batch=4)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    with ModelHost() as host:
        served = host.load(release)
        before = served.tuned
        instance_of(served)._ask_alone()
        after = served.tuned

    assert before is not None
    assert (before.threads, before.batch) == (threads, 4)
    assert (after and (after.threads, after.batch)) == left


@pytest.mark.parametrize(
    ("batching", "policy"),
    [({"*": ALONE}, None), ({"probe": ALONE}, None), ({"probe": BatchPolicy(2)}, BatchPolicy(2)),
     ({"*": BatchPolicy(8, 0.001)}, BatchPolicy(8, 0.001)), ({"probe": ALONE, "*": BatchPolicy(8)}, None)],
)  # fmt: skip
def test_what_an_operator_wishes_goes_before_what_was_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batching: dict[str, BatchPolicy], policy: BatchPolicy | None
) -> None:
    release = write_probe(tmp_path / "release")
    tuned_here(release, tmp_path / "edgefleet", threads=None, batch=4)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    with ModelHost(batching=batching) as host:
        instance, tuned = instance_of(host.load(release)), host.find("probe").tuned

    assert tuned is None
    assert getattr(instance, "_policy", None) == policy


def test_a_model_that_is_asked_sample_by_sample_cannot_be_named_for_batching(tmp_path: Path) -> None:
    write_pixels(tmp_path, "1.0.0")
    with (
        ModelHost(batching={"pixels": BatchPolicy(4)}) as named,
        ModelHost(batching={"*": BatchPolicy(4)}) as any_model,
    ):
        with pytest.raises(ContractError, match="build it with a free batch axis"):
            named.load(tmp_path)

        assert any_model.load(tmp_path).name == "pixels"


def test_a_model_that_remembers_is_served_unbatched_and_cannot_be_named_for_batching(tmp_path: Path) -> None:
    Hearing().write(tmp_path)
    with (
        ModelHost(batching={"*": BatchPolicy(4)}) as any_model,
        ModelHost(batching={"listener": BatchPolicy(4)}) as named,
    ):
        served = any_model.load(tmp_path, name="listener")
        with pytest.raises(ContractError, match="batch the calls of model listener: it keeps states"):
            named.load(tmp_path, name="listener")

        assert [one.name for one in any_model.models()] == ["listener"]
        assert not isinstance(instance_of(served), BatchedInstance)
