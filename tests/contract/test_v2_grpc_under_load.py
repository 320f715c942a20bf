"""The gRPC door when a model is busy, swapped or remembers: who waits, who is turned away, who gets which answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from edge_runtime.contract.release import VariantManifest
from edge_runtime.doors.access import Access
from edge_runtime.doors.door import Listen
from edge_runtime.doors.v2.grpc import GrpcDoor
from edge_runtime.doors.v2.grpc_service import MESSAGES_BYTES, GrpcService
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.doors.v2.wire import BYTES, INT, STRING, Field, Message
from edge_runtime.inference.backend import BackendOptions, Files, Session, Tensors
from edge_runtime.serving.host import ModelHost
from tests.contract.test_v2_grpc import request
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.fakes.pixels import picture, write_pixels
from tests.fakes.streams import Hearing, noise
from tests.fakes.swap_load import Ask, Seen, swap_under_load, write_versions
from tests.fakes.v2_http_door import open_door as open_http_door

QUEUE_LIMIT = 4


@contextmanager
def door_of(host: ModelHost, messages_bytes: int = MESSAGES_BYTES) -> Iterator[str]:
    service = V2Service(host, "1")
    door = GrpcDoor(GrpcService(service, messages_bytes=messages_bytes), Listen("127.0.0.1", 0), Access())
    door.start()
    try:
        yield door.address
    finally:
        door.stop(5.0)


def tensor(name: str, values: Any, datatype: str) -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def until(holds: Callable[[], bool]) -> None:
    """Come back as soon as something holds."""
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        threading.Event().wait(0.002)


class Held(FaultyBackend):
    """Holds the first run until `stay_over`, every other until `go`; writes down what each is about."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults, "onnxruntime")
        self.stay_over, self.go = threading.Event(), threading.Event()
        self.order: list[int] = []

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        session = super().open(files, manifest, options)
        run = session.run

        def held(inputs: Tensors) -> dict[str, Any]:
            self.order.append(int(inputs["x"].argmax()))
            (self.go if self.order[1:] else self.stay_over).wait(60)
            return run(inputs)

        session.run = held  # type: ignore[method-assign]
        return session


@dataclass
class Busy:
    """A model whose every slot is taken until `go` is set."""

    host: ModelHost
    address: str
    held: Held
    taken: list[Future[Any]]
    pool: ThreadPoolExecutor
    client: Any

    def ask(self, brightest: int, **options: Any) -> Future[Any]:
        given = tensor("image", picture(brightest)[None], "UINT8")
        return self.pool.submit(self.client.infer, "pixels", [given], **options)

    def let_go(self) -> None:
        """Let every run end."""
        self.held.stay_over.set()
        self.held.go.set()

    @property
    def waiting(self) -> int:
        seat = self.host.find("pixels")._place.live.seating.seat
        return 0 if seat is None else seat.admission.waiting


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    write_pixels(tmp_path, "1.0.0")
    held = Held(Faults())
    with (
        ThreadPoolExecutor(32) as pool,
        ModelHost(registry={"onnxruntime": held}, queue_limit=QUEUE_LIMIT) as host,
        door_of(host) as address,
        triton.InferenceServerClient(address) as client,
    ):
        held.go.set()
        held.stay_over.set()
        served = host.load(tmp_path)
        held.stay_over.clear()
        busy = Busy(host, address, held, [], pool, client)
        try:
            # The golden questions, which a host asks before it serves, went through freely.
            held.order.clear()
            held.go.clear()
            while not served.is_busy:
                runs = len(held.order)
                busy.taken.append(busy.ask(0))
                until(lambda runs=runs: len(held.order) > runs)
            yield busy
        finally:
            busy.let_go()


def test_one_call_more_than_may_wait_is_refused_and_told_when_to_come_again(busy: Busy) -> None:
    waiting = [busy.ask(1) for _ in range(QUEUE_LIMIT)]
    until(lambda: busy.waiting == QUEUE_LIMIT)

    with grpc.insecure_channel(busy.address) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request())
    busy.let_go()

    trailers = dict(caught.value.trailing_metadata())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(trailers["grpc-retry-pushback-ms"]) >= 1
    assert retry_delay(trailers["grpc-status-details-bin"]) == (8, "type.googleapis.com/google.rpc.RetryInfo")
    assert all(future.result(60).as_numpy("logits").argmax() == 1 for future in waiting)


