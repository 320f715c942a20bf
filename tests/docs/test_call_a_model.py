"""The guides to calling a model: their code runs against a server started as they say, their options exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from edge_runtime.cli.main import assemble
from tests.bench.served import serving
from tests.docs.conftest import settle

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "how-to"
CALL = (GUIDES / "call-a-model-from-python-cpp-curl.md").read_text()
TRITON = (GUIDES / "replace-triton-on-a-jetson.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@dataclass(frozen=True)
class Place:
    """A folder with what the guides name, and a server."""

    folder: Path
    http: str
    grpc: str

    def run(self, *command: str) -> str:
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": programs}
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def localised(self, code: str) -> str:
        """The code of a page with this test's ports."""
        return code.replace("127.0.0.1:8000", self.http).replace("127.0.0.1:8001", self.grpc)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits_out: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("reader")
    settle(folder, digits_out)
    with serving(folder / "digits-out" / "digits-1.0.0", folder / "models.sock") as addresses:
        yield Place(folder, addresses.http.partition("//")[2], addresses.grpc)


PYTHON = [*blocks(CALL, "python"), *blocks(TRITON, "python")]


@pytest.mark.parametrize("code", PYTHON)
def test_python_on_the_pages_runs(place: Place, code: str) -> None:
    assert place.run(sys.executable, "-c", place.localised(code)).strip()


def test_python_on_the_page_reads_the_digit(place: Place) -> None:
    (code,) = (code for code in PYTHON if 'connect("unix:' in code)

    said = place.run(sys.executable, "-c", place.localised(code))

    assert said.startswith("1.0.0 ")
    assert json.loads(said.partition(" ")[2])[0]["label"] == "3"


@pytest.mark.needs_curl
def test_curl_on_the_page_runs(place: Place) -> None:
    for code in (code for code in blocks(CALL, "sh") if "curl" in code):
        answer = json.loads(place.run("bash", "-c", place.localised(code)))

        assert answer["outputs"][0]["name"] == "digit"


@pytest.mark.needs_cpp
def test_cpp_on_the_page_runs(place: Place) -> None:
    (code,) = (code for code in blocks(CALL, "sh") if "g++" in code)

    name, *logits = place.run("bash", "-ec", code).split()
    assert name == "logits"
    assert max(range(10), key=lambda digit: float(logits[digit])) == 3


def test_the_error_on_the_page_is_the_one_that_comes(place: Place) -> None:
    code = (
        "import numpy; from edge_runtime.client import connect\n"
        "connect('unix:models.sock').infer('digits', {'input': numpy.zeros((1, 1, 32, 32), numpy.float32)})"
    )
    shown = re.search(r"^cannot take tensor .*$", CALL, re.MULTILINE)
    assert shown is not None

    with pytest.raises(AssertionError, match="cannot take tensor") as raised:
        place.run(sys.executable, "-c", code)

    # The example's best variant is an int8 one, which this test does without.
    assert shown[0].replace("ort-int8-tensor", "ort-float32") in str(raised.value)


@pytest.mark.parametrize("page", [CALL, TRITON])
def test_every_option_of_serve_on_the_pages_exists(page: str) -> None:
    serve = get_command(assemble()).commands["serve"]  # type: ignore[attr-defined]
    known = {flag for parameter in serve.params for flag in parameter.opts}
    used = {
        flag for line in re.findall(r"edge-runtime serve ([^\n`]*)", page) for flag in re.findall(r"--[a-z-]+", line)
    }

    assert used
    assert used <= known
