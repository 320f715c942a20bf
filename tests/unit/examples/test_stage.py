"""The demo's stage: whatever happens, nothing is left on it."""

from __future__ import annotations

import contextlib
import signal

import pytest

from examples.fleet_on_a_laptop.stage import Stage


def play_interrupted(stage: Stage) -> None:
    with stage:
        # As Python does with what a handler raises while it forks.
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stage.launch("sleeper", "timeit", "-n", "1", "import time; time.sleep(600)")


def test_an_interrupt_that_was_dropped_in_the_middle_of_a_fork_is_obeyed_after_it() -> None:
    before = signal.getsignal(signal.SIGINT)

    stage = Stage()

    with pytest.raises(KeyboardInterrupt):
        play_interrupted(stage)

    assert not stage.folder.exists()
    assert not stage._working
    assert signal.getsignal(signal.SIGINT) is before
