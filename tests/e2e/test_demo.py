"""The demo plays through with every defence on, and fails with any one of them off."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.fleet_on_a_laptop.demo import Demo
from examples.fleet_on_a_laptop.fleet import DEVICES
from examples.fleet_on_a_laptop.narration import Narrator
from examples.fleet_on_a_laptop.releases import BuiltRelease
from examples.fleet_on_a_laptop.stage import DemoFailure, Stage
from tests.fakes.digits import build_all

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three releases, built once for all plays."""
    return build_all(tmp_path_factory.mktemp("built"))


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    """The demo as `make demo` starts it."""
    command = [sys.executable, "-m", "examples.fleet_on_a_laptop", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False, cwd=ROOT, env=environment)


@contextmanager
def after_act_3(
    built: Path, *, unsafe: Sequence[str], unsafe_devices: Sequence[str], broker: str
) -> Iterator[tuple[Demo, BuiltRelease]]:
    """A fleet of one device that has confirmed release 1, with some defences off; and release 1."""
    with Stage() as stage:
        demo = Demo(
            stage,
            Narrator(),
            devices=DEVICES[:1],
            broker=broker,
            unsafe=unsafe,
            unsafe_devices=unsafe_devices,
            built=built,
        )
        first = demo.convert()
        demo.start()
        demo.first_release(first)
        yield demo, first


def test_the_demo_keeps_every_promise(built: Path) -> None:
    finished = run_demo("--built", str(built), "--devices", "2", "--broker", "embedded")

    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert "Everything above really happened" in finished.stdout


def test_a_broken_promise_ends_the_demo_with_status_1_and_one_line(tmp_path: Path) -> None:
    finished = run_demo("--built", str(tmp_path / "nothing"))

    assert finished.returncode == 1
    assert "✗" in finished.stdout.strip().splitlines()[-1]
    assert not finished.stderr


@pytest.mark.parametrize("moment", ["A trained model becomes", "rolls digits 1.0.0 out"])
def test_ctrl_c_leaves_no_process_and_no_file_behind(built: Path, tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-u", "-m", "examples.fleet_on_a_laptop", "--built", str(built), "--devices", "1"]
    # Whatever the demo writes, it writes here; and every process of its names a path below.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as demo:
        assert demo.stdout is not None
        assert any(moment in line for line in demo.stdout)
        demo.send_signal(signal.SIGINT)
        said = demo.stdout.read()

    assert demo.returncode == 130, said
    assert "interrupted" in said
    assert not list(tmp_path.iterdir())
    assert not processes_naming(str(tmp_path))


def processes_naming(text: str) -> list[str]:
    """Command lines of running processes in which a text occurs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if text in line]


# Two defences are off at a time, because a fleet costs more than an act: each is missed by an act of its own.
def test_without_the_golden_check_or_the_brokers_access_control_the_demo_fails(built: Path) -> None:
    with after_act_3(built, unsafe=["acl"], unsafe_devices=["golden"], broker="auto") as (demo, first):
        with pytest.raises(DemoFailure, match="let the ruined int8 variant through"):
            demo.careless_release()
        with pytest.raises(DemoFailure, match="the intruder heard what was meant for others"):
            demo.intruder(first)


def test_without_the_gate_or_signature_checks_the_demo_fails(built: Path) -> None:
    with after_act_3(built, unsafe=["gate", "signatures"], unsafe_devices=["signatures"], broker="embedded") as (
        demo,
        first,
    ):
        with pytest.raises(DemoFailure, match="is completed, not reverted"):
            demo.bad_model(first)
        with pytest.raises(DemoFailure, match="installed a release signed by a foreign key"):
            demo.intruder(first)
