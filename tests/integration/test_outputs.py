"""What `edge-runtime` does about outputs that take no Unicode, no more bytes, or nothing at all: never a traceback."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.models import Build
from tests.fakes.pixels import picture, write_pixels

EDGE_RUNTIME = f"{sys.executable} -m edge_runtime.cli"


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A release and a picture whose name is not ASCII."""
    folder = tmp_path_factory.mktemp("outputs")
    write_pixels(folder / "release", "1.0.0", builds=[Build("ort-fp32")])
    Image.fromarray(picture(2)[:, :, 0]).save(folder / "größe.png")
    return f"{folder / 'release'} {folder / 'größe.png'}"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", line], env={**os.environ, **environment}, capture_output=True, timeout=60, check=False
    )


def test_a_table_is_written_in_an_encoding_that_has_not_all_of_its_characters(question: str) -> None:
    release, photo = question.split()

    asked = shell(f"{EDGE_RUNTIME} run {question}", PYTHONIOENCODING="ascii")
    measured = shell(f"{EDGE_RUNTIME} bench {release} {photo} --seconds 0.1", PYTHONIOENCODING="ascii")

    assert (asked.returncode, asked.stderr) == (0, b"")
    assert rb"gr\xf6\xdfe.png" in asked.stdout
    assert measured.returncode == 0
    assert b" x the bare engine; " in measured.stdout


def test_odd_metadata_in_a_picture_is_nothing_to_talk_about(question: str, tmp_path: Path) -> None:
    # A maker's name that would be longer than the file.
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x010F, 2, 10**6, 500, 0)
    Image.fromarray(picture(2)[:, :, 0]).save(tmp_path / "odd.png", exif=exif)

    asked = shell(f"{EDGE_RUNTIME} run {question.split(maxsplit=1)[0]} {tmp_path / 'odd.png'}")

    assert (asked.returncode, asked.stderr) == (0, b"")


def test_json_is_the_same_document_in_every_encoding(question: str) -> None:
    written = {
        encoding: shell(f"{EDGE_RUNTIME} run {question} --json", PYTHONIOENCODING=encoding).stdout.decode(encoding)
        for encoding in ("utf-8", "ascii", "latin-1")
    }

    documents = [json.loads(text) for text in written.values()]
    assert documents[0] == documents[1] == documents[2]
    assert Path(documents[1]["answers"][0]["input"]).name == "größe.png"


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_full_disk_is_one_sentence(question: str, form: str) -> None:
    ended = shell(f"{EDGE_RUNTIME} run {question} {form} > /dev/full")

    assert (ended.returncode, ended.stderr) == (1, b"edge-runtime: cannot go on: No space left on device\n")


def test_too_little_memory_is_one_sentence(question: str) -> None:
    program = (
        "import edge_runtime.inference.model as model, edge_runtime.cli.main as cli, sys\n"
        "def too_large(*_, **__): raise MemoryError\n"
        "model.Model.open = too_large\n"
        f"sys.argv = ['edge-runtime', 'run', *{question.split()!r}]\n"
        "cli.main()"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith(b"edge-runtime: cannot go on: there is not enough memory")
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_reader_that_has_gone_is_nothing_to_talk_about(question: str, form: str) -> None:
    ended = shell(f"set -o pipefail; {EDGE_RUNTIME} run {question} {form} | exec 0<&-")

    assert ended.stderr == b""


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-", "2>&-"])
def test_outputs_that_are_closed_are_done_without(question: str, closed: str) -> None:
    ended = shell(f"{EDGE_RUNTIME} run {question} {closed}")

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert bool(ended.stdout) is (closed == "2>&-")
