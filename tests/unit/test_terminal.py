"""Lines that a person reads are broken at words, and those that a program reads are not."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from edge_runtime.cli import output
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.pipelines.records import Finding, Record
from edge_runtime.pipelines.sinks.table import TableLines
from edge_runtime.terminal import fitted
from tests.fakes.pipelines import boxes, frame

LINE = "edge-runtime: cannot open /a/very/long/path/that/nobody/may/break/as/it/is/copied: not there; name a folder"


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """A terminal of 40 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with os.fdopen(theirs, "w") as stream:
        yield stream
    os.close(ours)


def test_a_line_is_broken_at_words_and_a_path_nowhere(terminal: TextIO) -> None:
    lines = fitted(LINE, terminal).splitlines()

    assert " ".join(lines) == LINE
    assert "/a/very/long/path/that/nobody/may/break/as/it/is/copied:" in lines
    assert max(len(line) for line in lines if "/a/" not in line) <= 40


def test_what_a_program_reads_is_one_line() -> None:
    assert fitted(LINE, io.StringIO()) == LINE


def test_errors_of_a_command_are_broken_at_words(terminal: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(terminal, "write", written.append)
    monkeypatch.setattr(output.sys, "stderr", terminal)

    output.say("edge-runtime: one two three four five six seven eight")

    assert "".join(written) == "edge-runtime: one two three four five\nsix seven eight\n"


def test_a_row_of_a_pipelines_table_is_broken_between_boxes_and_not_in_them(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(terminal, "write", written.append)
    answer: Answer = {"objects": boxes(("cat", 0.5, (100, 200, 300, 400)), ("dog", 0.75, (500, 600, 700, 800)))}

    TableLines(terminal).deliver(Record("door", frame(), (Finding("objects", answer, None),), ()))

    text = "".join(written)
    assert "cat (0.500) at [100, 200, 300, 400]," in text
    assert "dog (0.750) at [500, 600, 700, 800]\n" in text
    assert text.count("\n") > 3
