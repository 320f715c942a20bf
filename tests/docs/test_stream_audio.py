"""The guide to streaming audio: its recipe is one, and its programs run, on a small model with the same ports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from converters.planning.recipe import parse_recipe
from tests.bench.served import serving
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
    told = []

    with serving(tmp_path / "vad", tmp_path / "models.sock") as addresses:
        for program in blocks("python"):
            localised = program.replace("127.0.0.1:8000", addresses.http.partition("//")[2])
            exec(compile(localised, "stream-audio.md", "exec"), place)
            told.append(re.findall(r"speech from [\d.]+ s?\s?to .*", capsys.readouterr().out))

    in_process, many, our_client, stock_client = told
    assert len(in_process) > 3
    assert many == []
    assert our_client == stock_client
    # What is open at the end is told by the answer's second document.
    assert [one.replace(" s to the end at", " to") for one in in_process] == our_client
    assert len(place["tracks"]) == 8  # type: ignore[arg-type]
