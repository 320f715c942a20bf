"""Work that nobody waits for: it is done in its time, whether or not there is a thread for it when it comes up."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from edge_runtime.serving.caretaker import Caretaker
from tests.unit.serving.threads import no_threads

PATIENCE_S = 60


@pytest.fixture
def done() -> SimpleQueue[str]:
    return SimpleQueue()


def test_jobs_run_in_threads_of_their_own_in_the_order_of_their_time(done: SimpleQueue[str]) -> None:
    caretaker, hangs = Caretaker(), threading.Event()

    caretaker.soon(hangs.wait)
    caretaker.after(0.1, lambda: done.put("late"))
    caretaker.after(0.05, lambda: done.put("early"))
    caretaker.soon(lambda: done.put("now"))

    assert [done.get(timeout=PATIENCE_S) for _ in range(3)] == ["now", "early", "late"]
    hangs.set()


def test_what_waits_is_forgotten_with_its_owner_and_nobody_elses(done: SimpleQueue[str]) -> None:
    closing, other = Caretaker(), Caretaker()
    closing.after(0.0, lambda: done.put("before"))
    assert done.get(timeout=PATIENCE_S) == "before"
    closing.after(0.2, lambda: done.put("forgotten"))
    other.after(0.3, lambda: done.put("other"))

    closing.close()
    closing.after(0.0, lambda: done.put("too late"))
    closing.soon(lambda: done.put("at once"))

    assert [done.get(timeout=PATIENCE_S) for _ in range(2)] == ["at once", "other"]


def test_a_job_for_which_there_is_no_thread_gets_one_when_there_is(done: SimpleQueue[str]) -> None:
    caretaker = Caretaker()

    with no_threads():
        caretaker.soon(lambda: done.put("soon"))
        caretaker.close()
        assert done.empty()

    assert done.get(timeout=PATIENCE_S) == "soon"
