"""What commands write for a person."""

from __future__ import annotations

import pytest

from edge_runtime.cli.output import say


def test_a_name_that_a_stranger_gave_a_file_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("cannot read /in/\x1b]0;mine\x07é.jpg")

    assert capsys.readouterr().err == "cannot read /in/\\x1b]0;mine\\x07é.jpg\n"
