"""Every Python block of the guide to swaps runs, one after the other, beside three releases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "swap-a-model-under-load.md"


def test_the_guide_to_swaps_does_what_it_says(
    reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names: dict[str, object] = {}

    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)

    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith('1.0.0 b\'[{"index":3,"label":"3"')
    assert said[1] == "1.1.0"
    assert said[2] == "8 8 dict_keys(['logits', 'digit'])"
    assert said[3] == "ready ort-float32"
