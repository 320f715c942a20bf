"""A client of the Open Inference Protocol v2 over HTTP with binary tensors, for this server and any other."""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, final
from urllib.parse import quote, urlsplit

import numpy as np

from edge_runtime.client import frames
from edge_runtime.client.elements import as_elements
from edge_runtime.client.errors import BadRequest, NotUnderstood, Refused, ServerGone, refused
from edge_runtime.client.http_connection import HttpConnection, Reply, Server
from edge_runtime.client.model import (
    MIDDLE_LEVEL,
    Answer,
    Array,
    Inputs,
    ModelDescription,
    Step,
    TensorDescription,
    Values,
    as_priority,
    time_left_us,
    wanted_names,
)
from edge_runtime.client.pool import Pool
from edge_runtime.client.stream import bytes_of
from edge_runtime.contract.errors import ContractError

_DATATYPES: Final = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bytes": "BYTES",
}  # fmt: skip
_NAMES: Final = {datatype: name for name, datatype in _DATATYPES.items()}
_BY_DTYPE: Final = {
    dtype: datatype
    for name, datatype in _DATATYPES.items()
    if name != "bytes"
    for dtype in (np.dtype(name), np.dtype(name).newbyteorder())
}
"""By the dtype itself, in either byte order: its name takes longer than everything else that is done to an input."""
_CODES: Final = {
    400: "bad_input", 401: "unauthorized", 403: "unauthorized", 404: "unknown_model", 408: "deadline",
    413: "bad_input", 429: "overloaded", 503: "overloaded", 504: "deadline",
}  # fmt: skip
_REMEMBERED: Final = 32


