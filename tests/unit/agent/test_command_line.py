"""`edge-runtime` as a person meets it: answers, and one sentence when there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.main import get_command

from edge_runtime.cli import device
from edge_runtime.cli import main as cli
from tests.fakes.pixels import write_pixels, write_source


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "release"
    write_pixels(folder, "1.0.0")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("cli") / "pictures")


def call(arguments: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["edge-runtime", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_run_answers_each_file(
    release: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [pictures / "1.png", pictures / "2.png"]

    assert call(["run", release, *inputs, "--json", "--backend", "onnxruntime"], monkeypatch) == 0

    answer = json.loads(capsys.readouterr().out)
    assert answer["variant"] == "ort-fp32"
    assert [one["answer"]["classes"][0]["label"] for one in answer["answers"]] == ["one", "two"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_file_that_is_no_image_is_named_and_the_others_are_answered(
    release: Path,
    pictures: Path,
    tmp_path: Path,
    form: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")

    assert call(["run", release, pictures / "1.png", broken, pictures / "2.png", *form], monkeypatch) == 1

    said = capsys.readouterr()
    assert "one" in said.out
    assert "two" in said.out
    assert said.err == (
        f"edge-runtime: cannot answer {broken}: it is not a complete PNG file; export or copy it again\n"
    )
    if form:
        answers = json.loads(said.out)["answers"]
        assert [list(one) for one in answers] == [["input", "answer"], ["input", "error"], ["input", "answer"]]
        assert answers[1]["error"] in said.err


def test_brackets_in_the_reason_of_a_slot_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    reason = {"detail": "pip install 'edgefleet[openvino]'"}

    device._print_reports([{"slot": "main", "state": "idle", "seq": 1, "reason": reason}])

    assert "'edgefleet[openvino]'" in capsys.readouterr().out


def test_brackets_in_a_file_name_are_printed_as_they_are(
    release: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "[bold]1.png"
    picture.write_bytes((pictures / "1.png").read_bytes())

    assert call(["run", release, picture], monkeypatch) == 0

    assert "[bold]1.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "{release}", "missing.png"],
        ["run", "missing", "{picture}"],
        ["run", "{release}", "{picture}", "--backend", "abacus"],
        ["run", "{release}", "{picture}", "--variant", "other"],
        ["status", "--state", "missing"],
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_one(
    release: Path,
    pictures: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [one.format(release=release, picture=pictures / "1.png") for one in arguments]

    assert call(filled, monkeypatch) == 1

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("edge-runtime: cannot ")
    assert said.err.count("\n") == 1


def test_json_on_a_terminal_steers_nothing_and_reads_as_it_was(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / "\x9b2Jzähler\x1b.png"
    named.write_bytes(b"no picture")

    call(["run", release, named, "--json", "--backend", "onnxruntime"], monkeypatch)

    said = capsys.readouterr().out
    assert not any(letter in said for letter in "\x9b\x1b")
    assert "zähler" in said
    assert json.loads(said)["answers"][0]["input"] == str(named)


def test_every_command_is_found_by_its_name_alone_with_the_same_options_as_in_the_whole() -> None:
    whole = get_command(cli.assemble()).commands  # type: ignore[attr-defined]

    assert list(whole) == list(cli._COMMANDS)
    for name, command in whole.items():
        alone = get_command(cli.assemble(name)).commands  # type: ignore[attr-defined]
        assert [one.opts for one in alone[name].params] == [one.opts for one in command.params]
    assert list(get_command(cli.assemble("no such command")).commands) == list(whole)  # type: ignore[attr-defined]


PROGRAM = """
import atexit, sys
from edge_runtime.entry import main
atexit.register(lambda: print("taken apart", file=sys.stderr))
sys.argv = ["edge-runtime", *sys.argv[1:]]
main()
"""


def ended(*arguments: object, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


def test_run_ends_with_all_it_printed_and_without_taking_its_libraries_apart(release: Path, pictures: Path) -> None:
    inputs = [pictures / "1.png"] * 300  # more than a buffer holds

    done = ended("run", release, *inputs, "--json", "--backend", "onnxruntime")

    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["answers"]) == 300


def test_run_ends_so_after_a_failure_too_with_its_exit_code(release: Path) -> None:
    done = ended("run", release, "missing.png", "--backend", "onnxruntime")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_commands_that_live_long_end_the_usual_way(tmp_path: Path) -> None:
    done = ended("status", "--state", tmp_path)

    assert done.stderr.endswith("taken apart\n")


def test_what_could_not_be_written_at_the_end_of_run_is_not_passed_over(release: Path, pictures: Path) -> None:
    program = "import sys; sys.stdout = open('/dev/full', 'w')\n" + PROGRAM

    done = ended("run", release, pictures / "1.png", "--json", "--backend", "onnxruntime", program=program)

    assert done.returncode != 0
    assert "No space left" in done.stderr
