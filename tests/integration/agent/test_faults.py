"""Killed, stopped, cut off: a device always comes back to where it was, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.agents import Fleet, RunningAgent, children, is_alive, wait_value

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
# A trial may be over in a fifth of a second.
_OFTEN_S = 0.01


def test_an_agent_that_is_killed_in_every_state_still_confirms(fleet: Fleet, release: Path, pictures: Path) -> None:
    # Slow enough for a kill to land in the middle of each step: once admitted, its first blob is on the way.
    agent = fleet.agent("unlucky", source=pictures, link_bytes_per_s=3000).start()
    agent.wait_event("agent.announced")
    seq = fleet.assign("unlucky", release, soak_s=5.0)

    for moment in (_in("offered"), _in("admitted"), _trying, _in("soaking"), _in("confirmed")):
        wait_value(f"the agent reaches its state: {moment}", lambda now=moment: now(agent), _OFTEN_S)
        agent.stop(signal.SIGKILL)
        agent.start()

    reported = fleet.wait_state("unlucky", "confirmed", seq)
    assert reported["running"]["seq"] == seq
    born = len(agent.events("agent.announced"))
    agent.wait_event("agent.announced", born)
    wait_value("it measures again", lambda: fleet.summaries("unlucky"))


def test_a_stopped_agent_says_goodbye_and_leaves_no_process_even_in_a_trial(fleet: Fleet, release: Path) -> None:
    agent = fleet.agent("polite").start()
    agent.wait_event("agent.announced")
    seq = fleet.assign("polite", release)
    trial = wait_value("a trial process", lambda: _trial_of(agent), _OFTEN_S)

    assert agent.stop() == 0

    assert not is_alive(trial)
    fleet.wait_connection("polite", "disconnected")
    agent.start()
    fleet.wait_state("polite", "confirmed", seq)
    assert not agent.events("slot.moved", after="failed")


def test_a_killed_agent_leaves_no_trial_behind_and_is_reported_lost(fleet: Fleet, release: Path) -> None:
    agent = fleet.agent("mourned").start()
    agent.wait_event("agent.announced")
    fleet.assign("mourned", release)
    trial = wait_value("a trial process", lambda: _trial_of(agent), _OFTEN_S)

    agent.stop(signal.SIGKILL)

    wait_value("the trial process ends", lambda: not is_alive(trial))
    fleet.wait_connection("mourned", "lost")


def test_a_device_goes_on_through_the_death_of_broker_and_server_and_loses_no_sample(
    fleet: Fleet, release: Path, pictures: Path
) -> None:
    agent = fleet.agent("patient", source=pictures).start()
    agent.wait_event("agent.announced")
    fleet.wait_state("patient", "confirmed", fleet.assign("patient", release))

    os.kill(fleet.broker_pid(), signal.SIGKILL)
    agent.wait_event("agent.announced", 2)
    fleet.server.stop(signal.SIGKILL)
    agent.wait_event("assignments.unavailable")
    fleet.server.start()
    agent.wait_event("agent.announced", 3)

    fleet.wait_state("patient", "confirmed", fleet.assign("patient", release))
    assert len(agent.events("agent.started")) == 1
    assert agent.stop() == 0
    assert fleet.missing_samples("patient") == 0


def test_a_device_that_lost_a_thread_ends_with_one_sentence_instead_of_answering_half(
    fleet: Fleet, pictures: Path
) -> None:
    agent = fleet.agent("halved", source=pictures)
    broken = (
        "import sys\n"
        "from edge_runtime.agent import __main__, source\n"
        "def odd(self): raise RuntimeError('nobody thought of this')\n"
        "source.FolderSource._run = odd\n"
        "sys.exit(__main__.main())"
    )
    command = [sys.executable, "-c", broken, "--config", str(agent.config), "--source", str(pictures)]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("edge-runtime: cannot go on: the thread 'source' ended by an error that is in the log;")
    assert "nobody thought of this" in ended.stderr


def _in(state: str) -> Callable[[RunningAgent], bool]:
    return lambda agent: bool(agent.events("slot.moved", after=state))


def _trying(agent: RunningAgent) -> bool:
    return _trial_of(agent) is not None


def _trial_of(agent: RunningAgent) -> int | None:
    """The agent's trial process, while there is one."""
    for child in children(agent.pid):
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"edge_runtime.agent.trial_process" in words:
            return child
    return None
