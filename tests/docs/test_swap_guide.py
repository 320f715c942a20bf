"""Every Python block of the guide to swaps runs, one after the other, beside three releases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.serving.releases import plain, png

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "swap-a-model-under-load.md"


def test_the_guide_to_swaps_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, scale in enumerate((1.0, 1.001, 1.002), 1):
        plain(tmp_path, f"{number}.0.0", scale).rename(tmp_path / f"release-{number}")
    (tmp_path / "picture.png").write_bytes(png(2))
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names: dict[str, object] = {}

    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)

    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("1.0.0 b'[{\"index\":2,\"label\":\"two\"")
    assert said[1] == "2.0.0"
    assert said[2] == "8 8 dict_keys(['logits', 'classes'])"
    assert said[3] == "ready ort-fp32"
