"""What a host and its worker process tell each other: small messages over a socket, tensors in memory that both map.

Either side may hand over a fresh piece of memory with a message, when what it has to say outgrows the old one.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections.abc import Mapping
from fcntl import F_ADD_SEALS, F_SEAL_SHRINK, fcntl
from typing import Final, TypeVar

import msgspec
import numpy as np

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.errors import TransportError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.layout import Descriptor
from edge_runtime.inference.requests.finite import NanPolicy
from edge_runtime.serving.calls import Values

MESSAGE_MAX_BYTES: Final = 64 * 1024 * 1024
_HEADER: Final = struct.Struct("<I")
_ALIGNMENT: Final = 64
"""Of each tensor, so that engines can read it where it lies."""

Kind = TypeVar("Kind")


class Start(msgspec.Struct, tag=True, frozen=True):
    """Host: load this variant of a release; its blobs can be asked for."""

    index: Descriptor
    variant: str
    engines: dict[str, str]
    """Backends by name, as import strings."""
    facts: DeviceFacts
    threads: int | None
    nan: NanPolicy
    tuned: str | None
    """As `TunedFrom`."""
    memory_bytes: int | None


class NeedBlob(msgspec.Struct, tag=True, frozen=True):
    """Worker: send me this blob."""

    descriptor: Descriptor
    max_bytes: int


class Blob(msgspec.Struct, tag=True, frozen=True):
    """Host: it is in the memory that comes with this message."""

    size: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """Worker: the variant is loaded."""


class AskGolden(msgspec.Struct, tag=True, frozen=True):
    """Host: ask the release's golden questions."""


class GoldenAnswers(msgspec.Struct, tag=True, frozen=True):
    """Worker: how they were answered."""

    checks: list[CheckResult]


class Placed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tensor in shared memory."""

    name: str
    offset: int
    dtype: str = ""
    """Empty for BYTES."""
    shape: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    """Of the elements of BYTES, which lie one after the other."""


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Host: answer this call."""

    inputs: list[Placed]
    outputs: tuple[str, ...] | None
    sequence: tuple[int | str, bool, bool] | None
    deadline: float | None
    """`time.monotonic()` seconds, which all processes of a machine count alike."""
    is_vouched_for: bool


class Told(msgspec.Struct, tag=True, frozen=True):
    """Worker: the answer."""

    tensors: list[Placed]
    stages_ns: list[tuple[int, int]]
    """Stage and duration, as `accounting` numbers stages."""
    samples: int
    sequences: list[int | str]
    """Those that are open now."""


class Refusal(msgspec.Struct, tag=True, frozen=True):
    """Either side: it cannot be done."""

    kind: str
    """`call`, `engine`, `contract`, `digest` or `other`."""
    cannot: str
    because: str
    remedy: str
    code: str
    sequences: list[int | str] = []


FromHost = Start | Blob | Refusal | AskGolden | Ask
FromWorker = NeedBlob | Ready | GoldenAnswers | Told | Refusal

_ENCODER: Final = msgspec.msgpack.Encoder()


class Channel:
    """One end of the socket between host and worker; one thread at a time.

    Args:
        end: a connected stream socket.
        expected: the messages that the other end sends.
    """

    def __init__(self, end: socket.socket, expected: object) -> None:
        self._end = end
        self._decoder: msgspec.msgpack.Decoder[object] = msgspec.msgpack.Decoder(expected)

    def send(self, message: msgspec.Struct, descriptor: int | None = None) -> None:
        """Send a message, with a file descriptor where there is one. Raises: OSError."""
        content = _ENCODER.encode(message)
        framed = _HEADER.pack(len(content)) + content
        sent = 0
        if descriptor is not None:
            sent = socket.send_fds(self._end, [framed], [descriptor])
        self._end.sendall(memoryview(framed)[sent:])

    def receive(self, timeout_s: float | None) -> tuple[object, int | None]:
        """The next message and the descriptor that came with it, which the caller closes.

        Raises:
            TimeoutError: nothing came in time.
            EOFError: the other end is gone.
            TransportError: what came is no message.
        """
        self._end.settimeout(timeout_s)
        header, descriptor = self._header()
        (size,) = _HEADER.unpack(header)
        if size > MESSAGE_MAX_BYTES:
            raise TransportError("read a message", f"its {size} bytes exceed {MESSAGE_MAX_BYTES}")
        try:
            return self._decoder.decode(self._exactly(size)), descriptor
        except msgspec.DecodeError as error:
            raise TransportError("read a message", str(error)) from error

    def close(self) -> None:
        """Hang up."""
        self._end.close()

    def _header(self) -> tuple[bytes, int | None]:
        space = socket.CMSG_LEN(array.array("i").itemsize)
        header, extra, _, _ = self._end.recvmsg(_HEADER.size, space)
        descriptors = array.array("i")
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        if not header:
            raise EOFError
        rest = self._exactly(_HEADER.size - len(header)) if len(header) < _HEADER.size else b""
        return header + rest, descriptors[0] if descriptors else None

    def _exactly(self, size: int) -> bytes:
        content = bytearray(size)
        view, filled = memoryview(content), 0
        while filled < size:
            received = self._end.recv_into(view[filled:])
            if not received:
                raise EOFError
            filled += received
        return bytes(content)


