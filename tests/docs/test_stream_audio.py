"""The guide to streaming audio: its recipe is one, and its programs run, on a small model with the same ports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from converters.planning.recipe import parse_recipe
from tests.fakes.streams import Hearing, noise, recording

PAGE = (Path(__file__).parents[2] / "docs/how-to/stream-audio.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_recipe_on_the_page_is_a_recipe() -> None:
    whole, part = blocks("toml")

    recipe = parse_recipe(whole.encode(), ".toml")
    head = whole[: whole.index("[inputs.audio]")] + part + whole[whole.index("[evaluation]") :]
    rows = parse_recipe(head.encode(), ".toml")

    assert recipe.states["rnn"].out == "stateN"
    assert rows.states["h"].out == "h_out"


def test_the_programs_on_the_page_find_segments_and_the_same_scores_in_every_session(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    hearing = Hearing().streaming(max_sessions=64)
    hearing.write(tmp_path / "vad")
    Path("speech.wav").write_bytes(recording(noise(1.5) / 4, hearing.rate_hz))
    place: dict[str, object] = {}

    for program in blocks("python"):
        exec(compile(program, "stream-audio.md", "exec"), place)

    assert len(re.findall(r"speech from [\d.]+ to [\d.]+ s", capsys.readouterr().out)) > 3
    assert len(place["tracks"]) == 8  # type: ignore[arg-type]
