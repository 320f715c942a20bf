"""Engines report nothing to their vendors: not by default, and not through a file that they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
"""Module by engine."""
_PROBE = """
import sys
from edge_runtime.inference.facts import engines
(found,) = engines({{{engine!r}}})
assert found.name == {engine!r}
module = sys.modules.get("openvino_telemetry")
assert module is None, module
"""


def files_left_by(program: str, folder: Path) -> list[str]:
    """What a program leaves in its temporary folder and its home."""
    environment = {key: value for key, value in os.environ.items() if key not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "TMPDIR": str(folder), "HOME": str(folder)},
        cwd=Path(__file__).resolve().parents[2],
        check=True,
        timeout=300,
    )
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_was_probed_leaves_no_trace_of_its_vendors_telemetry(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(ENGINES[engine])

    assert files_left_by(_PROBE.format(engine=engine), tmp_path) == []
