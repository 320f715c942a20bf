"""What each method of `inference.GRPCInferenceService` answers: bytes in, bytes out; no network, no gRPC library."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, final

from edge_runtime.contract.errors import EdgeError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.doors.budget import Budget
from edge_runtime.doors.tally import Tally
from edge_runtime.doors.v2 import messages
from edge_runtime.doors.v2.grpc_infer import Asked, InferReader, answer_document, read_parameters
from edge_runtime.doors.v2.regions import RegionStatus
from edge_runtime.doors.v2.service import V2Service, is_answering, wanted_version
from edge_runtime.doors.v2.wire import Content, Document
from edge_runtime.inference.requests.refusals import unforeseen
from edge_runtime.serving.calls import Call, Reply, Ticket, UnknownModel
from edge_runtime.serving.served import Served

SERVICE: Final = "inference.GRPCInferenceService"

MESSAGES_BYTES: Final = 512 * 1024 * 1024
"""Of all questions to models that wait or are being answered."""

Method = Callable[[Content, "Caller"], bytes]

HEALTH_PATH: Final = "/grpc.health.v1.Health/Check"
_SERVING, _NOT_SERVING = 1, 2

STREAM: Final = "ModelStreamInfer"
"""The method that takes and gives many messages."""
SLOW: Final = frozenset({"RepositoryIndex"})
"""Methods that take longer than other clients can wait."""
CHANGES: Final = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
"""Methods that may take minutes, one after another."""

_DATA_TYPES: Final = (
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16",
    "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING",
)  # fmt: skip
"""Numbers of `inference.DataType`, model_config.proto."""


@final
class Caller:
    """Who waits for an answer, and may stop waiting at any moment.

    Args:
        deadline: `time.monotonic()` seconds; None: waits for ever.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._ticket: Ticket | None = None
        self._is_gone = False

    def leave(self) -> None:
        """The client gave up or was answered; what waits on its behalf never runs. Called from any thread."""
        self._is_gone = True
        self.withdraw()

    def withdraw(self) -> None:
        """What waits on its behalf never runs; it hears why."""
        if (ticket := self._ticket) is not None:
            ticket.cancel()

    def submit(self, served: Served, call: Call, done: Callable[[Reply | EdgeError], None]) -> None:
        """Have the answer worked out elsewhere; `done` is told of it."""
        self._ticket = served.submit(call, done)
        if self._is_gone:
            self._ticket.cancel()

    def ask(self, served: Served, call: Call) -> Reply:
        """The answer, in this thread, or nothing but an error once the caller has left. Raises: InferenceError."""
        # A model that is free is asked at once: nobody could withdraw that any more.
        if not served.is_busy:
            return served.call(call)
        outcome: SimpleQueue[Reply | EdgeError] = SimpleQueue()
        self.submit(served, call, outcome.put)
        answered = _first(outcome, call.deadline)
        if answered is None:
            # Counts as expired if it still waits; what has begun is answered.
            self.withdraw()
            answered = outcome.get()
        self._ticket = None
        if isinstance(answered, EdgeError):
            raise answered
        return answered


@final
class GrpcService:
    """The protocol over what both doors of a server share.

    Args:
        service: what that is.
        messages_bytes: what all messages may hold together that are being answered.
    """

    def __init__(self, service: V2Service, *, messages_bytes: int = MESSAGES_BYTES) -> None:
        self._service = service
        self.budget = Budget(messages_bytes, "memory for messages")
        self.reader = InferReader(service.regions)
        self.unary: Mapping[str, Method] = {
            "ModelInfer": self.infer,
            "ServerLive": lambda _content, _caller: messages.LIVE.write({"live": True}),
            "ServerReady": lambda _content, _caller: messages.READY.write({"ready": service.is_ready()}),
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda _content, _caller: messages.SERVER_METADATA.write(service.metadata()),
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._region_status,
            "SystemSharedMemoryRegister": self._register_region,
            "SystemSharedMemoryUnregister": self._unregister_region,
            # Clients forget all regions before they begin: that there are none is no error.
            "CudaSharedMemoryStatus": lambda _content, _caller: b"",
            "CudaSharedMemoryRegister": _unsupported("register CUDA shared memory", "register system shared memory"),
            "CudaSharedMemoryUnregister": lambda _content, _caller: b"",
            "TraceSetting": _unsupported("set traces", "read the statistics of each model"),
            "LogSettings": _unsupported("change what is logged", "set it where the server is started"),
        }

    def infer(self, content: Content, caller: Caller) -> bytes:
        """ModelInfer. Raises: EdgeError."""
        asked = self.reader.read(content, time.monotonic(), caller.deadline)
        return messages.INFER_RESPONSE.write(self._answer(asked, caller))

    def health(self, content: Content, _caller: Caller) -> bytes:
        """Whether the server is ready, as any gRPC server tells. Raises: InferenceError, code `not_found`."""
        asked = messages.HEALTH_REQUEST.read(content).get("service", "")
        if asked not in {"", SERVICE}:
            raise InferenceError("tell its health", f"there is no service {shown(asked)}", code="not_found")
        return messages.HEALTH.write({"status": _SERVING if self._service.is_ready() else _NOT_SERVING})

    def find(self, asked: Asked) -> Served:
        """The model that a request is about. Raises: UnknownModel."""
        return self._service.find(asked.model, asked.version)

    def write(self, asked: Asked, served: Served, reply: Reply) -> tuple[list[Content], int]:
        """The buffers that an answer consists of, and how many bytes they are. Raises: BadCall."""
        parts: list[Content] = []
        document = answer_document(asked, reply, self._service.regions, served.labels)
        return parts, messages.INFER_RESPONSE.append(parts, document)

    def infer_stream(self, contents: Iterator[Content | EdgeError], caller: Caller, tally: Tally) -> Iterator[bytes]:
        """ModelStreamInfer: one answer or one error for each request, in their order; an error ends nothing.

        Args:
            contents: the requests, and what went wrong with those that could not be received.
            caller: who asks.
            tally: counts them.
        """
        # Not a generator: that would keep a message, which no longer counts, for as long as it waits for the next one.
        return map(partial(self._infer_next, caller, tally), contents)

    def _infer_next(self, caller: Caller, tally: Tally, content: Content | EdgeError) -> bytes:
        name = ""
        try:
            if isinstance(content, EdgeError):
                raise content
            asked = self.reader.read(content, time.monotonic(), caller.deadline)
            name = asked.id
            answer: Document = {"infer_response": self._answer(asked, caller)}
        except Exception as error:  # noqa: BLE001 - one call's failure, whatever it is, must not end the stream
            told = error if isinstance(error, EdgeError) else unforeseen(error)
            # Which request failed is only told by the id in an otherwise empty answer.
            answer = {"error_message": str(told), "infer_response": {"id": name}}
            tally.refused()
        else:
            tally.answered()
        return messages.STREAM_RESPONSE.write(answer)

    def _answer(self, asked: Asked, caller: Caller) -> Document:
        served = self.find(asked)
        return answer_document(asked, caller.ask(served, asked.call), self._service.regions, served.labels)

    def _model_ready(self, content: Content, _caller: Caller) -> bytes:
        try:
            is_ready = is_answering(self._service.find(*_named(content)))
        except UnknownModel:
            is_ready = False
        return messages.READY.write({"ready": is_ready})

    def _model_metadata(self, content: Content, _caller: Caller) -> bytes:
        return messages.MODEL_METADATA.write(self._service.model_metadata(*_named(content)))

    def _model_config(self, content: Content, _caller: Caller) -> bytes:
        config = self._service.model_config(*_named(content))
        for tensor in (*config["input"], *config["output"]):
            tensor["data_type"] = _DATA_TYPES.index(tensor["data_type"])
        return messages.MODEL_CONFIG.write({"config": config})

    def _model_statistics(self, content: Content, _caller: Caller) -> bytes:
        return messages.MODEL_STATISTICS.write(self._service.statistics(*_named(content)))

    def _repository_index(self, content: Content, _caller: Caller) -> bytes:
        only_ready = messages.REPOSITORY_INDEX_REQUEST.read(content).get("ready", False)
        return messages.REPOSITORY_INDEX.write({"models": self._service.index(only_ready=only_ready)})

    def _load(self, content: Content, _caller: Caller) -> bytes:
        asked = messages.REPOSITORY_MODEL.read(content)
        name = asked.get("model_name", "")
        self._service.load(name, wanted_version(name, read_parameters(asked.get("parameters", ()))))
        return b""

    def _unload(self, content: Content, _caller: Caller) -> bytes:
        self._service.unload(messages.REPOSITORY_MODEL.read(content).get("model_name", ""))
        return b""

    def _region_status(self, content: Content, _caller: Caller) -> bytes:
        name, _ = _named(content)
        statuses = self._service.region_statuses(name or None)
        return messages.REGIONS.write({"regions": [{"key": one["name"], "value": one} for one in statuses]})

    def _register_region(self, content: Content, _caller: Caller) -> bytes:
        asked = messages.REGION.read(content)
        self._service.regions.register(
            RegionStatus(asked.get("name", ""), asked.get("key", ""), asked.get("offset", 0), asked.get("byte_size", 0))
        )
        return b""

    def _unregister_region(self, content: Content, _caller: Caller) -> bytes:
        name, _ = _named(content)
        self._service.regions.unregister(name or None)
        return b""


def _first(outcome: SimpleQueue[Reply | EdgeError], deadline: float | None) -> Reply | EdgeError | None:
    """The outcome, or None when the deadline comes first."""
    left = None if deadline is None else min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
    try:
        return outcome.get(timeout=left)
    except Empty:
        return None


def _named(content: Content) -> tuple[str, str]:
    """Name and version of a request about a model."""
    asked = messages.NAMED.read(content)
    return asked.get("name", ""), asked.get("version", "")


def _unsupported(what: str, instead: str) -> Method:
    def refuse(_content: Content, _caller: Caller) -> bytes:
        raise UnsupportedFeature(what, "this server does not offer it", instead)

    return refuse
