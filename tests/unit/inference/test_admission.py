"""The waiting line of a model: who may run, in which order, and who never does."""

from __future__ import annotations

import inspect
import math
import pickle
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_runtime.inference.requests.accounting import Accounting
from edge_runtime.inference.requests.admission import Admission
from edge_runtime.inference.requests.refusals import Cancelled, Closed, DeadlinePassed, Overloaded, Refused
from edge_runtime.inference.requests.statistics import statistics_of

FAR_S = 60.0


class Line:
    """An admission with all slots taken, and what became of the work submitted to it."""

    def __init__(self, slots: int = 1, queue_limit: int = 100) -> None:
        self.accounting = Accounting()
        self.admission = Admission(slots, queue_limit, self.accounting)
        self.done: list[object] = []
        for _ in range(slots):
            self.admission.enter()

    def submit(self, name: str, *, deadline: float | None = None, priority: int = 0):
        return self.admission.submit(
            lambda: self.done.append(name),
            refuse=lambda refusal: self.done.append((name, refusal.code)),
            deadline=deadline,
            priority=priority,
        )

    def free(self) -> None:
        self.admission.leave()
        assert self.admission.wait_idle(FAR_S)


def test_urgent_work_runs_first_and_equal_work_in_order_of_arrival() -> None:
    line = Line()
    for name, priority in [("a", 0), ("b", 0), ("urgent", 5), ("c", 0), ("idle", -1)]:
        line.submit(name, priority=priority)

    line.free()

    assert line.done == ["urgent", "a", "b", "c", "idle"]


def test_work_whose_deadline_passes_in_the_line_never_runs_and_is_counted() -> None:
    line = Line()
    line.submit("late", deadline=time.monotonic() + 0.001)
    line.submit("patient", deadline=time.monotonic() + FAR_S)
    while time.monotonic() < line.admission.soonest + 0.001:  # type: ignore[operator]
        pass

    line.free()

    assert line.done == [("late", "deadline"), "patient"]
    assert statistics_of(line.accounting).expired == 1


def test_a_deadline_in_the_past_is_refused_at_once_even_where_a_slot_is_free() -> None:
    admission = Admission(1, 10)

    with pytest.raises(DeadlinePassed):
        admission.enter(deadline=time.monotonic())
    with pytest.raises(DeadlinePassed):
        admission.submit(lambda: None, refuse=lambda _: None, deadline=0.0)

    assert admission.running == 0


def test_a_deadline_that_is_no_number_has_passed() -> None:
    line = Line()

    with pytest.raises(DeadlinePassed):
        line.admission.enter(deadline=math.nan)
    with pytest.raises(DeadlinePassed):
        line.submit("x", deadline=math.nan)

    assert line.admission.waiting == 0


def test_a_thread_stops_waiting_at_its_deadline() -> None:
    line = Line()

    with pytest.raises(DeadlinePassed):
        line.admission.enter(deadline=time.monotonic() + 0.01)

    assert line.admission.waiting == 0
    assert statistics_of(line.accounting).expired == 1


def test_cancelled_work_never_runs_and_says_so_once() -> None:
    line = Line()
    ticket = line.submit("withdrawn")

    assert ticket.cancel()
    assert not ticket.cancel()
    line.free()

    assert line.done == [("withdrawn", "cancelled")]
    assert statistics_of(line.accounting).cancelled == 1


def test_work_that_has_run_cannot_be_cancelled() -> None:
    line = Line()
    ticket = line.submit("done")
    line.free()

    assert not ticket.cancel()
    assert line.done == ["done"]


def test_a_full_line_refuses_with_a_hint_when_to_come_again() -> None:
    line = Line(queue_limit=2)
    line.submit("a")
    line.submit("b")

    with pytest.raises(Overloaded, match="2 requests wait already") as caught:
        line.submit("c")
    with pytest.raises(Overloaded):
        line.admission.enter()

    assert caught.value.retry_after_s > 0
    line.free()
    assert line.done == ["a", "b"]
    assert statistics_of(line.accounting).rejected == 2


def test_those_who_are_late_make_room_in_a_full_line() -> None:
    line = Line(queue_limit=1)
    line.submit("late", deadline=time.monotonic() + 0.001)
    while time.monotonic() < line.admission.soonest + 0.001:  # type: ignore[operator]
        pass

    line.submit("next")
    line.free()

    assert line.done == [("late", "deadline"), "next"]


def test_withdrawn_work_does_not_pile_up_while_the_model_is_busy() -> None:
    line = Line(queue_limit=4)

    for _ in range(100):
        line.submit("x").cancel()

    assert len(line.admission.line) <= 9


def test_withdrawn_work_is_let_go_of_at_once() -> None:
    line = Line()

    def work() -> None: ...

    def refuse(_: Refused) -> None: ...

    kept = [weakref.ref(work), weakref.ref(refuse)]
    ticket = line.admission.submit(work, refuse=refuse)
    del work, refuse

    assert ticket.cancel()
    assert [one() for one in kept] == [None, None]


