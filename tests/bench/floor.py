"""The floor under a v2 HTTP server in Python: receives into one buffer, asks the engine on the event loop, answers.

No checks, no limits, no queue, one model: what any server of this kind costs at least. Run beside the real door in the
same measurement; `python -m tests.bench.floor MODEL.onnx` prints its port.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

STAGE_BYTES = 16 * 1024


class Floor(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._stage = bytearray(STAGE_BYTES)
        self._body = bytearray()
        self._staged = self._have = self._length = self._json = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._fd = transport.get_extra_info("socket").fileno()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._in_body:
            return memoryview(self._body)[self._have : self._length]
        return memoryview(self._stage)[self._staged :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._in_body:
            self._have += nbytes
        else:
            self._staged += nbytes
            end = self._stage.find(b"\r\n\r\n", 0, self._staged)
            if end < 0:
                return
            self._begin(bytes(self._stage[:end]), end + 4)
        if self._have == self._length:
            self._in_body, self._staged = False, 0
            self._answer()

    def _begin(self, head: bytes, start: int) -> None:
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        self._length = int(fields[b"content-length"])
        self._json = int(fields[b"inference-header-content-length"])
        if len(self._body) < self._length:
            self._body = bytearray(self._length)
        self._have = self._staged - start
        self._body[: self._have] = self._stage[start : self._staged]
        self._in_body = True

    def _answer(self) -> None:
        body = memoryview(self._body)
        asked = json.loads(bytes(body[: self._json]))["inputs"][0]
        array = np.frombuffer(body[self._json : self._length], np.float32).reshape(asked["shape"])
        (found,) = self._session.run(None, {asked["name"]: array})
        output = {
            "name": "y",
            "datatype": "FP32",
            "shape": found.shape,
            "parameters": {"binary_data_size": found.nbytes},
        }
        document = json.dumps({"model_name": "probe", "model_version": "1", "outputs": [output]}).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(document)}\r\n"
            f"Content-Length: {len(document) + found.nbytes}\r\n\r\n"
        ).encode()
        os.writev(self._fd, [head, document, found.reshape(-1).view(np.uint8).data])


async def serve(model: bytes) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Floor(session), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    import uvloop

    uvloop.run(serve(Path(sys.argv[1]).read_bytes()))


if __name__ == "__main__":
    main()
