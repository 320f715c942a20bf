"""Stock clients of the Open Inference Protocol v2 over gRPC: tritonclient as it is, plain gRPC, and strangers."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from edge_runtime.contract.errors import EdgeError, TransportError, UnsupportedFeature
from edge_runtime.doors.access import Access, TlsFiles
from edge_runtime.doors.door import Listen
from edge_runtime.doors.tally import Tally
from edge_runtime.doors.v2.grpc import GrpcDoor
from edge_runtime.doors.v2.grpc_limits import RPCS_MAX, GrpcLimits
from edge_runtime.doors.v2.grpc_service import Caller, GrpcService
from edge_runtime.doors.v2.repository import Repository
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.host import ModelHost
from tests.fakes.pixels import picture, write_pixels
from tests.fakes.pki import make_ca

PIXELS = np.array([[[[0.0, 1.0], [0.5, 0.25]]]], np.float32)
LOGITS = [[0.0, 2.0, 1.0, 0.5]]
LOOPBACK = Listen("127.0.0.1", 0)


@dataclass(frozen=True)
class Open:
    """A door with one model behind it."""

    service: V2Service
    door: GrpcDoor


def open_door(service: V2Service, access: Access | None = None, **options: Any) -> Open:
    door = GrpcDoor(GrpcService(service), LOOPBACK, access or Access(), GrpcLimits(**options))
    door.start()
    return Open(service, door)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    write_pixels(folder, "1.0.0")
    return folder


@pytest.fixture(scope="module")
def opened(release: Path) -> Iterator[Open]:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1.2.3"))
        yield opened
        opened.door.stop(1.0)
        opened.service.regions.close()


@pytest.fixture
def client(opened: Open) -> Iterator[Any]:
    with triton.InferenceServerClient(opened.door.address) as client:
        yield client


@pytest.fixture
def channel(opened: Open) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(opened.door.address) as channel:
        yield channel


def tensor(name: str, values: Any, datatype: str) -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def pixels() -> Any:
    return tensor("x", PIXELS, "FP32")


def request(**changes: Any) -> Any:
    """A request as generated code makes it, in typed contents."""
    asked = service_pb2.ModelInferRequest(model_name="pixels", **changes)
    given = asked.inputs.add(name="x", datatype="FP32", shape=[1, 1, 2, 2])
    given.contents.fp32_contents.extend(PIXELS.ravel().tolist())
    return asked


def test_a_server_says_that_it_lives_is_ready_and_what_it_can(client: Any) -> None:
    metadata = client.get_server_metadata()

    assert client.is_server_live()
    assert client.is_server_ready()
    assert (metadata.name, metadata.version) == ("edge-runtime", "1.2.3")
    assert {"system_shared_memory", "statistics", "sequence", "classification"} <= set(metadata.extensions)


def test_a_model_says_what_it_takes_and_gives(client: Any) -> None:
    metadata = client.get_model_metadata("pixels", as_json=True)
    config = client.get_model_config("pixels").config

    assert metadata["versions"] == ["1.0.0"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": ["-1", "2", "2", "1"]}]
    assert metadata["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": ["-1", "4"]}
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [
        ("logits", 11, [-1, 4]),
        ("classes", 13, [-1]),
    ]


@pytest.mark.parametrize(("name", "version", "ready"), [("pixels", "", True), ("pixels", "1.0.0", True),
                                                        ("pixels", "9", False), ("nobody", "", False)])  # fmt: skip
def test_a_model_is_ready_when_it_answers(client: Any, name: str, version: str, ready: bool) -> None:
    assert client.is_model_ready(name, version) is ready


def test_raw_contents_are_answered_raw(client: Any) -> None:
    answer = client.infer("pixels", [pixels()], outputs=[triton.InferRequestedOutput("logits")], request_id="7")

    response = answer.get_response()
    assert answer.as_numpy("logits").tolist() == LOGITS
    assert (response.model_name, response.model_version, response.id) == ("pixels", "1.0.0", "7")


def test_without_named_outputs_all_canonical_ones_come(client: Any) -> None:
    response = client.infer("pixels", [pixels()]).get_response()

    assert [one.name for one in response.outputs] == ["logits"]


def test_typed_contents_are_answered_alike(channel: grpc.Channel) -> None:
    answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request())

    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == LOGITS[0]


def test_a_picture_travels_as_bytes_and_classes_come_as_json(client: Any) -> None:
    png = BytesIO()
    Image.fromarray(picture(2)[:, :, 0]).save(png, "PNG")
    image = tensor("image", np.array([png.getvalue()], np.object_), "BYTES")

    answer = client.infer("pixels", [image], outputs=[triton.InferRequestedOutput("classes")])

    (classes,) = answer.as_numpy("classes").tolist()
    assert b'"label":"two"' in classes.split(b"}")[0]


def test_an_array_of_pictures_is_preprocessed_here(client: Any) -> None:
    images = np.stack([picture(brightest) for brightest in (3, 1)])

    answer = client.infer("pixels", [tensor("image", images, "UINT8")])

    assert answer.as_numpy("logits").argmax(1).tolist() == [3, 1]


def test_classification_names_the_best_classes_with_their_scores(client: Any) -> None:
    wanted = triton.InferRequestedOutput("logits", class_count=2)

    answer = client.infer("pixels", [pixels()], outputs=[wanted])

    assert answer.as_numpy("logits").tolist() == [[b"2.000000:1:one", b"1.000000:2:two"]]


def test_statistics_count_what_was_answered_and_what_failed(client: Any) -> None:
    def counts() -> tuple[int, int, int]:
        (now,) = client.get_inference_statistics("pixels").model_stats
        return now.inference_count, now.inference_stats.success.count, now.inference_stats.fail.count

    before = counts()
    client.infer("pixels", [pixels()])
    with pytest.raises(InferenceServerException):
        client.infer("pixels", [tensor("x", np.zeros((1, 1, 3, 3), np.float32), "FP32")])

    assert [after - was for after, was in zip(counts(), before, strict=True)] == [1, 1, 1]
    assert len(client.get_inference_statistics().model_stats) == 1


def test_the_repository_lists_models_with_their_state(client: Any) -> None:
    (model,) = client.get_model_repository_index().models

    assert (model.name, model.version, model.state) == ("pixels", "1.0.0", "READY")


def test_models_are_loaded_replaced_and_unloaded_by_name_and_version(tmp_path: Path) -> None:
    for version in ("1.0.0", "2.0.0"):
        write_pixels(tmp_path / version, version)
    with ModelHost() as host:
        opened = open_door(V2Service(host, "1", Repository(tmp_path)))
        with triton.InferenceServerClient(opened.door.address) as client:
            empty = client.is_server_ready(), states(client)
            client.load_model("pixels", headers={}, config=None)
            newest = states(client)
            unknown = refused(lambda: client.load_model("nobody"))[0]
            changed = refused(lambda: client.load_model("pixels", config='{"max_batch_size": 8}'))
            client.unload_model("pixels")
            gone = states(client)
        opened.door.stop(1.0)

    assert empty == (False, {"1.0.0": "UNAVAILABLE", "2.0.0": "UNAVAILABLE"})
    assert newest == {"1.0.0": "UNAVAILABLE", "2.0.0": "READY"}
    assert unknown == "NOT_FOUND"
    assert changed[0] == "INVALID_ARGUMENT"
    assert "loaded as it was signed" in changed[1]
    assert gone == empty[1]


def states(client: Any) -> dict[str, str]:
    return {one.version: one.state for one in client.get_model_repository_index().models}


def test_without_a_repository_nobody_loads_anything(client: Any) -> None:
    code, why = refused(lambda: client.load_model("pixels"))

    assert code == "UNAVAILABLE"
    assert "start it with --repository" in why


def test_tensors_travel_through_system_shared_memory(client: Any, opened: Open) -> None:
    memory = SharedMemory(create=True, size=64)
    try:
        memory.buf[:16] = PIXELS.tobytes()
        client.register_system_shared_memory("both", memory.name, 64)
        given = triton.InferInput("x", [1, 1, 2, 2], "FP32")
        given.set_shared_memory("both", 16)
        wanted = triton.InferRequestedOutput("logits")
        wanted.set_shared_memory("both", 16, offset=32)

        answer = client.infer("pixels", [given], outputs=[wanted])

        output = answer.get_output("logits")
        assert output.parameters["shared_memory_region"].string_param == "both"
        assert output.parameters["shared_memory_byte_size"].int64_param == 16
        assert np.frombuffer(bytes(memory.buf[32:48]), np.float32).tolist() == LOGITS[0]
        assert client.get_system_shared_memory_status().regions["both"].byte_size == 64
        client.unregister_system_shared_memory("both")
        assert not client.get_system_shared_memory_status().regions
    finally:
        memory.close()
        memory.unlink()


@pytest.mark.parametrize("sequence_id", [7, "camera"])
def test_a_stream_answers_each_request_in_order(client: Any, sequence_id: int | str) -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))

    for number in range(5):
        client.async_stream_infer("pixels", [tensor("x", PIXELS * number, "FP32")], request_id=str(number))
    client.async_stream_infer("nobody", [pixels()], request_id="lost")
    client.async_stream_infer("pixels", [pixels()], request_id="last", enable_empty_final_response=True)
    got = [answers.get(timeout=30) for _ in range(7)]
    client.stop_stream()

    for number, (result, error) in enumerate(got[:5]):
        assert error is None
        assert result.get_response().id == str(number)
        assert result.as_numpy("logits").tolist() == (np.array(LOGITS) * number).tolist()
    assert got[5][0] is None
    assert "'nobody': it is not served here" in str(got[5][1])
    assert got[6][0].get_response().parameters["triton_final_response"].bool_param


def test_the_asyncio_client_works_as_well(opened: Open) -> None:
    async def ask() -> tuple[list[list[float]], bool, list[Any]]:
        async with triton_aio.InferenceServerClient(opened.door.address) as client:
            several = await asyncio.gather(*(client.infer("pixels", [pixels()]) for _ in range(8)))

            async def requests() -> Any:
                for number in range(3):
                    yield {"model_name": "pixels", "inputs": [pixels()], "request_id": str(number)}

            streamed = [result.get_response().id async for result, _ in client.stream_infer(requests())]
            return [one.as_numpy("logits").tolist() for one in several], await client.is_server_live(), streamed

    answers, is_live, streamed = asyncio.run(ask())

    assert answers == [LOGITS] * 8
    assert is_live
    assert streamed == ["0", "1", "2"]


def test_many_clients_at_once_get_each_its_own_answer(opened: Open) -> None:
    wrong: list[int] = []

    def ask(number: int) -> None:
        with triton.InferenceServerClient(opened.door.address) as client:
            for _ in range(10):
                answer = client.infer("pixels", [tensor("x", PIXELS * number, "FP32")]).as_numpy("logits")
                if answer.tolist() != (np.array(LOGITS) * number).tolist():
                    wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


def refused(call: Any) -> tuple[str, str]:
    """Status name and sentence of a call that must fail."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.status()).removeprefix("StatusCode."), str(caught.value.message())


