"""What a signal's handler may do to the thread that it interrupts."""

from __future__ import annotations

import threading

from edge_runtime.interrupt import Ending, wait_for

PATIENCE_S = 30


def test_an_event_that_is_set_where_the_same_thread_holds_its_lock_ends_the_wait() -> None:
    ending = Ending()

    def interrupted() -> None:
        with ending._cond:  # as everywhere in `wait`, where a handler may come between
            ending.set()
        wait_for(ending)

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
