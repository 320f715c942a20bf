"""Stock clients of the Open Inference Protocol v2 over HTTP: tritonclient as it is, plain HTTP, and strangers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from edge_runtime.doors.door import Listen
from edge_runtime.doors.v2.http import HttpDoor
from edge_runtime.doors.v2.repository import Repository
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.host import ModelHost
from tests.fakes.pixels import write_pixels

PIXELS = np.array([[[[0.0, 1.0], [0.5, 0.25]]]], np.float32)
LOGITS = [[0.0, 2.0, 1.0, 0.5]]
LOOPBACK = Listen("127.0.0.1", 0)


@dataclass(frozen=True)
class Open:
    """A door with one model behind it."""

    host: ModelHost
    service: V2Service
    door: HttpDoor

    @property
    def netloc(self) -> str:
        return self.door.address.partition("//")[2]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    write_pixels(folder, "1.0.0")
    return folder


@pytest.fixture(scope="module")
def opened(release: Path) -> Iterator[Open]:
    with ModelHost() as host:
        host.load(release)
        yield from served(host)


def served(host: ModelHost, repository: Path | None = None, **options: Any) -> Iterator[Open]:
    service = V2Service(host, "1.2.3", Repository(repository) if repository else None)
    door = HttpDoor(service, LOOPBACK, **options)
    door.start()
    yield Open(host, service, door)
    door.stop(5.0)
    service.regions.close()


@pytest.fixture
def client(opened: Open) -> Iterator[Any]:
    with triton.InferenceServerClient(opened.netloc) as client:
        yield client


@pytest.fixture
def plain(opened: Open) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=opened.door.address) as client:
        yield client


def tensor(name: str, values: Any, datatype: str, *, binary: bool = True) -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def pixels(*, binary: bool = True) -> Any:
    return tensor("x", PIXELS, "FP32", binary=binary)


def test_a_server_says_that_it_lives_is_ready_and_what_it_can(client: Any) -> None:
    metadata = client.get_server_metadata()

    assert client.is_server_live()
    assert client.is_server_ready()
    assert (metadata["name"], metadata["version"]) == ("edge-runtime", "1.2.3")
    assert {"binary_tensor_data", "system_shared_memory", "model_repository"} <= set(metadata["extensions"])


@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_a_model_says_what_it_takes_and_gives(client: Any, version: str) -> None:
    metadata = client.get_model_metadata("pixels", version)

    assert client.is_model_ready("pixels", version)
    assert (metadata["name"], metadata["versions"]) == ("pixels", ["1.0.0"])
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 2, 2, 1]}]
    assert metadata["outputs"] == [
        {"name": "logits", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "classes", "datatype": "BYTES", "shape": [-1]},
    ]


def test_a_model_has_a_configuration_in_tritons_terms(client: Any) -> None:
    config = client.get_model_config("pixels")

    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, 2, 2, 1]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_tensors_go_in_and_out_as_json_and_binary_folded_and_not(
    client: Any, binary_in: bool, binary_out: bool, coding: str | None
) -> None:
    many = np.concatenate([PIXELS] * 200)

    answer = client.infer(
        "pixels",
        [tensor("x", many, "FP32", binary=binary_in)],
        outputs=[triton.InferRequestedOutput("logits", binary_data=binary_out)],
        request_id="seven",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )

    np.testing.assert_array_equal(answer.as_numpy("logits"), LOGITS * 200)
    assert answer.get_response()["id"] == "seven"
    assert answer.get_response()["model_version"] == "1.0.0"
