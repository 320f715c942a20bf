"""What the agent costs before a model is loaded, beside the bare imports that any program on the device pays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.figures import ratio, spread, table
from tests.fakes.agents import RunningAgent, running_fleet

ROUNDS = 5
_TICKS = os.sysconf("SC_CLK_TCK")
_WAKES_HZ = 6
"""Of the agent's loops together."""
_SLEEPER = f"import time\nwhile True: time.sleep({1 / _WAKES_HZ})"
_SCRIPTS = {
    "bare Python": "",
    "`import numpy, onnxruntime`": "import numpy, onnxruntime\n",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """One start, up to the moment the program is ready."""

    wall_s: float
    cpu_s: float
    """Own and ended children's."""
    pss_mib: float
    """Memory, with shared pages divided among those who share them."""


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    costs: dict[str, list[Cost]] = {name: [] for name in (*_SCRIPTS, "agent, connected, no model")}
    with tempfile.TemporaryDirectory() as folder, running_fleet(Path(folder)) as fleet:
        agent = fleet.agent("bench")
        _measure_agent(agent)  # enrols; not counted
        for _ in range(ROUNDS):
            for name, script in _SCRIPTS.items():
                costs[name].append(_measure_script(script))
            costs["agent, connected, no model"].append(_measure_agent(agent))
        idle = _idle_cpu(agent)
    base = costs["`import numpy, onnxruntime`"]
    rows = [
        [
            name,
            spread([one.pss_mib for one in found], "MiB", 1),
            ratio(median(one.pss_mib for one in found), median(one.pss_mib for one in base)),
            spread([one.cpu_s * 1000 for one in found], "ms CPU"),
            ratio(median(one.cpu_s for one in found), median(one.cpu_s for one in base)),
            spread([one.wall_s * 1000 for one in found], "ms"),
        ]
        for name, found in costs.items()
    ]
    return [
        "## The agent before it has a model",
        "",
        "Memory is PSS. The agent counts as started when the broker has taken its birth: keys read, state opened,",
        "TLS to server and broker up, engines probed in a child process (whose CPU time is included).",
        f"Taken in turns, {ROUNDS} rounds, median (lowest to highest).",
        "",
        *table(["program", "memory", "to imports", "CPU until ready", "to imports", "time until ready"], rows),
        "",
        f"An idle agent that asks its server every 30 s used {idle[0]:.1f} ms of CPU per second; beside it, a bare",
        f"Python that only wakes as often ({_WAKES_HZ} times a second) used {idle[1]:.1f} ms:",
        f"{ratio(idle[0], idle[1])}.",
    ]


def _measure_script(script: str) -> Cost:
    code = script + "import sys; sys.stdout.write('ready'); sys.stdout.flush(); sys.stdin.read()"
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.read(5)
        return _cost(process.pid, began)
    finally:
        process.kill()
        process.communicate()


def _measure_agent(agent: RunningAgent) -> Cost:
    born = len(agent.events("agent.announced"))
    began = time.monotonic()
    agent.start()
    try:
        _poll(lambda: len(agent.events("agent.announced")) > born)
        return _cost(agent.pid, began)
    finally:
        agent.stop()


def _idle_cpu(agent: RunningAgent, for_s: float = 10.0) -> tuple[float, float]:
    """CPU milliseconds per second of an agent with nothing to do, and of a program that only wakes as often."""
    agent.config.write_text(agent.config.read_text().replace("poll_interval_s = 0.5", "poll_interval_s = 30.0"))
    born = len(agent.events("agent.announced"))
    agent.start()
    try:
        _poll(lambda: len(agent.events("agent.announced")) > born)
        with subprocess.Popen([sys.executable, "-c", _SLEEPER]) as sleeper:
            time.sleep(2.0)
            pids = (agent.pid, sleeper.pid)
            began, used = time.monotonic(), [_cpu_s(pid) for pid in pids]
            time.sleep(for_s)
            took_s = time.monotonic() - began
            ours, bare = ((_cpu_s(pid) - before) / took_s * 1000 for pid, before in zip(pids, used, strict=True))
            sleeper.kill()
        return ours, max(bare, 0.1)
    finally:
        agent.stop()


def _poll(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError("the agent did not announce itself in time")
        time.sleep(0.005)


def _cost(pid: int, began: float) -> Cost:
    wall_s = time.monotonic() - began
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss_kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return Cost(wall_s, _cpu_s(pid), pss_kib / 1024)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS
