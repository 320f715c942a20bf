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

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from edge_runtime.cli.main import app
from tests.bench.served import serving
from tests.fakes.pixels import picture, write_pixels

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
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def localised(self, code: str) -> str:
        """The code of a page with this test's ports."""
        return code.replace("127.0.0.1:8000", self.http).replace("127.0.0.1:8001", self.grpc)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("reader")
    write_pixels(folder / "release", "1.0.0")
    Image.fromarray(picture(3)[:, :, 0]).save(folder / "photo.png")
    np.arange(4, dtype=np.float32).tofile(folder / "tensor.f32")
    (folder / "examples").symlink_to(ROOT / "examples")
    with serving(folder / "release", folder / "models.sock") as addresses:
        yield Place(folder, addresses.http.partition("//")[2], addresses.grpc)


PYTHON = [*blocks(CALL, "python"), *blocks(TRITON, "python")]


@pytest.mark.parametrize("code", PYTHON)
def test_python_on_the_pages_runs(place: Place, code: str) -> None:
    assert place.run(sys.executable, "-c", place.localised(code)).strip()


def test_python_on_the_page_finds_the_brightest_pixel(place: Place) -> None:
    (code,) = (code for code in PYTHON if 'connect("unix:' in code)

    said = place.run(sys.executable, "-c", place.localised(code))

    assert said.startswith("1.0.0 ")
    assert json.loads(said.partition(" ")[2])[0]["label"] == "three"


@pytest.mark.needs_curl
def test_curl_on_the_page_runs(place: Place) -> None:
    for code in (code for code in blocks(CALL, "sh") if "curl" in code):
        answer = json.loads(place.run("bash", "-c", place.localised(code)))

        assert answer["outputs"][0]["name"] == "classes"


@pytest.mark.needs_cpp
def test_cpp_on_the_page_runs(place: Place) -> None:
    (code,) = (code for code in blocks(CALL, "sh") if "g++" in code)

    assert place.run("bash", "-ec", code) == "logits 0 2 4 6\n"


@pytest.mark.parametrize("page", [CALL, TRITON])
def test_every_option_of_serve_on_the_pages_exists(page: str) -> None:
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    known = {flag for parameter in serve.params for flag in parameter.opts}
    used = {
        flag for line in re.findall(r"edge-runtime serve ([^\n`]*)", page) for flag in re.findall(r"--[a-z-]+", line)
    }

    assert used
    assert used <= known