class Outbox:
    """Memory that this side writes and the other side reads; it grows by being replaced."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def put(self, tensors: Mapping[str, Values]) -> tuple[list[Placed], int | None]:
        """Write tensors one after the other.

        Returns:
            Where they lie, and the descriptor of fresh memory that must go with the message and be closed then; None
            while the old one is large enough.

        Raises:
            TypeError: arrays of objects.
            OSError: there is no memory for them.
        """
        placed, total = _plan(tensors)
        fresh = self._fit(total)
        try:
            self._write(placed, tensors)
        except BaseException:
            if fresh is not None:
                # The other side never hears of it, and must not be told later that something lies there.
                self._memory = None
                os.close(fresh)
            raise
        return placed, fresh

    def _write(self, placed: list[Placed], tensors: Mapping[str, Values]) -> None:
        assert self._memory is not None
        whole = np.frombuffer(self._memory, np.uint8)
        for place, values in zip(placed, tensors.values(), strict=True):
            if isinstance(values, list):
                content = b"".join(values)
                whole[place.offset : place.offset + len(content)] = np.frombuffer(content, np.uint8)
            elif values.nbytes:
                target = whole[place.offset : place.offset + values.nbytes].view(values.dtype).reshape(values.shape)
                np.copyto(target, values, casting="no")

    def _fit(self, size: int) -> int | None:
        if self._memory is not None and len(self._memory) >= size:
            return None
        # Powers of two: a caller whose pictures grow slowly does not get new memory for each.
        room = max(mmap.PAGESIZE, 1 << (size - 1).bit_length())
        descriptor = os.memfd_create("edgefleet-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, room)
            self._memory = mmap.mmap(descriptor, room)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class Inbox:
    """Memory that the other side writes."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def take(self, descriptor: int | None) -> None:
        """Read from this memory from now on, when there is one. Raises: TransportError."""
        if descriptor is None:
            return
        try:
            # Whoever could shrink it behind our back would end this process with a bus error.
            fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK)
            self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise TransportError("map the other side's memory", str(error)) from error
        finally:
            os.close(descriptor)

    def values(self, placed: list[Placed]) -> dict[str, Values]:
        """Tensors as views into the memory, valid until the other side writes again; BYTES are copies.

        Raises:
            TransportError: they do not lie inside the memory.
        """
        whole = memoryview(self._memory) if self._memory is not None else memoryview(b"")
        return {place.name: _view(whole, place) for place in placed}


def blob_memory(content: bytes) -> int:
    """The descriptor of memory that holds these bytes; the caller closes it."""
    descriptor = os.memfd_create("edgefleet-blob", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _plan(tensors: Mapping[str, Values]) -> tuple[list[Placed], int]:
    placed: list[Placed] = []
    offset = 0
    for name, values in tensors.items():
        if isinstance(values, list):
            placed.append(Placed(name, offset, lengths=tuple(map(len, values))))
            size = sum(placed[-1].lengths)
        else:
            placed.append(Placed(name, offset, values.dtype.str, values.shape))
            size = values.nbytes
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    return placed, max(offset, 1)


def _view(whole: memoryview, place: Placed) -> Values:
    try:
        if not place.dtype:
            offset, elements = place.offset, []
            for length in place.lengths:
                elements.append(bytes(whole[offset : offset + length]))
                if len(elements[-1]) != length:
                    raise ValueError("an element lies outside")
                offset += length
            return elements
        dtype = np.dtype(place.dtype)
        if dtype.hasobject:
            raise ValueError("no plain numbers")
        count = int(np.prod(place.shape, dtype=np.int64)) if place.shape else 1
        return np.frombuffer(whole, dtype, count, place.offset).reshape(place.shape)
    except (ValueError, TypeError) as error:
        raise TransportError(f"read tensor {place.name}", str(error)) from error
