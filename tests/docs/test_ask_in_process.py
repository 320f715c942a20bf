"""The guide to asking a model in one's own process does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "ask-a-model-in-process.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(len(BLOCKS))])
def test_every_program_of_the_guide_prints_an_answer(reader: Path, block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=reader, check=True, capture_output=True, text=True, timeout=300
    )

    assert done.stdout
    assert done.stderr == ""


def test_the_guide_has_its_four_programs() -> None:
    assert len(BLOCKS) == 4
