"""A v2 HTTP door for tests, and a client that says exactly the bytes it is told to."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.doors.access import Access
from edge_runtime.doors.door import Listen
from edge_runtime.doors.v2.http import HttpDoor
from edge_runtime.doors.v2.http_limits import HttpLimits
from edge_runtime.doors.v2.repository import Repository
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.host import ModelHost

PIXELS = np.array([[[[0.0, 1.0], [0.5, 0.25]]]], np.float32)
LOGITS = [[0.0, 2.0, 1.0, 0.5]]
"""What the four-pixel classifier says of PIXELS."""


@dataclass(frozen=True)
class OpenDoor:
    """A door that answers."""

    host: ModelHost
    service: V2Service
    door: HttpDoor

    @property
    def netloc(self) -> str:
        """Host and port, as tritonclient takes them."""
        return self.door.address.partition("//")[2]

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.door.port), timeout=30)


@contextmanager
def open_door(
    host: ModelHost,
    *,
    repository: Path | None = None,
    access: Access | None = None,
    limits: HttpLimits | None = None,
) -> Iterator[OpenDoor]:
    """A door on a free port, stopped and drained at the end."""
    service = V2Service(host, "1.2.3", Repository(repository) if repository else None)
    door = HttpDoor(service, Listen("127.0.0.1", 0), access, limits)
    door.start()
    try:
        yield OpenDoor(host, service, door)
    finally:
        door.stop(5.0)
        service.regions.close()


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def infer(*headers: str, **changes: Any) -> bytes:
    """An inference request in JSON, as bytes."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": PIXELS.ravel().tolist()}
    return post("/v2/models/pixels/infer", json.dumps({"inputs": [tensor], **changes}).encode(), *headers)


def read_answer(peer: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, and body of the next answer; a closed connection raises EOFError."""
    stream = peer.makefile("rb", buffering=0)
    status = _line(stream)
    headers = {}
    while line := _line(stream):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    while len(body) < int(headers.get("content-length", "0")):
        piece = stream.read(int(headers["content-length"]) - len(body))
        if not piece:
            raise EOFError
        body += piece
    return int(status.split()[1]), headers, body


def _line(stream: Any) -> str:
    line = b""
    while not line.endswith(b"\r\n"):
        piece = stream.read(1)
        if not piece:
            raise EOFError
        line += piece
    return line[:-2].decode("latin-1")
