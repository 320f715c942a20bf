"""`edge-runtime serve` as a process: what it prints, how it ends, and what it refuses to begin."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton

from edge_runtime.doors.access import Access, TlsFiles
from edge_runtime.doors.door import Listen
from edge_runtime.doors.serve import ServePlan, serving
from tests.fakes.agents import children
from tests.fakes.models import hanging_classifier
from tests.fakes.pixels import write_pixels
from tests.fakes.pki import make_ca
from tests.fakes.probe import write_probe
from tests.fakes.processes import begin
from tests.fakes.tuned import tuned_here
from tests.fakes.v2_http_door import LOGITS, PIXELS, post

EDGE_RUNTIME = (sys.executable, "-m", "edge_runtime.cli")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    write_pixels(folder, "1.0.0")
    return folder


class Server:
    """A running `edge-runtime serve`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def said(self, text: str) -> str:
        """All that it said, once this is part of it."""
        while text not in (content := self.log.read_text()):
            assert self.process.poll() is None, content
            time.sleep(0.02)
        return content

    def document(self) -> dict[str, Any]:
        """The JSON that it printed, after what it said on stderr."""
        said = self.said("\n}\n")
        parsed: dict[str, Any] = json.loads(said[said.index("{\n") :])
        return parsed

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and last line after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60), self.log.read_text().splitlines()[-1]


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def waiting_calls(address: str) -> float:
    with urlopen(f"http://{address}/metrics", timeout=30) as answer:
        told = answer.read().decode()
    return float(re.search(r"^edge_runtime_queue_length\{.*} (.*)$", told, re.MULTILINE)[1])  # type: ignore[index]


def cpu_s(pid: int) -> float:
    """What a process has used so far (proc_pid_stat(5): utime and stime, counted behind the name in brackets)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(folder: Path, *arguments: object) -> Iterator[Server]:
    log = folder / "log"
    process = begin([*EDGE_RUNTIME, "serve", *map(str, arguments)], log)
    try:
        yield Server(process, log)
    finally:
        process.kill()
        process.wait()


def refused(*arguments: object) -> str:
    ended = subprocess.run(
        [*EDGE_RUNTIME, "serve", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_says_where_it_is_answers_and_ends_with_one_line(
    release: Path, tmp_path: Path, number: signal.Signals
) -> None:
    doors = ("--http", "127.0.0.1:0", "--grpc", ":0", "--uds", tmp_path / "socket")
    with running(tmp_path, release, *doors, "--json") as server:
        told = server.document()
        address = {door["kind"]: door["address"] for door in told["doors"]}["v2 HTTP"]
        with triton.InferenceServerClient(address.removeprefix("http://")) as client:
            given = triton.InferInput("x", [1, 1, 2, 2], "FP32")
            given.set_data_from_numpy(PIXELS)
            answer = client.infer("pixels", [given]).as_numpy("logits")
        ended = server.end(number)

    assert [door["kind"] for door in told["doors"]] == ["v2 HTTP", "v2 gRPC", "local"]
    assert told["models"] == [{"name": "pixels", "version": "1.0.0", "variant": "ort-fp32", "tuned": None}]
    assert answer.tolist() == LOGITS
    assert ended == (0, "edge-runtime: drained and ended")
    assert not (tmp_path / "socket").exists()


def test_numbers_that_are_none_are_let_in_when_the_operator_says_so(release: Path, tmp_path: Path) -> None:
    with running(tmp_path, release, "--http", ":0", "--nan", "off", "--json") as server:
        address = server.document()["doors"][0]["address"].removeprefix("http://")
        with triton.InferenceServerClient(address) as client:
            given = triton.InferInput("x", [1, 1, 2, 2], "FP32")
            given.set_data_from_numpy(PIXELS * np.float32("nan"))

            assert np.isnan(client.infer("pixels", [given]).as_numpy("logits")).all()


def test_people_read_one_table(release: Path, tmp_path: Path) -> None:
    with running(tmp_path, release, "--http", ":0") as server:
        said = server.said("Ctrl-C drains and ends.")

    assert "pixels" in said
    assert "http://127.0.0.1:" in said


def test_a_server_says_which_tuned_values_it_uses_and_lets_them_be_overridden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_probe(tmp_path / "release")
    tuned_here(release, tmp_path / "edgefleet", threads=2, batch=8)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    with running(tmp_path, release, "--http", ":0", "--json") as server:
        told, said = server.document()["models"][0]["tuned"], server.said("tuned here")
    with running(release, release, "--http", ":0", "--json", "--batch", "off") as server:
        overridden = server.document()["models"][0]["tuned"]

    assert (told["batch"], told["at"]) == (8, "2026-11-24T10:00:00Z")
    assert "model probe 1.0.0 runs variant ort-fp32 with up to 8 samples at once" in said
    assert overridden is None


def test_a_server_takes_what_was_tuned_from_the_folder_it_is_given(tmp_path: Path) -> None:
    release = write_probe(tmp_path / "release")
    tuned_here(release, tmp_path / "mine", threads=2, batch=8)

    with running(tmp_path, release, "--http", ":0", "--isolate", "--tuned", tmp_path / "mine", "--json") as server:
        told = server.document()["models"][0]["tuned"]

    assert told["batch"] == 8


def test_the_network_is_let_in_with_tls_and_token_alone(release: Path, tmp_path: Path) -> None:
    issued = make_ca(tmp_path).issue("server")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    tls = ("--tls-cert", issued.cert_file, "--tls-key", issued.key_file)

    bare = refused(release, "--http", "0.0.0.0:0")
    half = refused(release, "--http", "[::]:0", *tls)
    with running(tmp_path, release, "--http", "0.0.0.0:0", *tls, "--token-file", token, "--json") as server:
        told = server.document()

    assert "without TLS and a token; give --tls-cert, --tls-key and --token-file" in bare
    assert "without a token" in half
    assert told["doors"][0]["address"].startswith("https://0.0.0.0:")


@pytest.mark.parametrize(
    ("host", "wish", "is_shared"),
    [("127.0.0.1", None, True), ("0.0.0.0", None, False), ("0.0.0.0", "on", True), ("127.0.0.1", "off", False)],
)
def test_memory_is_shared_on_this_machine_alone_unless_the_operator_says_otherwise(
    release: Path, tmp_path: Path, host: str, wish: str | None, is_shared: bool
) -> None:
    issued = make_ca(tmp_path).issue("server")
    access = Access(TlsFiles(issued.cert_file, issued.key_file), b"0123456789abcdef")
    plan = ServePlan((release,), Listen(host, 0), access=access, shared_memory=wish)
    bearer = {"Authorization": "Bearer 0123456789abcdef"}

    with serving(plan) as server, httpx.Client(verify=False, headers=bearer) as client:
        v2 = server.doors[0].address.replace(host, "127.0.0.1") + "/v2"
        extensions = client.get(v2).json()["extensions"]
        wanted = {"key": "/nothing-of-that-name", "offset": 0, "byte_size": 8}
        said = client.post(f"{v2}/systemsharedmemory/region/r/register", json=wanted)
        cleaned_up = client.post(f"{v2}/systemsharedmemory/unregister")

    assert ("system_shared_memory" in extensions) is is_shared
    assert said.status_code == (400 if is_shared else 503)
    assert ("takes no shared memory" in said.text) is not is_shared
    assert cleaned_up.status_code == 200


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "nothing is named"),
        (("--repository", "nowhere"), "it is no folder"),
        (("--repository", ".", "--shared-memory", "some"), "neither on, off nor a prefix"),
        (("nowhere",), "there is no such folder"),
        (("--http", "everywhere"), "it is no address"),
        (("--repository", ".", "--tls-cert", "c.pem"), "a certificate needs its key"),
        (("--repository", ".", "--token-file", "nowhere"), "cannot read token file"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: Sequence[str], why: str) -> None:
    said = refused(*arguments)

    assert why in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(release: Path, tmp_path: Path) -> None:
    with running(tmp_path, release, "--http", ":0", "--json") as server:
        address = server.document()["doors"][0]["address"].removeprefix("http://")

        assert "choose another port" in refused(release, "--http", address)


def test_a_grpc_port_that_is_taken_is_one_line(release: Path, tmp_path: Path) -> None:
    with running(tmp_path, release, "--grpc", ":0", "--json") as server:
        said = refused(release, "--grpc", server.document()["doors"][0]["address"])

    assert "the address is taken" in said
    assert said.count("\n") == 1


def test_a_model_named_for_batching_must_be_served_or_may_come_from_a_repository(
    release: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()

    said = refused(release, "--batch", "nope=8:1ms")
    with running(tmp_path, release, "--http", ":0", "--repository", repository, "--batch", "nope=8:1ms") as server:
        noted = server.said("Ctrl-C drains and ends.")

    assert "cannot batch the calls of model 'nope': no such model is served; name one of pixels" in said
    assert "model 'nope' is not served yet" in noted


def test_a_token_that_others_can_read_is_one_line_of_warning(release: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o644)
    options = ("--http", ":0", "--token-file", token)

    with running(tmp_path, release, *options) as server:
        open_to_all = server.said("Ctrl-C drains and ends.")
    token.chmod(0o600)
    (tmp_path / "private").mkdir()
    with running(tmp_path / "private", release, *options) as server:
        private = server.said("Ctrl-C drains and ends.")

    assert f"others can read token file {token}" in " ".join(open_to_all.split())
    assert "others can read" not in private


def test_the_operator_reads_that_a_worker_died_and_clients_notice_nothing(release: Path, tmp_path: Path) -> None:
    with running(tmp_path, release, "--http", ":0", "--isolate", "--json") as server:
        address = server.document()["doors"][0]["address"].removeprefix("http://")
        (worker,) = children(server.process.pid)
        os.kill(worker, signal.SIGKILL)
        with triton.InferenceServerClient(address) as client:
            given = triton.InferInput("x", [1, 1, 2, 2], "FP32")
            given.set_data_from_numpy(PIXELS)
            answer = client.infer("pixels", [given]).as_numpy("logits")
        said = server.said("is ready again")

    assert answer.tolist() == LOGITS
    assert "model pixels 1.0.0 is ready again on variant ort-fp32: started again: it ended with signal 9" in said


def test_what_an_engine_never_answers_does_not_keep_a_server_that_is_ended(tmp_path: Path) -> None:
    write_pixels(tmp_path / "release", "1.0.0", content=hanging_classifier(above=1.0))
    write_pixels(tmp_path / "repository" / "its-golden-set-hangs", "2.0.0", content=hanging_classifier(above=0.5))
    given = triton_grpc.InferInput("x", [1, 1, 2, 2], "FP32")
    given.set_data_from_numpy(PIXELS + 1)
    doors = ("--http", ":0", "--grpc", ":0", "--repository", tmp_path / "repository", "--drain", 0.2)
    with running(tmp_path, tmp_path / "release", *doors, "--json") as server:
        http, grpc = (door["address"].removeprefix("http://") for door in server.document()["doors"])
        with triton_grpc.InferenceServerClient(grpc) as client, connected(http) as loader:
            before = cpu_s(server.process.pid)
            loader.sendall(post("/v2/repository/models/pixels/load", b""))
            while cpu_s(server.process.pid) < before + 1.0:
                time.sleep(0.02)
            for _ in range(40):
                client.async_infer("pixels", [given], lambda result, error: None)
            # Some wait: all that may run at once do.
            while waiting_calls(http) == 0:
                time.sleep(0.02)
            code, last = server.end()

    assert code == 0
    assert re.fullmatch(
        r"edge-runtime: ended, giving up \d+ calls? of model pixels 1\.0\.0 and 1 load of model pixels 2\.0\.0 "
        "that did not come back",
        last,
    )