@pytest.mark.parametrize(
    ("inputs", "outputs", "code", "why"),
    [
        ([("y", PIXELS, "FP32")], None, "INVALID_ARGUMENT", ""),
        ([("x", PIXELS.astype(np.float64), "FP64")], None, "INVALID_ARGUMENT", "float64"),
        ([("x", np.zeros((1, 1, 3, 3), np.float32), "FP32")], None, "INVALID_ARGUMENT", "a size is 3"),
        ([("x", PIXELS, "FP32")] * 2, None, "INVALID_ARGUMENT", "input 'x' twice"),
        ([("x", PIXELS, "FP32")], ["nothing"], "INVALID_ARGUMENT", "none of that name; choose one of logits, classes"),
        ([("x", PIXELS, "FP32")], ["logits"] * 2, "INVALID_ARGUMENT", "output twice"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    client: Any, inputs: list[Any], outputs: list[str] | None, code: str, why: str
) -> None:
    wanted = outputs and [triton.InferRequestedOutput(name) for name in outputs]

    said = refused(lambda: client.infer("pixels", [tensor(*one) for one in inputs], outputs=wanted))

    assert said[0] == code
    assert why in said[1]
    assert client.infer("pixels", [pixels()]).as_numpy("logits").tolist() == LOGITS


def test_unknown_models_and_versions_are_not_found(client: Any) -> None:
    assert refused(lambda: client.infer("nobody", [pixels()]))[0] == "NOT_FOUND"
    assert refused(lambda: client.infer("pixels", [pixels()], model_version="9"))[0] == "NOT_FOUND"
    assert refused(lambda: client.get_model_metadata("nobody"))[0] == "NOT_FOUND"
    assert refused(lambda: client.get_inference_statistics("nobody"))[0] == "NOT_FOUND"


def test_what_this_server_does_not_offer_is_unimplemented(client: Any, channel: grpc.Channel) -> None:
    code, why = refused(lambda: client.register_cuda_shared_memory("gpu", b"aGFuZGxl", 0, 64))

    assert code == "UNIMPLEMENTED"
    assert not client.get_cuda_shared_memory_status().regions
    assert "register system shared memory" in why
    assert refused(client.get_trace_settings)[0] == "UNIMPLEMENTED"
    assert refused(client.get_log_settings)[0] == "UNIMPLEMENTED"
    assert call_status(channel, "NoSuchMethod", b"") == "UNIMPLEMENTED"


def call_status(channel: grpc.Channel, method: str, content: bytes, **options: Any) -> str:
    """Name of the status that a call of a method with these bytes ends in."""
    try:
        channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(content, **options)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_a_deadline_in_the_past_never_reaches_the_model(client: Any, channel: grpc.Channel) -> None:
    (before,) = client.get_inference_statistics("pixels").model_stats

    too_late = refused(lambda: client.infer("pixels", [pixels()], timeout=1))
    at_once = call_status(channel, "ModelInfer", request().SerializeToString(), timeout=-1)

    (after,) = client.get_inference_statistics("pixels").model_stats
    assert too_late[0] == at_once == "DEADLINE_EXCEEDED"
    assert after.execution_count == before.execution_count


@pytest.mark.parametrize(
    "change",
    [
        {"raw_input_contents": [PIXELS.tobytes()]},
        {"raw_input_contents": [PIXELS.tobytes()] * 2},
    ],
)
def test_typed_and_raw_contents_do_not_mix(channel: grpc.Channel, change: dict[str, Any]) -> None:
    assert call_status(channel, "ModelInfer", request(**change).SerializeToString()) == "INVALID_ARGUMENT"


GARBAGE = st.binary(max_size=100)


@settings(max_examples=100)
@given(GARBAGE | GARBAGE.map(lambda tail: request().SerializeToString() + tail))
def test_bytes_that_are_no_request_are_one_clear_error(opened: Open, content: bytes) -> None:
    service = GrpcService(opened.service)

    with suppress(EdgeError):
        service.infer(content, Caller())
    (answer,) = service.infer_stream(iter([content]), Caller(), Tally())
    streamed = service_pb2.ModelStreamInferResponse.FromString(answer)
    assert streamed.error_message.startswith("cannot ") or streamed.infer_response.outputs


def test_a_stream_that_waits_for_its_next_message_keeps_none(opened: Open) -> None:
    asked = request(raw_input_contents=[PIXELS.tobytes()])
    asked.inputs[0].ClearField("contents")
    content = asked.SerializeToString()
    coming = [content]
    users = sys.getrefcount(content)

    answers = GrpcService(opened.service).infer_stream(iter(coming.pop, None), Caller(), Tally())
    answer = service_pb2.ModelStreamInferResponse.FromString(next(answers))

    assert answer.infer_response.outputs
    # The list has let go of it as well.
    assert sys.getrefcount(content) == users - 1


def test_an_error_that_nobody_expected_ends_no_stream(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(ModelHost, "find", find)
    tally = Tally()
    contents = iter([request(id="7").SerializeToString()] * 2)

    stream = GrpcService(opened.service).infer_stream(contents, Caller(), tally)

    answers = [service_pb2.ModelStreamInferResponse.FromString(answer) for answer in stream]
    assert [answer.infer_response.id for answer in answers] == ["7", "7"]
    assert all(answer.error_message.startswith("cannot answer: ZeroDivisionError") for answer in answers)
    assert tally.read(0).refused == 2


@settings(max_examples=200)
@given(st.data())
def test_no_method_is_hurt_by_bytes_that_are_not_its_message(opened: Open, data: st.DataObject) -> None:
    methods = GrpcService(V2Service(opened.service.host, "1")).unary
    name = data.draw(st.sampled_from(sorted(methods)))

    with suppress(EdgeError):
        assert isinstance(methods[name](data.draw(GARBAGE), Caller()), bytes)


def test_a_message_above_the_limit_is_refused_and_the_next_one_is_answered(release: Path) -> None:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"), message_max_bytes=100_000)
        with triton.InferenceServerClient(opened.door.address) as client:
            code, _ = refused(
                lambda: client.infer("pixels", [tensor("x", np.zeros((1, 1, 200, 200), np.float32), "FP32")])
            )
            answer = client.infer("pixels", [pixels()])
        opened.door.stop(1.0)

    assert code == "RESOURCE_EXHAUSTED"
    assert answer.as_numpy("logits").tolist() == LOGITS


def test_a_request_that_never_comes_whole_is_cut_off_and_frees_its_thread(release: Path) -> None:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"), patience_s=0.2)
        with grpc.insecure_channel(opened.door.address) as channel:
            method = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
            never = threading.Event()
            stalled = [method.future(iter(never.wait, True)) for _ in range(RPCS_MAX)]
            codes = {one.exception(30).code() for one in stalled}
            empty = method.future(iter(()))
            nothing = empty.exception(30).code()
            answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request())
            never.set()
        opened.door.stop(1.0)

    assert codes == {grpc.StatusCode.CANCELLED}
    assert nothing is grpc.StatusCode.INVALID_ARGUMENT
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == LOGITS[0]


def test_without_the_token_nobody_comes_in(release: Path) -> None:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"), Access(token=b"0123456789abcdef"))
        with triton.InferenceServerClient(opened.door.address) as client:
            stranger = refused(lambda: client.infer("pixels", [pixels()]))
            liar = refused(lambda: client.is_server_live(headers={"authorization": "Bearer 0123456789abcdeF"}))
            friend = client.infer("pixels", [pixels()], headers={"authorization": "Bearer 0123456789abcdef"})
        opened.door.stop(1.0)

    because = "the metadata's authorization does not bear this server's token; send 'Bearer TOKEN'"
    assert stranger == liar == ("UNAUTHENTICATED", f"cannot answer: {because}")
    assert friend.as_numpy("logits").tolist() == LOGITS


def test_a_supervisor_learns_of_the_servers_health_without_a_token(release: Path) -> None:
    with ModelHost() as host:
        opened = open_door(V2Service(host, "1"), Access(token=b"0123456789abcdef"))
        with grpc.insecure_channel(opened.door.address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            empty = check(b"")
            host.load(release)
            ready = check(b""), check(b"\x0a\x1einference.GRPCInferenceService")
            with pytest.raises(grpc.RpcError) as unknown:
                check(b"\x0a\x01x")
        opened.door.stop(1.0)

    assert empty == b"\x08\x02"
    assert set(ready) == {b"\x08\x01"}
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_one_client_too_many_is_hung_up_on_before_it_has_shaken_hands(release: Path) -> None:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"), connections=3)
        where = ("127.0.0.1", int(opened.door.address.rpartition(":")[2]))
        with ExitStack() as clients:
            peers = [clients.enter_context(socket.create_connection(where, timeout=30)) for _ in range(3)]
            # The server speaks first, whoever it has let in.
            told = [peer.recv(9) for peer in peers]
            one_more = clients.enter_context(socket.create_connection(where, timeout=30))
            try:
                beyond = one_more.recv(9)
            except ConnectionResetError:
                beyond = b""
        opened.door.stop(0)

    assert all(told)
    assert beyond == b""


def test_over_tls_a_client_that_knows_the_authority_is_answered(release: Path, tmp_path: Path) -> None:
    authority = make_ca(tmp_path)
    server = authority.issue("server")
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"), Access(tls=TlsFiles(server.cert_file, server.key_file)))
        trusting = triton.InferenceServerClient(opened.door.address, ssl=True, root_certificates=str(authority.ca_file))
        with trusting as client:
            answer = client.infer("pixels", [pixels()])
        with triton.InferenceServerClient(opened.door.address) as client:
            in_the_clear = refused(lambda: client.infer("pixels", [pixels()], client_timeout=5))[0]
        opened.door.stop(1.0)

    assert answer.as_numpy("logits").tolist() == LOGITS
    assert in_the_clear == "UNAVAILABLE"


def test_two_doors_cannot_share_an_address(opened: Open) -> None:
    host, _, port = opened.door.address.rpartition(":")
    second = GrpcDoor(GrpcService(opened.service), Listen(host, int(port)), Access())

    with pytest.raises(TransportError, match="the address is taken"):
        second.start()


def test_without_the_library_the_door_names_what_to_install(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2", None)
    door = GrpcDoor(GrpcService(opened.service), LOOPBACK, Access())

    with pytest.raises(UnsupportedFeature, match=r"pip install 'edgefleet\[serve\]'"):
        door.start()
