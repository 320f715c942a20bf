"""The guide to measuring: its options exist, its table names what the command shows, its code opens a release."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from edge_runtime.cli.main import assemble
from edge_runtime.inference.tuned import FILE_NAME
from edge_runtime.tuning.bench import STAGES
from edge_runtime.tuning.candidates import MARGIN
from edge_runtime.tuning.machine import BUSY_LOAD
from edge_runtime.tuning.tune import TuneSettings
from tests.fakes.pixels import write_pixels

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "measure-and-tune.md").read_text()


def test_every_option_on_the_page_exists_where_it_is_shown() -> None:
    commands = get_command(assemble()).commands  # type: ignore[attr-defined]
    known = {name: {flag for one in commands[name].params for flag in one.opts} for name in ("bench", "tune")}

    for name, arguments in re.findall(r"^edge-runtime (\w+) ([^\n]*)", PAGE, re.MULTILINE):
        assert set(re.findall(r"--[a-z-]+", arguments)) <= known[name], arguments
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= known["bench"] | known["tune"]


def test_every_stage_has_its_row() -> None:
    assert set(STAGES) < set(re.findall(r"`(\w+)`", PAGE))


def test_numbers_on_the_page_are_those_of_the_code() -> None:
    assert f"faster by more than {MARGIN:.0%}".replace("%", " %") in PAGE
    assert f"load average of {BUSY_LOAD}" in PAGE
    assert f"(`--seconds`, {TuneSettings(state=Path()).seconds:.0f})" in PAGE
    assert FILE_NAME in PAGE


def test_the_code_on_the_page_opens_a_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    write_pixels(tmp_path / "releases" / "detector-1.0.0", "1.0.0")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}

    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(code, names)
    finally:
        os.chdir(here)

    assert capsys.readouterr().out == "ort-fp32\n"
