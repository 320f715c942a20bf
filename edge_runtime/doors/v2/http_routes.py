"""Which path asks for what: everything but inference is answered here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.http_answer import HttpAnswer, json_answer
from edge_runtime.doors.v2.regions import RegionStatus
from edge_runtime.doors.v2.service import V2Service, is_answering, wanted_version
from edge_runtime.serving.calls import BadCall

PLAIN_BODY_MAX_BYTES: Final = 64 * 1024
"""Of every request that brings no tensors."""

_Document = TypeVar("_Document")
Work = Callable[[V2Service, bytes], HttpAnswer]


@dataclass(frozen=True, slots=True)
class Route:
    """What a path asks for."""

    methods: Literal["GET, HEAD", "POST", "GET, HEAD, POST"]
    work: Work
    is_slow: bool = False
    """Takes longer than other connections can wait."""
    is_change: bool = False
    """Loads or frees a model: may take minutes, which what is merely slow cannot wait either."""


@dataclass(frozen=True, slots=True)
class InferRoute:
    """An inference request for a model; the empty version is the live one."""

    model: str
    version: str


class _Load(msgspec.Struct):
    parameters: dict[str, Any] = {}


class _Index(msgspec.Struct):
    ready: bool = False


class _Register(msgspec.Struct):
    key: str
    byte_size: int
    offset: int = 0


def find_route(path: str) -> Route | InferRoute | None:
    """What a path asks for; None when nothing does."""
    try:
        parts = (
            [unquote_to_bytes(part).decode() for part in path.split("/")[1:]] if "%" in path else path.split("/")[1:]
        )
    except UnicodeDecodeError:
        return None
    match parts:
        case ["v2"] | ["v2", ""]:
            return _get(lambda service, _: json_answer(service.metadata()))
        case ["v2", "health", "live"]:
            return _get(lambda *_: HttpAnswer())
        case ["v2", "health", "ready"]:
            return _get(lambda service, _: _ready(is_ready=service.is_ready()))
        case ["v2", "models", "stats"]:
            return _get(lambda service, _: json_answer(service.statistics()))
        case ["v2", "models", model, "versions", version, *rest] if model and version:
            return _model_route(model, version, rest)
        case ["v2", "models", model, *rest] if model:
            return _model_route(model, "", rest)
        case ["v2", "repository", *rest]:
            return _repository_route(rest)
        case ["v2", "systemsharedmemory" | "cudasharedmemory" as kind, *rest]:
            return _memory_route(kind, rest)
        case ["v2", "trace", "setting"]:
            return _unsupported("tracing")
        case ["v2", "logging"]:
            return _unsupported("dynamic logging")
        case _:
            return None


def _model_route(model: str, version: str, rest: list[str]) -> Route | InferRoute | None:
    match rest:
        case ["infer"]:
            return InferRoute(model, version)
        case []:
            return _get(lambda service, _: json_answer(service.model_metadata(model, version)))
        case ["ready"]:
            return _get(lambda service, _: _ready(is_ready=is_answering(service.find(model, version))))
        case ["config"]:
            return _get(lambda service, _: json_answer(service.model_config(model, version)))
        case ["stats"]:
            return _get(lambda service, _: json_answer(service.statistics(model, version)))
        case ["trace", "setting"] if not version:
            return _unsupported("tracing")
        case _:
            return None


def _repository_route(rest: list[str]) -> Route | None:
    match rest:
        case ["index"]:
            return Route("POST", _index, is_slow=True)
        case ["models", name, "load"]:
            return Route("POST", lambda service, body: _load(service, name, body), is_change=True)
        case ["models", name, "unload"]:
            return Route("POST", lambda service, _: _unload(service, name), is_change=True)
        case _:
            return None


def _memory_route(kind: str, rest: list[str]) -> Route | None:
    is_cuda = kind == "cudasharedmemory"
    match rest:
        case ["status"]:
            return _get(lambda service, _: json_answer([] if is_cuda else service.region_statuses()))
        case ["region", name, "status"]:
            return _get(lambda service, _: json_answer([] if is_cuda else service.region_statuses(name)))
        case ["region", name, "register"] if is_cuda:
            return Route("POST", lambda *_: _refuse_cuda(name))
        case ["region", name, "register"]:
            return Route("POST", lambda service, body: _register(service, name, body))
        # Clients forget all regions before they begin: that there are none is no error.
        case ["unregister"]:
            return Route("POST", lambda service, _: _unregister(service, is_cuda=is_cuda))
        case ["region", name, "unregister"]:
            return Route("POST", lambda service, _: _unregister(service, name, is_cuda=is_cuda))
        case _:
            return None


def _get(work: Work) -> Route:
    return Route("GET, HEAD", work)


def _ready(*, is_ready: bool) -> HttpAnswer:
    return HttpAnswer(200 if is_ready else 400)


def _unload(service: V2Service, name: str) -> HttpAnswer:
    service.unload(name)
    return HttpAnswer()


def _unregister(service: V2Service, name: str | None = None, *, is_cuda: bool) -> HttpAnswer:
    if not is_cuda:
        service.regions.unregister(name)
    return HttpAnswer()


def _index(service: V2Service, body: bytes) -> HttpAnswer:
    return json_answer(service.index(only_ready=_read(body, _Index).ready))


def _load(service: V2Service, name: str, body: bytes) -> HttpAnswer:
    service.load(name, wanted_version(name, _read(body, _Load).parameters))
    return HttpAnswer()


def _register(service: V2Service, name: str, body: bytes) -> HttpAnswer:
    wanted = _read(body, _Register)
    service.regions.register(RegionStatus(name, wanted.key, wanted.offset, wanted.byte_size))
    return HttpAnswer()


def _refuse_cuda(name: str) -> HttpAnswer:
    raise InferenceError(
        f"register CUDA shared memory region {shown(name)}",
        "this server supports none",
        "register system shared memory",
        code="unsupported_feature",
    )


def _unsupported(what: str) -> Route:
    def refuse(*_: object) -> HttpAnswer:
        raise InferenceError("answer", f"the server does not support {what}", code="not_supported_here")

    return Route("GET, HEAD, POST", refuse)


def _read(body: bytes, kind: type[_Document]) -> _Document:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadCall("read the request", f"its JSON is not as this path takes it ({shown(str(error), 300)})") from None
