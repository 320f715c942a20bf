"""Stock clients of the Open Inference Protocol v2 over HTTP: tritonclient as it is, and plain HTTP clients."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
import tritonclient.utils.shared_memory as triton_shm
from tritonclient.utils import InferenceServerException

from edge_runtime.serving.host import ModelHost
from tests.fakes.pixels import picture, write_pixels
from tests.fakes.streams import Hearing, noise, silero
from tests.fakes.swap_load import Ask, Seen, swap_under_load, write_versions
from tests.fakes.v2_http_door import LOGITS, PIXELS, OpenDoor, open_door
from tests.unit.serving.releases import png


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenDoor]:
    folder = tmp_path_factory.mktemp("releases")
    write_pixels(folder / "pixels", "1.0.0")
    Hearing().write(folder / "vad")
    with ModelHost(nan="reject") as host:
        host.load(folder / "pixels")
        host.load(folder / "vad")
        with open_door(host) as opened:
            yield opened


@pytest.fixture
def client(opened: OpenDoor) -> Iterator[Any]:
    with triton.InferenceServerClient(opened.netloc) as client:
        yield client


@pytest.fixture
def plain(opened: OpenDoor) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=opened.door.address) as client:
        yield client


def tensor(name: str, values: Any, datatype: str, *, binary: bool = True) -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def pixels(*, binary: bool = True) -> Any:
    return tensor("x", PIXELS, "FP32", binary=binary)


def wanted(name: str, **options: Any) -> Any:
    return triton.InferRequestedOutput(name, **options)


def test_a_server_says_that_it_lives_is_ready_and_what_it_can(client: Any) -> None:
    metadata = client.get_server_metadata()

    assert client.is_server_live()
    assert client.is_server_ready()
    assert (metadata["name"], metadata["version"]) == ("edge-runtime", "1.2.3")
    assert {"binary_tensor_data", "system_shared_memory", "model_repository"} <= set(metadata["extensions"])


def test_a_server_without_a_model_lives_and_is_not_ready() -> None:
    with ModelHost() as host, open_door(host) as opened, triton.InferenceServerClient(opened.netloc) as client:
        assert client.is_server_live()
        assert not client.is_server_ready()


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


@pytest.mark.parametrize(("name", "version"), [("nobody", ""), ("pixels", "9"), ("../etc", ""), ("ü/%2e", "")])
def test_what_is_not_served_is_not_found(client: Any, name: str, version: str) -> None:
    asks = [
        lambda: client.infer(name, [pixels()], model_version=version),
        lambda: client.get_model_metadata(name, version),
        lambda: client.get_model_config(name, version),
        lambda: client.get_inference_statistics(name, version),
    ]

    assert not client.is_model_ready(name, version)
    for ask in asks:
        with pytest.raises(InferenceServerException, match="cannot") as refused:
            ask()
        assert refused.value.status() == "404"


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
        outputs=[wanted("logits", binary_data=binary_out)],
        request_id="seven",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )

    np.testing.assert_array_equal(answer.as_numpy("logits"), LOGITS * 200)
    assert answer.get_response()["id"] == "seven"
    assert answer.get_response()["model_version"] == "1.0.0"


def test_without_named_outputs_the_models_tensors_come_as_binary_data(client: Any) -> None:
    answer = client.infer("pixels", [pixels()])

    assert [one["name"] for one in answer.get_response()["outputs"]] == ["logits"]
    assert "binary_data_size" in answer.get_output("logits")["parameters"]
    np.testing.assert_array_equal(answer.as_numpy("logits"), LOGITS)


def test_numbers_and_answers_come_together_in_the_order_asked_for(client: Any) -> None:
    answer = client.infer(
        "pixels",
        [tensor("image", np.stack([picture(3), picture(1)]), "UINT8")],
        outputs=[wanted("classes"), wanted("logits", binary_data=False)],
    )

    assert [one["name"] for one in answer.get_response()["outputs"]] == ["classes", "logits"]
    assert [json.loads(one)[0]["label"] for one in answer.as_numpy("classes")] == ["three", "one"]
    assert answer.as_numpy("logits").argmax(axis=1).tolist() == [3, 1]


def test_encoded_pictures_are_one_element_each(client: Any) -> None:
    pictures = np.array([png(2), png(0)], dtype=object)

    answer = client.infer(
        "pixels", [tensor("image", pictures, "BYTES")], outputs=[wanted("classes", binary_data=False)]
    )

    assert [json.loads(one)[0]["label"] for one in answer.as_numpy("classes")] == ["two", "zero"]


def test_one_picture_may_be_the_whole_body(plain: httpx.Client) -> None:
    answer = plain.post("/v2/models/pixels/infer", content=png(2), headers={"Inference-Header-Content-Length": "0"})

    assert answer.status_code == 200
    head = int(answer.headers["Inference-Header-Content-Length"])
    assert np.frombuffer(answer.content[head:], np.float32).argmax() == 2


def test_nested_json_is_understood(plain: httpx.Client) -> None:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": PIXELS.tolist()}

    answer = plain.post("/v2/models/pixels/versions/1.0.0/infer", json={"inputs": [given]})

    assert answer.json()["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [1, 4], "data": LOGITS[0]}]


@pytest.mark.parametrize("binary", [True, False])
def test_the_best_classes_come_as_text(client: Any, binary: bool) -> None:
    answer = client.infer("pixels", [pixels()], outputs=[wanted("logits", binary_data=binary, class_count=2)])

    found = [one if isinstance(one, str) else one.decode() for one in answer.as_numpy("logits")[0]]
    assert found == ["2.000000:1:one", "1.000000:2:two"]


@pytest.mark.parametrize("has_uvloop", [True, False])
def test_tensors_larger_than_a_socket_takes_at_once_pass_on_either_event_loop(
    opened: OpenDoor, monkeypatch: pytest.MonkeyPatch, has_uvloop: bool
) -> None:
    if not has_uvloop:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    many = np.resize(PIXELS, (200_000, 1, 2, 2))
    with (
        open_door(opened.host) as other,
        triton.InferenceServerClient(other.netloc, concurrency=2) as client,
    ):
        under_way = [client.async_infer("pixels", [tensor("x", many, "FP32")]) for _ in range(3)]
        answers = [one.get_result().as_numpy("logits") for one in under_way]

    for answer in answers:
        np.testing.assert_array_equal(answer, np.resize(LOGITS, (200_000, 4)))


def test_an_asynchronous_client_is_answered(opened: OpenDoor) -> None:
    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(opened.netloc) as client:
            assert (await client.get_server_metadata())["name"] == "edge-runtime"
            return await asyncio.gather(*(client.infer("pixels", [pixels()], request_id=str(n)) for n in range(8)))

    answers = asyncio.run(ask())

    assert [answer.get_response()["id"] for answer in answers] == [str(number) for number in range(8)]
    assert all(answer.as_numpy("logits").tolist() == LOGITS for answer in answers)


def test_async_infer_of_the_ordinary_client_is_answered(opened: OpenDoor) -> None:
    with triton.InferenceServerClient(opened.netloc, concurrency=4) as client:
        under_way = [client.async_infer("pixels", [pixels()]) for _ in range(8)]

        assert all(one.get_result().as_numpy("logits").tolist() == LOGITS for one in under_way)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda: [tensor("y", PIXELS, "FP32")], "y"),
        (lambda: [pixels(), tensor("z", PIXELS, "FP32")], "takes image"),
        (list, "image is missing"),
        (lambda: [tensor("x", PIXELS.reshape(1, 4), "FP32")], "x"),
        (lambda: [tensor("x", PIXELS.astype(np.float64), "FP64")], "x"),
        (lambda: [tensor("image", np.zeros((1, 2, 2, 3), np.uint8), "UINT8")], "image"),
        (lambda: [tensor("image", np.array([b"no picture"], object), "BYTES")], "image"),
        (lambda: [tensor("x", PIXELS * np.float32("nan"), "FP32")], "x.*NaN"),
        (lambda: [tensor("x", PIXELS + np.float32("inf"), "FP32")], "x.*infinity"),
    ],
)
def test_a_wrong_question_is_refused_and_the_next_one_answered(client: Any, given: Any, why: str) -> None:
    with pytest.raises(InferenceServerException, match=why) as refused:
        client.infer("pixels", given())

    assert refused.value.status() == "400"
    assert client.infer("pixels", [pixels()]).as_numpy("logits").tolist() == LOGITS


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"datatype": "FP16"}, "takes 8 bytes, 16 came"),
        ({"datatype": "BF16"}, "BF16"),
        ({"shape": [1, 1, 2, 3]}, "takes 24 bytes"),
        ({"shape": [1, 1, 2, -2]}, "impossible"),
        ({"shape": [1 << 40, 1 << 40]}, "too many elements"),
        ({"parameters": {"binary_data_size": 17}}, "16 bytes are left"),
        ({"parameters": {"binary_data_size": 12}}, "takes 16 bytes, 12 came"),
        ({"parameters": {"binary_data_size": -1}}, "binary_data_size"),
        ({"parameters": {}}, "no data"),
        ({"shape": "all"}, "inference request"),
        ({"name": 5}, "inference request"),
    ],
)
def test_binary_data_that_does_not_fit_is_refused_by_name(plain: httpx.Client, change: Any, why: str) -> None:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 1, 2, 2], "parameters": {"binary_data_size": 16}, **change}
    head = json.dumps({"inputs": [given]}).encode()

    answer = plain.post(
        "/v2/models/pixels/infer",
        content=head + PIXELS.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )

    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert why in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "10000", "1 0", "٣"])
def test_a_json_length_that_cannot_be_is_refused(plain: httpx.Client, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length.encode()}

    assert plain.post("/v2/models/pixels/infer", content=b"{}", headers=headers).status_code == 400


def test_an_output_that_the_model_does_not_have_is_refused_by_name(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"'probability'.*logits, classes"):
        client.infer("pixels", [pixels()], outputs=[wanted("probability")])


def test_a_deadline_in_microseconds_is_kept(client: Any) -> None:
    assert client.infer("pixels", [pixels()], timeout=60_000_000).as_numpy("logits").tolist() == LOGITS
    with pytest.raises(InferenceServerException, match="deadline") as refused:
        client.infer("pixels", [pixels()], timeout=1)
    assert refused.value.status() == "504"


@pytest.mark.parametrize("priority", [1, 10, 1000])
def test_any_priority_is_answered(client: Any, priority: int) -> None:
    assert client.infer("pixels", [pixels()], priority=priority).as_numpy("logits").tolist() == LOGITS


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/models", "/v2/models/pixels/nothing", "/v2/models/pixels/versions//infer"]
)
def test_a_path_that_leads_nowhere_is_not_found(plain: httpx.Client, path: str) -> None:
    answer = plain.get(path)

    assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_a_wrong_method_is_told_the_right_one(plain: httpx.Client) -> None:
    assert (plain.get("/v2/models/pixels/infer").status_code, plain.post("/v2").status_code) == (405, 405)
    assert plain.delete("/v2").headers["Allow"] == "GET, HEAD"


def test_a_head_request_gets_the_length_and_no_body(plain: httpx.Client) -> None:
    answer = plain.head("/v2")

    assert answer.content == b""
    assert int(answer.headers["Content-Length"]) == len(plain.get("/v2").content)


@contextmanager
def region(client: Any, size: int) -> Iterator[tuple[str, Any]]:
    key = f"edgefleet-test-{uuid4().hex}"
    handle = triton_shm.create_shared_memory_region("r", key, size)
    try:
        client.register_system_shared_memory("r", f"/{key}", size)
        yield key, handle
    finally:
        client.unregister_system_shared_memory("r")
        triton_shm.destroy_shared_memory_region(handle)


def shared_question() -> tuple[Any, Any]:
    given = triton.InferInput("x", [1, 1, 2, 2], "FP32")
    given.set_shared_memory("r", 16)
    output = wanted("logits")
    output.set_shared_memory("r", 16, offset=32)
    return given, output


def test_tensors_travel_through_system_shared_memory(client: Any) -> None:
    with region(client, 64) as (key, handle):
        triton_shm.set_shared_memory_region(handle, [PIXELS])
        given, output = shared_question()

        answer = client.infer("pixels", [given], outputs=[output])

        parameters = answer.get_output("logits")["parameters"]
        assert (parameters["shared_memory_region"], parameters["shared_memory_byte_size"]) == ("r", 16)
        assert triton_shm.get_contents_as_numpy(handle, np.float32, [1, 4], 32).tolist() == LOGITS
        [status] = client.get_system_shared_memory_status()
        assert (status["name"], status["key"], status["byte_size"]) == ("r", f"/{key}", 64)


def test_a_region_that_shrinks_under_the_server_is_an_error_of_that_request(client: Any) -> None:
    with region(client, 64) as (key, _):
        (Path("/dev/shm") / key).open("r+b").truncate(8)
        given, output = shared_question()

        for inputs, outputs in (([given], None), ([pixels()], [output])):
            with pytest.raises(InferenceServerException, match="smaller") as refused:
                client.infer("pixels", inputs, outputs=outputs)
            assert refused.value.status() == "400"
        assert client.is_server_live()


def test_an_output_larger_than_its_place_is_refused(client: Any) -> None:
    with region(client, 64):
        output = wanted("logits")
        output.set_shared_memory("r", 15)

        with pytest.raises(InferenceServerException, match="16 bytes, 15"):
            client.infer("pixels", [pixels()], outputs=[output])


@pytest.mark.parametrize("key", ["/no-such-key", "../../etc/passwd", "/etc/passwd", ""])
def test_a_key_that_is_no_shared_memory_is_refused(client: Any, key: str) -> None:
    with pytest.raises(InferenceServerException, match="register region"):
        client.register_system_shared_memory("r", key, 16)


def test_cuda_shared_memory_is_refused_by_name_and_holds_nothing(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="CUDA shared memory region 'r'"):
        client.register_cuda_shared_memory("r", b"handle", 0, 16)

    client.unregister_cuda_shared_memory()
    assert client.get_cuda_shared_memory_status() == []


def test_traces_and_log_settings_are_refused_as_triton_without_them_does(client: Any) -> None:
    for ask in (client.get_trace_settings, client.get_log_settings, lambda: client.update_log_settings({})):
        with pytest.raises(InferenceServerException, match="does not support") as refused:
            ask()
        assert refused.value.status() == "503"


def test_statistics_count_what_was_answered_and_what_failed(client: Any) -> None:
    def stats() -> dict[str, Any]:
        [row] = client.get_inference_statistics("pixels")["model_stats"]
        return row

    before = stats()
    client.infer("pixels", [tensor("x", np.concatenate([PIXELS] * 3), "FP32")])
    with pytest.raises(InferenceServerException):
        client.infer("pixels", [tensor("x", PIXELS.reshape(4, 1), "FP32")])
    after = stats()

    def grown(*path: str) -> int:
        old, new = before, after
        for step in path:
            old, new = old[step], new[step]
        return new - old

    assert grown("inference_count") == 3
    assert grown("inference_stats", "success", "count") == 1
    assert grown("inference_stats", "fail", "count") == 1
    assert grown("inference_stats", "compute_infer", "ns") > 0
    assert {row["name"] for row in client.get_inference_statistics()["model_stats"]} == {"pixels", "vad"}


def test_a_repository_is_listed_loaded_from_and_unloaded(tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        write_pixels(tmp_path / "pixels" / version, version)
    with (
        ModelHost() as host,
        open_door(host, repository=tmp_path) as opened,
        triton.InferenceServerClient(opened.netloc) as client,
    ):
        assert [row["state"] for row in client.get_model_repository_index()] == ["UNAVAILABLE", "UNAVAILABLE"]

        client.load_model("pixels")
        client.load_model("pixels")
        loaded = client.get_model_metadata("pixels")["versions"]
        answer = client.infer("pixels", [pixels()]).as_numpy("logits")
        client.unload_model("pixels")

        assert loaded == ["1.10.0"]
        assert answer.tolist() == LOGITS
        assert not client.is_model_ready("pixels")


def test_another_version_of_the_repository_replaces_the_one_served(tmp_path: Path) -> None:
    for version in ("1.0.0", "2.0.0"):
        write_pixels(tmp_path / version, version)
    with (
        ModelHost() as host,
        open_door(host, repository=tmp_path) as opened,
        httpx.Client(base_url=opened.door.address) as client,
    ):
        for version in ("2.0.0", "1.0.0"):
            chosen = {"parameters": {"version": version}}
            assert client.post("/v2/repository/models/pixels/load", json=chosen).status_code == 200

            assert client.get("/v2/models/pixels").json()["versions"] == [version]


def test_only_what_lies_in_the_repository_is_loaded(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    write_pixels(outside / "secret", "1.0.0")
    inside.mkdir()
    (inside / "link").symlink_to(outside / "secret")
    with (
        ModelHost() as host,
        open_door(host, repository=inside) as opened,
        triton.InferenceServerClient(opened.netloc) as client,
    ):
        for name in ("../outside/secret", "/etc", "link", "pixels", "."):
            with pytest.raises(InferenceServerException, match=r"holds no such|nothing at this") as refused:
                client.load_model(name)
            assert refused.value.status() == "404"
        assert client.get_model_repository_index() == []


def test_a_release_is_loaded_as_it_was_signed(tmp_path: Path) -> None:
    write_pixels(tmp_path / "r", "1.0.0")
    with (
        ModelHost() as host,
        open_door(host, repository=tmp_path) as opened,
        triton.InferenceServerClient(opened.netloc) as client,
    ):
        with pytest.raises(InferenceServerException, match="would change what is loaded"):
            client.load_model("pixels", config="{}")

        assert not client.is_model_ready("pixels")


def test_without_a_repository_nothing_is_loaded_or_unloaded(client: Any) -> None:
    for ask in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="--repository"):
            ask("pixels")

    assert client.is_model_ready("pixels")
    assert {row["name"] for row in client.get_model_repository_index()} == {"pixels", "vad"}


def heard(client: Any, name: int | str, parts: list[npt.NDArray[np.float32]], turn: int) -> npt.NDArray[np.float32]:
    answer = client.infer(
        "vad",
        [tensor("audio", parts[turn], "FP32")],
        outputs=[wanted("output")],
        sequence_id=name,
        sequence_start=turn == 0,
        sequence_end=turn == len(parts) - 1,
    )
    scores: npt.NDArray[np.float32] = answer.as_numpy("output")
    return scores


def test_eight_interleaved_sequences_equal_eight_serial_ones(client: Any) -> None:
    sounds = [np.array_split(noise(0.3, seed=seed), 5) for seed in range(8)]
    serial = [np.concatenate([heard(client, "alone", parts, turn) for turn in range(5)]) for parts in sounds]

    pieces: list[list[Any]] = [[] for _ in sounds]
    for turn in range(5):
        for place, parts in enumerate(sounds):
            pieces[place].append(heard(client, place + 1, parts, turn))

    for interleaved, expected in zip(pieces, serial, strict=True):
        np.testing.assert_array_equal(np.concatenate(interleaved), expected)


@pytest.mark.needs_shared
def test_eight_interleaved_streams_of_silero_equal_eight_serial_ones(shared: Path, tmp_path: Path) -> None:
    silero(shared).write(tmp_path)
    sounds = [np.array_split(noise(0.4, seed=seed, rate_hz=16000), 4) for seed in range(8)]
    with ModelHost(threads=1) as host, open_door(host) as opened:
        host.load(tmp_path)
        with triton.InferenceServerClient(opened.netloc) as client:
            serial = [np.concatenate([heard(client, "alone", parts, turn) for turn in range(4)]) for parts in sounds]
            pieces: list[list[Any]] = [[] for _ in sounds]
            for turn in range(4):
                for place, parts in enumerate(sounds):
                    pieces[place].append(heard(client, place + 1, parts, turn))

    for interleaved, expected in zip(pieces, serial, strict=True):
        np.testing.assert_array_equal(np.concatenate(interleaved), expected)


def test_a_sequence_that_nobody_started_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="not started"):
        client.infer("vad", [tensor("audio", noise(0.1), "FP32")], sequence_id=99)


def swapped(folder: Path, swaps: int) -> Seen:
    releases = write_versions(folder)
    with ModelHost() as host, open_door(host) as opened:

        @contextmanager
        def connect() -> Iterator[Ask]:
            with triton.InferenceServerClient(opened.netloc) as client:

                def ask(given: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[Any]]:
                    answer = client.infer("pixels", [tensor("image", given, "UINT8")])
                    return answer.get_response()["model_version"], answer.as_numpy("logits")

                yield ask

        host.load(releases["1.0.0"])
        return swap_under_load(host, releases, connect, swaps=swaps)


def test_swaps_under_saturation_lose_and_mix_no_answer(tmp_path: Path) -> None:
    seen = swapped(tmp_path, swaps=10)

    assert (seen.failed, seen.mixed) == ([], [])
    assert seen.answers.keys() == {"1.0.0", "2.0.0"}


@pytest.mark.lab
def test_hundreds_of_swaps_under_saturation_take_no_memory(tmp_path: Path) -> None:
    seen = swapped(tmp_path, swaps=500)

    assert (seen.failed, seen.mixed) == ([], [])
    assert seen.growth_bytes < 5 * 1024 * 1024