def test_messages_that_wait_are_bounded_in_bytes_and_make_room_when_they_are_answered(busy: Busy) -> None:
    question = request()
    with (
        door_of(busy.host, messages_bytes=question.ByteSize() * 3 // 2) as address,
        grpc.insecure_channel(address) as channel,
    ):
        ask = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        waiting = ask.future(question)
        until(lambda: busy.waiting == 1)

        with pytest.raises(grpc.RpcError) as caught:
            ask(question, timeout=60)
        busy.let_go()

        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "memory for messages" in caught.value.details()
        assert waiting.result(60).model_name == "pixels"
        assert ask(question).model_name == "pixels"


def test_a_stream_goes_on_after_a_message_for_which_there_was_no_room(busy: Busy) -> None:
    question = request()
    busy.let_go()
    with (
        door_of(busy.host, messages_bytes=question.ByteSize() - 1) as address,
        grpc.insecure_channel(address) as channel,
    ):
        smaller = request()
        smaller.model_name = "pix"
        answers = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([question, smaller]))
        errors = [answer.error_message for answer in answers]

    assert "memory for messages" in errors[0]
    assert "model 'pix': it is not served here" in errors[1]


def retry_delay(details: bytes) -> tuple[int, str]:
    """Code and kind of the first detail of a google.rpc.Status."""
    anything = Message(Field(1, "type_url", STRING), Field(2, "value", BYTES))
    status = Message(Field(1, "code", INT), Field(3, "details", anything, repeated=True)).read(details)
    return status["code"], status["details"][0]["type_url"]


def test_a_client_that_gives_up_while_it_waits_is_never_answered(busy: Busy) -> None:
    with grpc.insecure_channel(busy.address) as channel:
        pending = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(request())
        until(lambda: busy.waiting == 1)
        runs = len(busy.held.order)

        pending.cancel()
        until(lambda: busy.waiting == 0)
        busy.let_go()
        for future in busy.taken:
            future.result(60)

    assert len(busy.held.order) == runs
    assert busy.host.find("pixels").statistics().cancelled == 1


def test_a_stream_that_ends_while_its_call_waits_takes_the_call_along(busy: Busy) -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    with triton.InferenceServerClient(busy.address) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        client.async_stream_infer("pixels", [tensor("image", picture(1)[None], "UINT8")])
        until(lambda: busy.waiting == 1)

        client.stop_stream(cancel_requests=True)
        until(lambda: busy.waiting == 0)

    assert busy.host.find("pixels").statistics().cancelled == 1


def test_a_deadline_that_passes_in_the_line_ends_the_wait_and_the_model_is_not_asked(busy: Busy) -> None:
    runs = len(busy.held.order)

    late = busy.ask(1, client_timeout=0.2)
    late_by_parameter = busy.ask(1, timeout=200_000)
    errors = [late.exception(60), late_by_parameter.exception(60)]
    busy.let_go()
    for future in busy.taken:
        future.result(60)

    assert all(isinstance(error, InferenceServerException) for error in errors)
    assert [str(error.status()) for error in errors] == ["StatusCode.DEADLINE_EXCEEDED"] * 2  # type: ignore[union-attr]
    assert len(busy.held.order) == runs


@pytest.mark.parametrize("doors", [("grpc",), ("http",), ("grpc", "http")])
def test_of_those_who_wait_at_any_v2_door_the_urgent_are_asked_about_first(busy: Busy, doors: tuple[str, ...]) -> None:
    asked = []
    with open_http_door(busy.host) as http:
        for position, (brightest, level) in enumerate([(1, 0), (3, 20), (2, 1), (0, 0)]):
            if doors[position % len(doors)] == "grpc":
                asked.append(busy.ask(brightest, priority=level))
            else:
                asked.append(busy.pool.submit(ask_over_http, http.netloc, brightest, level))
            until(lambda position=position: busy.waiting == position + 1)
        taken = len(busy.held.order)

        # One slot alone, which takes one after another.
        busy.held.go.set()
        for future in asked:
            future.result(60)

    assert busy.held.order[taken:] == [2, 1, 0, 3]


