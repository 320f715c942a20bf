"""The guide to asking a model in one's own process does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.models import Build, write_release
from tests.fakes.pixels import write_source

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "ask-a-model-in-process.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("guide")
    write_release(made / "release", [Build("ort-fp32")])
    picture = min(write_source(made / "pictures").glob("*.png"))
    (made / "photo.png").write_bytes(picture.read_bytes())
    return made


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(len(BLOCKS))])
def test_every_program_of_the_guide_prints_an_answer(folder: Path, block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=folder, check=True, capture_output=True, text=True, timeout=300
    )

    assert done.stdout
    assert done.stderr == ""


def test_the_guide_has_its_four_programs() -> None:
    assert len(BLOCKS) == 4
