"""What each method of `inference.GRPCInferenceService` answers: bytes in, bytes out; no network, no gRPC library."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

from edge_runtime.contract.errors import EdgeError, UnsupportedFeature
from edge_runtime.doors.v2 import messages
from edge_runtime.doors.v2.grpc_infer import Asked, answer_document, read_infer
from edge_runtime.doors.v2.protocol import model_config, model_metadata, model_statistics, server_metadata
from edge_runtime.doors.v2.regions import RegionStatus, SystemRegions
from edge_runtime.doors.v2.wire import Document
from edge_runtime.serving.calls import UnknownModel
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.seating import ServedState
from edge_runtime.serving.served import Served

SERVICE: Final = "inference.GRPCInferenceService"

Deadline = float | None
"""`time.monotonic()` seconds; None: the client waits for ever."""

Method = Callable[[bytes, Deadline], bytes]

_ANSWERING: Final = frozenset({ServedState.READY, ServedState.DEGRADED})
_DATA_TYPES: Final = (
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16",
    "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING",
)  # fmt: skip
"""Numbers of `inference.DataType`, model_config.proto."""


@final
class GrpcService:
    """The protocol over the models of one host.

    Args:
        host: the models.
        regions: system shared memory, the same for all doors of a server.
        version: what the server calls its own version.
    """

    def __init__(self, host: ModelHost, regions: SystemRegions, version: str) -> None:
        self._host = host
        self._regions = regions
        self._version = version
        self.unary: Mapping[str, Method] = {
            "ModelInfer": self.infer,
            "ServerLive": lambda _content, _deadline: messages.LIVE.write({"live": True}),
            "ServerReady": lambda _content, _deadline: messages.READY.write({"ready": True}),
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda _content, _deadline: messages.SERVER_METADATA.write(server_metadata(version)),
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "SystemSharedMemoryStatus": self._region_status,
            "SystemSharedMemoryRegister": self._register_region,
            "SystemSharedMemoryUnregister": self._unregister_region,
            "CudaSharedMemoryStatus": _unsupported("list CUDA shared memory", "register system shared memory"),
            "CudaSharedMemoryRegister": _unsupported("register CUDA shared memory", "register system shared memory"),
            "CudaSharedMemoryUnregister": _unsupported("unregister CUDA shared memory", "it holds none"),
            "TraceSetting": _unsupported("set traces", "read the statistics of each model"),
            "LogSettings": _unsupported("change what is logged", "set it where the server is started"),
        }

    def infer(self, content: bytes, deadline: Deadline) -> bytes:
        """ModelInfer. Raises: EdgeError."""
        asked = read_infer(content, self._regions, time.monotonic(), deadline)
        return messages.INFER_RESPONSE.write(self._answer(asked))

    def infer_stream(self, contents: Iterator[bytes], deadline: Deadline) -> Iterator[bytes]:
        """ModelStreamInfer: one answer or one error for each request, in their order; an error ends nothing."""
        for content in contents:
            name = ""
            try:
                asked = read_infer(content, self._regions, time.monotonic(), deadline)
                name = asked.id
                answer: Document = {"infer_response": self._answer(asked)}
            except EdgeError as error:
                # Which request failed is only told by the id in an otherwise empty answer.
                answer = {"error_message": str(error), "infer_response": {"id": name}}
            yield messages.STREAM_RESPONSE.write(answer)

    def _answer(self, asked: Asked) -> Document:
        served = self._host.find(asked.model, asked.version)
        return answer_document(asked, served.call(asked.call), self._regions)

    def _model_ready(self, content: bytes, _deadline: Deadline) -> bytes:
        try:
            is_ready = self._named(content).state in _ANSWERING
        except UnknownModel:
            is_ready = False
        return messages.READY.write({"ready": is_ready})

    def _model_metadata(self, content: bytes, _deadline: Deadline) -> bytes:
        served = self._named(content)
        versions = [one.version for one in self._host.models() if one.name == served.name]
        return messages.MODEL_METADATA.write(model_metadata(served, versions))

    def _model_config(self, content: bytes, _deadline: Deadline) -> bytes:
        config = model_config(self._named(content))
        for tensor in (*config["input"], *config["output"]):
            tensor["data_type"] = _DATA_TYPES.index(tensor["data_type"])
        return messages.MODEL_CONFIG.write({"config": config})

    def _model_statistics(self, content: bytes, _deadline: Deadline) -> bytes:
        asked = messages.NAMED.read(content)
        name, version = asked.get("name", ""), asked.get("version", "")
        if name:
            self._host.find(name, version or None)
        models = [
            one
            for one in self._host.models()
            if name in {"", one.name} and version in {"", one.version}
        ]  # fmt: skip
        return messages.MODEL_STATISTICS.write(
            {"model_stats": [model_statistics(one, one.statistics()) for one in models]}
        )

    def _repository_index(self, content: bytes, _deadline: Deadline) -> bytes:
        only_ready = messages.REPOSITORY_INDEX_REQUEST.read(content).get("ready", False)
        models = [
            {"name": one.name, "version": one.version, "state": "READY" if one.state in _ANSWERING else "UNAVAILABLE"}
            for one in self._host.models()
            if not only_ready or one.state in _ANSWERING
        ]
        return messages.REPOSITORY_INDEX.write({"models": models})

    def _region_status(self, content: bytes, _deadline: Deadline) -> bytes:
        name = messages.NAMED.read(content).get("name") or None
        entries = [
            {
                "key": one.name,
                "value": {"name": one.name, "key": one.key, "offset": one.offset, "byte_size": one.byte_size},
            }
            for one in self._regions.statuses(name)
        ]
        return messages.REGIONS.write({"regions": entries})

    def _register_region(self, content: bytes, _deadline: Deadline) -> bytes:
        asked = messages.REGION.read(content)
        self._regions.register(
            RegionStatus(asked.get("name", ""), asked.get("key", ""), asked.get("offset", 0), asked.get("byte_size", 0))
        )
        return b""

    def _unregister_region(self, content: bytes, _deadline: Deadline) -> bytes:
        self._regions.unregister(messages.NAMED.read(content).get("name") or None)
        return b""

    def _named(self, content: bytes) -> Served:
        asked = messages.NAMED.read(content)
        return self._host.find(asked.get("name", ""), asked.get("version") or None)


def _unsupported(what: str, instead: str) -> Method:
    def refuse(_content: bytes, _deadline: Deadline) -> bytes:
        raise UnsupportedFeature(what, "this server does not offer it", instead)

    return refuse
