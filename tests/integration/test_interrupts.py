"""Ctrl-C at any moment of a command: one line and exit code 130. Stand-ins for libraries send the signal themselves."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
INTERRUPTS_WHILE_IMPORTED = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n"


def called(command: str, *arguments: object, stand_ins: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as its installed script does, with modules that stand in the way of the real ones."""
    module, function = SCRIPTS[command].split(":")
    program = f"import sys; from {module} import {function}; sys.exit({function}())"
    path = f"{stand_ins}{os.pathsep}{ROOT}"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path}, cwd=stand_ins, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["edge-convert", "edge-runtime", "edge-device", "edge-fleet"])
def test_an_interrupt_while_the_command_line_is_imported_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "typer.py").write_text(INTERRUPTS_WHILE_IMPORTED)

    ended = called(command, "--help", stand_ins=tmp_path)

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", f"{command}: interrupted\n")


@pytest.mark.parametrize(
    ("command", "arguments", "library"),
    [
        ("edge-convert", ["check", "model.onnx"], "onnx"),
        ("edge-convert", ["build", "model.onnx", "-o", "out"], "onnx"),
        ("edge-runtime", ["run", "release", "a.png"], "numpy"),
        ("edge-device", ["profiles"], "msgspec"),
    ],
)
def test_an_interrupt_while_a_library_is_imported_is_one_line(
    tmp_path: Path, command: str, arguments: list[str], library: str
) -> None:
    (tmp_path / f"{library}.py").write_text(INTERRUPTS_WHILE_IMPORTED)

    ended = called(command, *arguments, stand_ins=tmp_path)

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", f"{command}: interrupted\n")


def test_an_interrupt_while_a_build_imports_an_engine_is_not_taken_for_a_missing_engine(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    # As pybind11 does: whatever is raised while a native library sets itself up becomes an ImportError.
    (tmp_path / "onnxruntime.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt as error:\n    raise ImportError from error\n"
    )
    recipe = ROOT / "examples" / "fleet_on_a_laptop" / "recipes" / "release-1.toml"

    ended = called("edge-convert", "build", "--recipe", recipe, "-o", tmp_path / "out", stand_ins=tmp_path)

    *stages, last = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout, last) == (130, "", "interrupted; nothing was written")
    assert all(line.startswith("done: ") for line in stages)


def test_an_interrupted_build_does_not_end_by_a_crash_of_what_it_had_loaded(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("""
import atexit, os, signal, sys
from converters.commands import build
def interrupted(*_, **__):
    build.raise_on_interrupt()
    os.kill(os.getpid(), signal.SIGINT)
build.load_recipe = lambda *_: (None, None)
build.build_release = interrupted
atexit.register(os.abort)
from converters.entry import main
sys.argv = ["edge-convert", "build", "-o", "out"]
main()
""")

    ended = subprocess.run(
        [sys.executable, tmp_path / "program.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (ended.returncode, ended.stderr) == (130, "interrupted; nothing was written\n")


@pytest.mark.parametrize("waits_for", ["event", "thread"])
def test_a_signal_that_the_system_hands_to_another_thread_is_answered(tmp_path: Path, waits_for: str) -> None:
    program = f"""
import os, signal, threading
from edge_runtime.interrupt import wait_for

event = threading.Event()
thread = threading.Thread(target=event.wait, daemon=True)
thread.start()
signal.signal(signal.SIGTERM, lambda *_: event.set())
def hit():
    with open(f"/proc/self/task/{{os.getpid()}}/status") as main:
        while "State:\\tS" not in main.read(): main.seek(0)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Event().wait()
threading.Thread(target=hit, daemon=True).start()
wait_for({waits_for})
"""

    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)

    assert ended.returncode == 0


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there an interrupt may come when a function has returned")
def test_interrupts_at_any_moment_of_a_call_lose_no_slot_of_the_model() -> None:
    program = """
import random, signal
from edge_runtime.inference.requests.admission import Admission

admission = Admission(1, 10)
signal.signal(signal.SIGALRM, signal.default_int_handler)
for _ in range(2000):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-5, 2e-4))
        while True:
            admission.enter(None, 0)
            try:
                pass
            finally:
                admission.give_back(None)
                if admission.is_awaited:
                    admission.settle()
    except KeyboardInterrupt:
        assert admission.running == 0
print("none lost")
"""

    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "none lost\n", "")


def test_an_interrupt_at_any_instruction_of_submitting_loses_neither_slot_nor_line() -> None:
    program = """
import signal, sys
from edge_runtime.inference.requests import waiting_line  # loaded before anybody interrupts
from edge_runtime.inference.requests.admission import Admission

def is_interrupted_at(number, act):
    left = number
    def look(frame, event, argument):
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                signal.raise_signal(signal.SIGINT)
        return look
    try:
        sys.settrace(look)
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)

for is_busy in (False, True):
    number = 0
    while True:
        admission = Admission(1, 1)
        if is_busy:
            admission.enter()
        if not is_interrupted_at(number, lambda: admission.submit(lambda: None, refuse=lambda _: None)):
            break
        if is_busy:
            admission.leave()
        assert admission.wait_idle(30), number
        admission.enter()
        assert (admission.running, admission.waiting) == (1, 0), number
        number += 1
    assert number > 300, number
print("none lost")
"""

    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "none lost\n", "")
