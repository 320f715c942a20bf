"""One client example per door, each run as its reader would, against `edge-runtime serve` with every door open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bench.served import Addresses, serving
from tests.fakes.pixels import picture, write_pixels

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "examples" / "clients"


@dataclass(frozen=True)
class Server:
    release: Path
    addresses: Addresses
    photo: Path

    @property
    def socket(self) -> str:
        return self.addresses.unix.partition(":")[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    write_pixels(folder / "release", "1.0.0")
    Image.fromarray(picture(3)[:, :, 0]).save(folder / "photo.png")
    with serving(folder / "release", folder / "s") as addresses:
        yield Server(folder / "release", addresses, folder / "photo.png")


def run(*command: str | Path, given: bytes = b"") -> str:
    done = subprocess.run([*map(str, command)], input=given, capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def example(name: str, *arguments: str | Path) -> str:
    return run(sys.executable, "-m", f"examples.clients.{name}", *arguments)


@pytest.mark.parametrize("name", ["ask", "in_process", "shared_memory", "triton_client"])
def test_an_example_without_arguments_says_how_it_is_called(name: str) -> None:
    command = [sys.executable, "-m", f"examples.clients.{name}"]

    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60, check=False, text=True)

    assert done.returncode == 1
    assert f"python -m examples.clients.{name} " in done.stderr
    assert "Traceback" not in done.stderr


def test_in_process(server: Server) -> None:
    assert "three" in example("in_process", server.release, server.photo)


@pytest.mark.parametrize("kind", ["unix", "unix-stream", "http"])
def test_our_client_through_each_of_its_doors(server: Server, kind: str) -> None:
    address = server.addresses.http if kind == "http" else f"{kind}:{server.socket}"

    assert '"label":"three"' in example("ask", address, "pixels", server.photo)


def test_our_client_says_what_is_wrong_in_one_sentence(server: Server) -> None:
    command = [sys.executable, "-m", "examples.clients.ask", server.addresses.unix, "pixels", str(ROOT / "README.md")]

    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60, check=False, text=True)

    assert done.returncode == 1
    assert done.stderr.startswith("cannot ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ask", ("unix:{free}", "pixels", "{photo}")),
        ("ask", ("http://127.0.0.1:1", "pixels", "{photo}")),
        ("shared_memory", ("{free}", "pixels")),
        ("triton_client", ("http", "127.0.0.1:1", "pixels", "image", "classes", "{photo}")),
        ("triton_client", ("grpc", "127.0.0.1:1", "pixels", "image", "classes", "{photo}")),
    ],
    ids=["unix", "http", "memory", "triton-http", "triton-grpc"],
)
def test_a_server_that_is_away_is_one_sentence(
    server: Server, tmp_path: Path, name: str, arguments: tuple[str, ...]
) -> None:
    told = [one.format(free=tmp_path / "nobody", photo=server.photo) for one in arguments]
    command = [sys.executable, "-m", f"examples.clients.{name}", *told]

    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60, check=False, text=True)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(("cannot ", "no answer from 127.0.0.1:1: "))


def test_shared_memory_filled_in_place(server: Server) -> None:
    said = example("shared_memory", server.socket, "pixels")

    assert said.count("'logits': (1, 4)") == 3


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_stock_tritonclient(server: Server, protocol: str) -> None:
    address = server.addresses.http.partition("//")[2] if protocol == "http" else server.addresses.grpc

    said = example("triton_client", protocol, address, "pixels", "image", "classes", server.photo)

    assert '"label":"three"' in said


@pytest.mark.needs_curl
def test_curl(server: Server) -> None:
    said = run(CLIENTS / "ask_with_curl.sh", server.addresses.http, "pixels", "image", "classes", server.photo)

    assert "three" in said


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("cpp") / "edge_client"
    run("g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", built, CLIENTS / "cpp" / "edge_client.cpp")
    return built


@pytest.mark.needs_cpp
def test_cpp(server: Server, program: Path) -> None:
    pixels = np.arange(8, dtype=np.float32)

    said = run(program, server.socket, "pixels", "x", "2x1x2x2", "float32", given=pixels.tobytes())

    assert said == "logits 0 2 4 6 8 10 12 14\n"


@pytest.mark.needs_cpp
def test_cpp_sends_the_pixels_of_a_picture(server: Server, program: Path) -> None:
    said = run(program, server.socket, "pixels", "image", "1x2x2x1", "uint8", given=picture(3).tobytes())

    logits = [float(one) for one in said.split()[1:]]
    assert logits.index(max(logits)) == 3


@pytest.mark.needs_cpp
@pytest.mark.parametrize(
    ("arguments", "given", "because"),
    [
        (["cats", "x", "1x1x2x2", "float32"], bytes(16), "it is not served here"),
        (["pixels", "x", "1x1x2x3", "float32"], bytes(24), "asks for 2"),
        (["pixels", "x", "1x1x2x2", "float32"], bytes(12), "holds less than shape and dtype say, 16 bytes"),
        (["pixels", "x", "1x1x2x2", "float32"], bytes(20), "holds more than shape and dtype say, 16 bytes"),
        (["pixels", "x", "1xcat", "float32"], bytes(16), "shape is not like"),
        (["pixels", "x", "1x-2", "float32"], bytes(16), "no tensor has this shape"),
        (["pixels", "x", "99999999999x99999999999", "float32"], bytes(16), "no tensor has this shape"),
        (["pixels", "x", "1x1x2x2", "float16"], bytes(16), "no dtype is called float16"),
    ],
)
def test_cpp_says_what_is_wrong(
    server: Server, program: Path, arguments: list[str], given: bytes, because: str
) -> None:
    command = [str(program), server.socket, *arguments]

    done = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)

    assert done.returncode == 1
    assert because in done.stderr.decode()
