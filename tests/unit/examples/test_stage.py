"""The demo's stage: whatever happens, nothing is left on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, as the demo is: it interrupts itself, and forks where no engine has threads under way.
PROGRAM = """
import signal, sys
from examples.fleet_on_a_laptop.stage import Stage

class InterruptedStage(Stage):
    # At the worst moment: the child runs, and is in nobody's books yet.
    def _popen(self, *arguments, **options):
        self.started = super()._popen(*arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return self.started

signal.signal(signal.SIGINT, signal.default_int_handler)
stage = InterruptedStage()
try:
    with stage:
        getattr(stage, sys.argv[1])("sleeper", "timeit", "-n", "1", "import time; time.sleep(600)")
except KeyboardInterrupt:
    ended, tidy = stage.started.returncode is not None, not stage.folder.exists()
    print(ended, tidy, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize("start", ["begin", "launch"])
def test_a_process_that_an_interrupt_meets_while_it_starts_ends_with_the_others(start: str) -> None:
    command = [sys.executable, "-c", PROGRAM, start]

    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, cwd=Path(__file__).parents[3]
    )

    assert finished.stdout.split() == ["True", "True", "True"]