def ask_over_http(address: str, brightest: int, level: int) -> Any:
    given = triton_http.InferInput("image", [1, 2, 2, 1], "UINT8")
    given.set_data_from_numpy(picture(brightest)[None])
    with triton_http.InferenceServerClient(address) as client:
        return client.infer("pixels", [given], priority=level)


def test_swaps_under_saturation_lose_and_mix_no_answer(tmp_path: Path) -> None:
    seen = swapped(tmp_path, swaps=10)

    assert (seen.failed, seen.mixed) == ([], [])
    assert seen.answers.keys() == {"1.0.0", "2.0.0"}


@pytest.mark.lab
def test_hundreds_of_swaps_under_saturation_take_no_memory(tmp_path: Path) -> None:
    seen = swapped(tmp_path, swaps=500)

    assert (seen.failed, seen.mixed) == ([], [])
    assert seen.growth_bytes < 5 * 1024 * 1024


def swapped(folder: Path, swaps: int) -> Seen:
    releases = write_versions(folder)
    with ModelHost() as host, door_of(host) as address:

        @contextmanager
        def connect() -> Iterator[Ask]:
            with triton.InferenceServerClient(address) as client:

                def ask(given: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[Any]]:
                    answer = client.infer("pixels", [tensor("image", given, "UINT8")])
                    return answer.get_response().model_version, answer.as_numpy("logits")

                yield ask

        host.load(releases["1.0.0"])
        return swap_under_load(host, releases, connect, swaps=swaps)


@pytest.fixture
def hearing(tmp_path: Path) -> Iterator[Any]:
    Hearing().write(tmp_path / "vad")
    with ModelHost() as host, door_of(host) as address, triton.InferenceServerClient(address) as client:
        host.load(tmp_path / "vad")
        yield client


def heard(client: Any, name: int | str, parts: list[npt.NDArray[np.float32]], turn: int) -> Any:
    answer = client.infer(
        "vad",
        [tensor("audio", parts[turn], "FP32")],
        outputs=[triton.InferRequestedOutput("output")],
        sequence_id=name,
        sequence_start=turn == 0,
        sequence_end=turn == len(parts) - 1,
    )
    return answer.as_numpy("output")


def test_eight_interleaved_sequences_equal_eight_serial_ones(hearing: Any) -> None:
    sounds = [np.array_split(noise(0.3, seed=seed), 5) for seed in range(8)]
    serial = [np.concatenate([heard(hearing, "alone", parts, turn) for turn in range(5)]) for parts in sounds]

    pieces: list[list[Any]] = [[] for _ in sounds]
    for turn in range(5):
        for place, parts in enumerate(sounds):
            pieces[place].append(heard(hearing, place + 1, parts, turn))

    for interleaved, expected in zip(pieces, serial, strict=True):
        np.testing.assert_array_equal(np.concatenate(interleaved), expected)


def test_sequences_through_streams_equal_those_through_single_calls(hearing: Any) -> None:
    parts = np.array_split(noise(0.3, seed=3), 5)
    expected = [heard(hearing, "single", parts, turn) for turn in range(5)]

    answers: SimpleQueue[Any] = SimpleQueue()
    hearing.start_stream(callback=lambda result, error: answers.put((result, error)))
    for turn, part in enumerate(parts):
        hearing.async_stream_infer(
            "vad", [tensor("audio", part, "FP32")], outputs=[triton.InferRequestedOutput("output")],
            sequence_id=77, sequence_start=turn == 0, sequence_end=turn == 4,
        )  # fmt: skip
    got = [answers.get(timeout=60) for _ in parts]
    hearing.stop_stream()

    assert [error for _, error in got] == [None] * 5
    for (result, _), one in zip(got, expected, strict=True):
        np.testing.assert_array_equal(result.as_numpy("output"), one)


def test_a_sequence_that_nobody_started_is_refused(hearing: Any) -> None:
    with pytest.raises(InferenceServerException, match="not started") as caught:
        hearing.infer("vad", [tensor("audio", noise(0.1), "FP32")], sequence_id=99)

    assert str(caught.value.status()) == "StatusCode.INVALID_ARGUMENT"
