"""The demo's stage: whatever happens, nothing is left on it."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from examples.fleet_on_a_laptop.stage import Stage


class InterruptedStage(Stage):
    """Interrupted at the worst moment: the child runs, and is in nobody's books yet."""

    started: subprocess.Popen[bytes]

    def _popen(self, *arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        self.started = super()._popen(*arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return self.started


@pytest.mark.parametrize("start", [Stage.begin, Stage.launch])
def test_a_process_that_an_interrupt_meets_while_it_starts_ends_with_the_others(start: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    stage = InterruptedStage()

    with pytest.raises(KeyboardInterrupt), stage:
        start(stage, "sleeper", "timeit", "-n", "1", "import time; time.sleep(600)")

    assert stage.started.returncode is not None
    assert not stage.folder.exists()
    assert signal.getsignal(signal.SIGINT) is before
