"""What a program on the same machine gets through the local door, with shared memory and without."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.client import BadRequest, ModelNotServed, NotUnderstood, Refused, ServerGone, TooLate, connect
from edge_runtime.client.local import LocalClient
from edge_runtime.doors.local.door import LocalDoor
from edge_runtime.serving.host import ModelHost

PIXELS = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
MANY = np.random.default_rng(7).random((5000, 1, 2, 2), np.float32)


@pytest.fixture(params=["unix", "unix-stream"])
def client(request: pytest.FixtureRequest, door: LocalDoor) -> Iterator[LocalClient]:
    with connect(f"{request.param}:{door.path}") as client:
        assert isinstance(client, LocalClient)
        yield client


def test_a_small_tensor_is_answered(client: LocalClient) -> None:
    answer = client.infer("pixels", {"x": PIXELS})

    assert answer["logits"].tolist() == [[0, 2, 4, 6]]  # type: ignore[union-attr]
    assert (answer.model, answer.version) == ("pixels", "1.0.0")


def test_a_large_tensor_is_answered_again_and_again(client: LocalClient) -> None:
    for factor in (1, 2, 3):
        answer = client.infer("pixels", {"x": MANY * factor})

        np.testing.assert_array_equal(answer["logits"], MANY.reshape(-1, 4) * factor * 2)


def test_tensors_of_growing_and_shrinking_sizes_are_answered(client: LocalClient) -> None:
    for rows in (5000, 1, 50_000, 5000, 120_000, 3):
        batch = np.resize(MANY, (rows, 1, 2, 2))

        np.testing.assert_array_equal(client.infer("pixels", {"x": batch})["logits"], batch.reshape(-1, 4) * 2)


def test_memory_that_was_outgrown_is_given_back(door: LocalDoor) -> None:
    before = shared_memories()
    with LocalClient(str(door.path)) as client:
        for rows in (5000, 50_000, 120_000):
            client.infer("pixels", {"x": np.resize(MANY, (rows, 1, 2, 2))})

        assert shared_memories() == before + 2  # the client's view and the door's
    while door.statistics().connections:
        pass
    assert shared_memories() == before


def shared_memories() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:edgefleet")


def test_an_answer_keeps_its_memory(client: LocalClient) -> None:
    first = client.infer("pixels", {"x": MANY})["logits"]
    client.infer("pixels", {"x": MANY * 9})

    np.testing.assert_array_equal(first, MANY.reshape(-1, 4) * 2)


def test_an_array_in_any_order_is_answered(client: LocalClient) -> None:
    turned = np.asfortranarray(MANY)[::-1]

    np.testing.assert_array_equal(client.infer("pixels", {"x": turned})["logits"], MANY[::-1].reshape(-1, 4) * 2)


def test_an_array_in_the_other_byte_order_is_answered(client: LocalClient) -> None:
    swapped = MANY.astype(">f4")

    np.testing.assert_array_equal(client.infer("pixels", {"x": swapped})["logits"], MANY.reshape(-1, 4) * 2)


def test_an_encoded_picture_is_answered_with_the_public_output(client: LocalClient) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 0], [0, 255]], np.uint8)).save(file, "PNG")

    answer = client.infer("pixels", {"image": [file.getvalue()]}, ["classes", "logits"])

    assert b'"three"' in answer["classes"][0]
    assert answer["logits"].tolist() == [[0, 0, 0, 2]]  # type: ignore[union-attr]


def test_a_model_says_what_it_takes_and_gives(client: LocalClient) -> None:
    described = client.describe("pixels")

    assert [(one.name, one.dtype, one.shape) for one in described.inputs] == [("image", "uint8", (-1, 2, 2, 1))]
    assert [one.name for one in described.outputs] == ["logits", "classes"]
    assert client.models() == [("pixels", "1.0.0", "ready")]


def test_a_model_that_is_not_served_is_named(client: LocalClient) -> None:
    with pytest.raises(ModelNotServed, match="'cats'"):
        client.infer("cats", {"x": PIXELS})


def test_a_version_that_is_not_served_is_named(client: LocalClient) -> None:
    with pytest.raises(ModelNotServed, match=r"9\.9"):
        client.infer("pixels", {"x": MANY}, version="9.9")


@pytest.mark.parametrize("inputs", [{"y": MANY}, {"x": MANY[:, 0]}, {"x": MANY.astype(np.float64)}, {}])
def test_wrong_inputs_are_refused_and_the_connection_goes_on(client: LocalClient, inputs: dict[str, object]) -> None:
    with pytest.raises(Refused):
        client.infer("pixels", inputs)  # type: ignore[arg-type]

    assert client.infer("pixels", {"x": PIXELS})["logits"].tolist() == [[0, 2, 4, 6]]  # type: ignore[union-attr]


def test_an_array_of_objects_is_refused_before_it_is_sent(client: LocalClient) -> None:
    with pytest.raises(BadRequest, match="cannot travel"):
        client.infer("pixels", {"x": np.array([None])})


def test_a_deadline_in_the_past_is_refused(client: LocalClient) -> None:
    with pytest.raises(TooLate):
        client.infer("pixels", {"x": PIXELS}, deadline_s=-1.0)


def test_a_deadline_that_leaves_time_is_kept(client: LocalClient) -> None:
    assert client.infer("pixels", {"x": PIXELS}, deadline_s=60.0, priority=-3).version == "1.0.0"


def test_each_of_many_threads_gets_its_own_answer(client: LocalClient) -> None:
    def ask(factor: int) -> bool:
        answer = client.infer("pixels", {"x": MANY * factor})
        return bool((answer["logits"] == MANY.reshape(-1, 4) * factor * 2).all())  # type: ignore[union-attr]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(64)))


def test_a_server_that_was_started_again_is_asked_again(host: ModelHost, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with LocalDoor(host, path):
        client = LocalClient(str(path))
        client.infer("pixels", {"x": MANY})

    with client, LocalDoor(host, path):
        np.testing.assert_array_equal(client.infer("pixels", {"x": MANY})["logits"], MANY.reshape(-1, 4) * 2)


def test_a_server_that_has_gone_is_said_so(host: ModelHost, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with LocalDoor(host, path):
        client = LocalClient(str(path))

    with client, pytest.raises(ServerGone):
        client.infer("pixels", {"x": PIXELS})
    with pytest.raises(ServerGone, match="edge-runtime serve"):
        connect(f"unix:{path}")


def test_a_client_that_was_closed_says_so(door: LocalDoor) -> None:
    client = LocalClient(str(door.path))
    client.close()

    with pytest.raises(ServerGone, match="closed"):
        client.infer("pixels", {"x": PIXELS})


def test_buffers_are_filled_and_answered_in_place(door: LocalDoor) -> None:
    with LocalClient(str(door.path)) as client, client.buffers("pixels", {"image": (3, 2, 2, 1)}) as buffers:
        buffers["image"][...] = 255
        answer = buffers.infer()
        view = answer["logits"]
        assert view.tolist() == [[2, 2, 2, 2]] * 3  # type: ignore[union-attr]
        buffers["image"][...] = 0
        buffers.infer()

        assert view.tolist() == [[0, 0, 0, 0]] * 3  # type: ignore[union-attr]


def test_a_buffer_of_unknown_size_asks_for_it(door: LocalDoor) -> None:
    with (
        LocalClient(str(door.path)) as client,
        pytest.raises(BadRequest, match="shapes="),
        client.buffers("pixels"),
    ):
        pass


def test_another_program_behind_the_socket_is_not_understood(tmp_path: Path) -> None:
    import socket
    import threading

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def talk() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"220 mail.example.org ESMTP ready, how do you do?\r\n" * 4)
                peer.recv(1000)

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(NotUnderstood):
            LocalClient(str(tmp_path / "s"))
        thread.join()


def test_the_client_does_not_import_the_server() -> None:
    code = (
        "import sys, edge_runtime.client; from edge_runtime.client import local, http; "
        "heavy = {'msgspec', 'onnxruntime', 'PIL', 'edge_runtime.serving', 'edge_runtime.inference', "
        "'edge_runtime.doors', 'asyncio', 'urllib.request'}; print(sorted(heavy & sys.modules.keys()))"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() == "[]"
