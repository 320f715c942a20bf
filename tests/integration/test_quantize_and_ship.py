"""The example from model to signed release, run as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from converters.report.build_report import BuildReport
from edge_runtime.contract.layout import LayoutFolder

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "fleet_on_a_laptop" / "model"


def played(out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.quantize_and_ship", "--out", out], cwd=ROOT, text=True, check=False,
        capture_output=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def test_the_example_leaves_a_signed_release_whose_int8_variant_is_small_and_as_good(tmp_path: Path) -> None:
    ended = played(tmp_path / "out")

    assert ended.returncode == 0, ended.stderr
    release = LayoutFolder(tmp_path / "out" / "digits-1.0.0").open()
    report = msgspec.json.decode((tmp_path / "out" / "digits-1.0.0.report.json").read_bytes(), type=BuildReport)
    int8 = [row for row in report.rows if row.precision == "int8" and row.verdict == "shipped"]
    assert report.digest == release.digest
    assert int8
    assert all(row.drop is not None and row.drop <= 0.01 and row.size_bytes < 0.4 * 636_000 for row in int8)
    page = (tmp_path / "out" / "digits-1.0.0.report.html").read_text()
    assert "Where they disagree most" in page
    assert page.count("data:image/png") >= 1
    signed = (tmp_path / "out" / "models-digits.json").read_text()
    assert "digits/1.0.0" in signed
    first, label = (MODEL / "live" / "labels.csv").read_text().splitlines()[1].split(",")
    assert re.search(rf"{re.escape(first)}.* {label} \(0\.", ended.stdout)


def test_a_folder_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    ended = played(tmp_path)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "name another folder with --out" in ended.stderr
