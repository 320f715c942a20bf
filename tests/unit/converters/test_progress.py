"""What a build shows while it runs, on a terminal and where there is none."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from converters.caching.stages import StageEvent
from converters.commands import progress
from converters.commands.progress import StageView

EMULATE = {"kind": "emulate", "subject": "ort-int8 on x86_64 without VNNI"}


def shown(*, is_terminal: bool, count: int = 3) -> list[str]:
    console = Console(width=80, file=io.StringIO(), force_terminal=is_terminal, color_system=None)
    with StageView(console) as view:
        view(StageEvent(**EMULATE, state="running"))
        for done in range(count):
            view(StageEvent(**EMULATE, state="running", done=done, of=32))
        if is_terminal:
            console.print(view.rows())
        view(StageEvent(**EMULATE, state="done", took_s=96.2))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_running_stage_shows_how_many_are_done() -> None:
    assert "emulate ort-int8 on x86_64 without VNNI      2/32  0 s" in shown(is_terminal=True)[0]


def test_without_a_terminal_counts_are_lines_and_not_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))

    lines = shown(is_terminal=False, count=6)

    # A line for every third count: ten seconds, and four go by with each.
    assert lines == [
        "emulate ort-int8 on x86_64 without VNNI: 0/32",
        "emulate ort-int8 on x86_64 without VNNI: 3/32",
        "done: emulate ort-int8 on x86_64 without VNNI, 96.2 s",
    ]