def test_closing_refuses_whoever_waits_and_whoever_comes_but_not_who_runs() -> None:
    line = Line()
    line.submit("waiting")
    refused: list[Refused] = []

    def wait() -> None:
        try:
            line.admission.enter()
        except Refused as refusal:
            refused.append(refusal)

    thread = threading.Thread(target=wait)
    thread.start()
    while line.admission.waiting < 2:
        pass
    line.admission.close()
    thread.join()

    assert line.done == [("waiting", "closed")]
    assert [type(one) for one in refused] == [Closed]
    with pytest.raises(Closed):
        line.admission.enter()
    assert line.admission.running == 1
    line.admission.leave()
    with pytest.raises(Closed):
        line.admission.enter()


def test_closing_while_a_turn_is_handed_over_loses_neither_the_turn_nor_its_slot() -> None:
    admission = Admission(1, 10)
    resting, closed, ran = threading.Event(), threading.Event(), threading.Event()

    def rest() -> None:
        resting.set()
        assert closed.wait(FAR_S)

    # A worker that has given its slot back, and is held before it looks for more work.
    admission.submit(lambda: admission.on_idle(rest), refuse=lambda _: None)
    assert resting.wait(FAR_S)
    admission.enter()
    deadline = time.monotonic() + 0.001
    admission.submit(lambda: None, refuse=lambda _: admission.close(), deadline=deadline, priority=1)
    admission.submit(ran.set, refuse=lambda _: None)
    while time.monotonic() < deadline:
        pass

    # The late one closes the line after the other was granted the slot, and before a worker has it.
    admission.leave()
    closed.set()

    assert ran.wait(5)
    assert admission.wait_idle(FAR_S)


def test_a_system_without_threads_refuses_work_and_keeps_no_slot(monkeypatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    line = Line()
    line.submit("a")
    line.submit("b")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        line.free()
        with pytest.raises(Overloaded):
            line.submit("c")
    line.submit("d")

    assert line.admission.wait_idle(5)
    assert line.done == [("a", "overloaded"), ("b", "overloaded"), "d"]
    assert statistics_of(line.accounting).rejected == 3


def test_an_interrupt_as_soon_as_a_slot_is_taken_loses_none() -> None:
    admission = Admission(1, 10)
    take = admission.take

    def interrupted() -> None:
        take()
        raise KeyboardInterrupt

    admission.take = interrupted
    with pytest.raises(KeyboardInterrupt):
        admission.enter()
    admission.take = take
    admission.enter()

    assert admission.running == 1


def test_an_interrupt_as_soon_as_a_waiter_finds_a_slot_loses_none() -> None:
    admission = Admission(1, 10)
    take = admission.take
    tries = [IndexError, KeyboardInterrupt]

    def interrupted() -> None:
        if (error := tries.pop(0)) is KeyboardInterrupt:
            take()
        raise error

    admission.take = interrupted
    with pytest.raises(KeyboardInterrupt):
        admission.enter()

    assert (admission.running, admission.waiting) == (0, 0)


def test_giving_a_slot_back_is_one_step_that_nothing_can_split() -> None:
    assert inspect.isbuiltin(Admission(1, 1).give_back)


def test_a_waiter_finds_a_slot_whose_giver_was_interrupted_before_he_could_say_so() -> None:
    line = Line()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(line.admission.enter)
        while not line.admission.waiting:
            pass

        line.admission.give_back(None)

        assert waiting.result(FAR_S) is None


def test_the_end_of_the_last_call_is_told_once() -> None:
    line = Line(slots=2)
    told: list[str] = []
    line.admission.on_idle(lambda: told.append("idle"))

    line.admission.leave()
    assert told == []
    line.admission.leave()
    line.admission.enter()
    line.admission.leave()

    assert told == ["idle"]


def test_work_that_raises_takes_no_worker_from_the_others(monkeypatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_type))
    line = Line()

    line.admission.submit(lambda: 1 // 0, refuse=lambda _: None)
    line.submit("after")
    line.free()

    assert line.done == ["after"]
    assert seen == [ZeroDivisionError]


@pytest.mark.parametrize("seed", range(3))
def test_under_many_threads_every_request_ends_once_and_never_more_run_than_slots(seed: int) -> None:
    slots, requests = 3, 400
    admission = Admission(slots, 40)
    chance = random.Random(seed)
    plans = [(chance.random(), chance.random() * 0.002, chance.randint(0, 2)) for _ in range(requests)]
    ends: list[int] = []
    inside: list[int] = []
    most: list[int] = []

    def body() -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    def ask(number: int) -> None:
        kind, wait_s, priority = plans[number]
        deadline = time.monotonic() + wait_s if kind < 0.5 else None
        try:
            if number % 2:
                admission.enter(deadline, priority)
                try:
                    body()
                finally:
                    admission.leave()
                ends.append(number)
            else:
                ticket = admission.submit(
                    lambda: (body(), ends.append(number)),
                    refuse=lambda _: ends.append(number),
                    deadline=deadline,
                    priority=priority,
                )
                if kind > 0.9:
                    ticket.cancel()
        except Refused:
            ends.append(number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(requests)))
    assert admission.wait_idle(FAR_S)

    assert sorted(ends) == list(range(requests))
    assert max(most) <= slots
    assert (admission.running, admission.waiting) == (0, 0)
    admission.close()


@pytest.mark.parametrize("refusal", [DeadlinePassed(), Cancelled(), Overloaded(3, 0.5), Closed()])
def test_a_refusal_crosses_a_process_border_unchanged(refusal: Refused) -> None:
    again = pickle.loads(pickle.dumps(refusal))

    assert (type(again), str(again), again.code) == (type(refusal), str(refusal), refusal.code)