@final
class HttpClient:
    """Asks models over HTTP; any number of threads may use it, each call has a connection for itself.

    Args:
        address: `http://host:port` or `https://host:port`, with a path where the server stands behind one.
        token: sent as bearer token.
        tls: for https: whom to trust; None: the system's authorities.
        patience_s: how long to wait for any one answer.

    Raises:
        ContractError: no such address can be.
        ServerGone: nobody listens there.
    """

    def __init__(
        self, address: str, *, token: str = "", tls: ssl.SSLContext | None = None, patience_s: float = 60.0
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ContractError(f"connect to {address}", "it is no address of a server", "use http://HOST:PORT")
        token = token.strip()  # a file's last line ends
        if not token.isascii() or not token.isprintable():
            raise ContractError(f"connect to {address}", "no header can carry this token", "use printable ASCII")
        is_secret = parts.scheme == "https"
        server = Server(
            parts.hostname,
            parts.port or (443 if is_secret else 80),
            (tls or ssl.create_default_context()) if is_secret else None,
            patience_s,
        )
        self._base = quote(parts.path.rstrip("/"), safe="/%")
        self._fixed = f"Host: {parts.netloc.rpartition('@')[2]}\r\n".encode()
        if token:
            self._fixed += f"Authorization: Bearer {token}\r\n".encode()
        self._heads: dict[Any, bytes] = {}
        self._layouts: dict[bytes, _Layout] = {}
        self._pool = Pool(lambda: HttpConnection(server))
        self._pool.give_back(self._pool.open())

    def infer(
        self,
        model: str,
        inputs: Inputs,
        outputs: Iterable[str] | None = None,
        deadline_s: float | None = None,
        *,
        version: str = "",
        priority: int = 0,
        step: Step | None = None,
    ) -> Answer:
        """Ask a model, as `Client.infer`."""
        records, parts = _as_parts(inputs)
        wanted = wanted_names(outputs)
        priority = as_priority(priority)
        key = (model, version, wanted, deadline_s, priority, step, records)
        head = self._heads.get(key)
        if head is None:
            head = self._prepare(model, version, records, _question(records, wanted, deadline_s, priority, step))
            _remember(self._heads, key, head)
        reply = self._send(head, parts, may_repeat=step is None)
        return self._answer(reply)

    def describe(self, model: str, version: str = "") -> ModelDescription:
        """What a model takes and gives. Raises: Refused, TransportError."""
        reply = self._send(self._head("GET", _path(model, version)))
        try:
            told = json.loads(reply.json)
            inputs, outputs = (
                tuple(
                    TensorDescription(one["name"], _NAMES[one["datatype"]], tuple(map(int, one["shape"])))
                    for one in ones
                )
                for ones in (told["inputs"], told["outputs"])
            )
            return ModelDescription(str(told["name"]), version or str(told["versions"][-1]), inputs, outputs)
        except (AttributeError, ValueError, KeyError, TypeError, IndexError) as error:
            raise NotUnderstood("read a description", f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, model: str, version: str, records: tuple[Any, ...], question: dict[str, Any]) -> bytes:
        text = json.dumps(question, separators=(",", ":")).encode()
        whole = len(text) + sum(record[3] for record in records)
        lengths = f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {whole}\r\n".encode()
        head = self._head("POST", f"{_path(model, version)}/infer", lengths)
        return head + text

    def _head(self, verb: str, path: str, more: bytes = b"") -> bytes:
        return f"{verb} {self._base}{path} HTTP/1.1\r\n".encode() + self._fixed + more + b"\r\n"

    def _send(self, head: bytes, parts: list[Any] | None = None, *, may_repeat: bool = True) -> Reply:
        connection, is_used = self._pool.take()
        try:
            reply = self._try(connection, head, parts)
        except ServerGone:
            # The server closed a connection that nobody used for long, or was started again.
            if not (is_used and may_repeat) or connection.has_begun_to_answer:
                raise
            reply = self._try(self._pool.open(), head, parts)
        if reply.status != 200:
            raise _refusal_of(reply)
        return reply

    def _try(self, connection: HttpConnection, head: bytes, parts: list[Any] | None) -> Reply:
        try:
            return connection.request(head, parts or ())
        finally:
            if connection.is_usable:
                self._pool.give_back(connection)
            else:
                connection.close()

    def _answer(self, reply: Reply) -> Answer:
        layout = self._layouts.get(reply.json)
        try:
            if layout is None:
                layout = _Layout(json.loads(reply.json))
                if layout.is_binary:
                    _remember(self._layouts, reply.json, layout)
            return layout.read(reply.binary)
        except (ContractError, AttributeError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise NotUnderstood("read an answer", f"{type(error).__name__}: {error}") from error


class _Layout:
    """What the JSON of an answer says of its tensors; equal ones are read once."""

    def __init__(self, told: Any) -> None:
        self._model = str(told.get("model_name", ""))
        self._version = str(told.get("model_version", ""))
        self._outputs: list[tuple[str, str, tuple[int, ...], int | None, list[Any]]] = []
        for one in told["outputs"]:
            size = one.get("parameters", {}).get("binary_data_size")
            shape = tuple(map(int, one["shape"]))
            self._outputs.append((one["name"], _NAMES[one["datatype"]], shape, size, one.get("data", [])))
        self.is_binary = all(size is not None for *_, size, _ in self._outputs)

    def read(self, binary: memoryview) -> Answer:
        """The answer, over the binary part that belongs to it."""
        tensors: dict[str, Values] = {}
        at = 0
        for name, dtype, shape, size, data in self._outputs:
            if size is None:
                tensors[name] = _from_json(dtype, shape, data)
                continue
            tensors[name] = _from_binary(dtype, shape, binary[at : at + size])
            at += size
        return Answer(tensors, self._model, self._version)


def _from_binary(dtype: str, shape: tuple[int, ...], content: memoryview) -> Values:
    if dtype == "bytes":
        return frames.unpack_elements(bytes(content), math.prod(shape))
    if len(content) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{dtype} {list(shape)} came with {len(content)} bytes")
    array: Array = np.ndarray(shape, np.dtype(dtype).newbyteorder("<"), content)
    return array if array.flags.aligned else array.copy()


def _from_json(dtype: str, shape: tuple[int, ...], data: list[Any]) -> Values:
    if dtype == "bytes":
        return [str(element).encode() for element in data]
    return np.asarray(data, dtype).reshape(shape)


def _as_parts(inputs: Inputs) -> tuple[tuple[Any, ...], list[Any]]:
    """Name, datatype, shape and size of each input, and their bytes."""
    records: list[tuple[str, str, tuple[int, ...], int]] = []
    parts: list[Any] = []
    for name, values in inputs.items():
        if isinstance(values, np.ndarray):
            datatype = _BY_DTYPE.get(values.dtype)
            if datatype is None:
                raise BadRequest(f"send input {name}", f"{values.dtype} cannot travel", code="bad_input")
            part = bytes_of(np.ascontiguousarray(values, values.dtype.newbyteorder("<")))
            records.append((name, datatype, values.shape, values.nbytes))
        else:
            elements = as_elements(name, values)
            part = memoryview(frames.pack_elements(elements))
            records.append((name, "BYTES", (len(elements),), len(part)))
        if part.nbytes:
            parts.append(part)
    return tuple(records), parts


def _question(
    records: tuple[Any, ...], outputs: tuple[str, ...], deadline_s: float | None, priority: int, step: Step | None
) -> dict[str, Any]:
    """The JSON of a request (Triton's binary data, sequence and schedule extensions)."""
    parameters: dict[str, Any] = {}
    if left_us := time_left_us(deadline_s):
        parameters["timeout"] = left_us
    if priority:
        parameters["priority"] = MIDDLE_LEVEL - priority
    if step is not None:
        parameters |= {"sequence_id": step.sequence, "sequence_start": step.first, "sequence_end": step.last}
    if not outputs:
        parameters["binary_data_output"] = True
    question: dict[str, Any] = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": size}}
            for name, datatype, shape, size in records
        ],
    }
    if outputs:
        question["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    if parameters:
        question["parameters"] = parameters
    return question


def _path(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _refusal_of(reply: Reply) -> Refused:
    try:
        sentence = str(json.loads(reply.json)["error"])
    except (ValueError, KeyError, TypeError):
        sentence = f"the server answered with status {reply.status}"
    # Our own server says "cannot X: why; what to do".
    cannot, colon, rest = sentence.removeprefix("cannot ").partition(": ")
    if not (colon and sentence.startswith("cannot ")):
        cannot, rest = "get an answer", sentence
    because, _, remedy = rest.partition("; ")
    after = reply.headers.get(b"retry-after", b"")
    code = _CODES.get(reply.status, "internal")
    return refused(code, cannot, because, remedy, retry_after_s=float(after) if after.isdigit() else 0.0)


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
