"""What a device's agent weighs before it has a model: no command-line library, no engine, nothing that serves."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import runpy, sys
sys.argv = ["agent", "--config", "/does/not/exist.toml"]
try:
    runpy.run_module("edge_runtime.agent", run_name="__main__")
except SystemExit as end:
    assert end.code == 1
engines = {"onnxruntime", "openvino", "ai_edge_litert"}
ours = {"edge_runtime.serving", "edge_runtime.inference.model"}
heavy = engines | ours | {"typer", "rich", "click", "numpy", "PIL", "cv2", "pydantic", "fastapi"}
print(sorted(heavy & {name for name, module in sys.modules.items() if module is not None}))
assert "edge_runtime.bootstrap" in sys.modules
"""


def test_the_agent_loads_neither_a_command_line_library_nor_an_engine_nor_what_serves_models() -> None:
    loaded = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=110, check=True)

    assert loaded.stdout.strip() == "[]"
    assert loaded.stderr.startswith("edge-runtime: cannot read /does/not/exist.toml")


def test_asking_a_slot_without_a_model_loads_nothing_either() -> None:
    program = (
        "import sys\n"
        "from edge_runtime.agent.live import LiveModel\n"
        "live = LiveModel('main', None, None, None)\n"
        "print(live.ask_encoded(b''), live.health().loaded, 'edge_runtime.serving' in sys.modules)\n"
        "live.deactivate()\n"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=True)

    assert shown.stdout.split() == ["None", "None", "False"]


def test_help_of_the_agent_needs_no_configuration() -> None:
    command = [sys.executable, "-m", "edge_runtime.agent", "--help"]

    shown = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)

    assert "--source" in shown.stdout
