"""The wire format of the local door, as both ends read and write it (docs/local-door.md); pure, little-endian.

Every message is a header of 32 bytes, a head of up to 64 KiB that describes tensors, and a body of bytes. A head never
holds what differs from call to call (deadline, number of the call), so that equal calls have equal heads and both ends
may remember what they found in one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from edge_runtime.contract.errors import ContractError

MAGIC: Final = b"edgeflt\0"
VERSION: Final = 1
HEAD_MAX_BYTES: Final = 64 * 1024
ALIGNMENT: Final = 64
"""Every tensor begins at a multiple of it, in a region as in a body: vector units read whole cache lines."""
TENSORS_MAX: Final = 256
AXES_MAX: Final = 16
IN_BODY: Final = 0
"""The region number that means the message's own body."""
FIRST: Final = 1
"""Flag of a call: it begins its sequence."""
LAST: Final = 2
"""Flag of a call: it ends its sequence."""
GO_ON: Final = 1
"""Flag of the answer to MAP: send the file descriptor now."""

HEADER: Final = struct.Struct("<BBHIIiQQ")
"""kind, flags, 0, number, head bytes, priority, time left in microseconds (0: no deadline), body bytes."""
_HELLO: Final = struct.Struct("<8sI")
_WELCOME: Final = struct.Struct("<8sIIQQ")
_CALL: Final = struct.Struct("<HHHHHHIQQ")
_ANSWER: Final = struct.Struct("<HHHH")
_REFUSAL: Final = struct.Struct("<IHHHH")
_TENSOR: Final = struct.Struct("<BBHIQQ")
_SHORT: Final = struct.Struct("<H")


class Kind(IntEnum):
    """What a message is; an answer has its question's kind plus 128."""

    HELLO = 0
    CALL = 1
    DESCRIBE = 2
    LIST = 3
    MAP = 4
    UNMAP = 5
    WELCOME = 128
    ANSWER = 129
    DESCRIPTION = 130
    LISTING = 131
    MAPPED = 132
    UNMAPPED = 133
    REFUSAL = 255


DTYPES: Final = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
    "bytes",
)  # fmt: skip
"""numpy names by their number on the wire; `bytes` are elements of 4 bytes of length and that many bytes each."""
_CODES: Final = {name: code for code, name in enumerate(DTYPES)}


class TensorRecord(NamedTuple):
    """One tensor and where its bytes lie."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """In a description, −1 stands for a size that may vary."""
    region: int = IN_BODY
    offset: int = 0
    size: int = 0
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Room:
    """A part of a region; `bytes` 0: none."""

    region: int = IN_BODY
    offset: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class CallHead:
    """One call, as far as it is the same for each repetition."""

    model: str
    inputs: tuple[TensorRecord, ...]
    version: str = ""
    """Empty: the one that the host has in front."""
    outputs: tuple[str, ...] = ()
    """Empty: all that the model gives by default."""
    sequence: str = ""
    """Empty: the call belongs to none."""
    room: Room = Room()
    """Where answers may be written; those that do not fit come in the answer's body."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """One answer, its tensors in order."""

    model: str
    version: str
    tensors: tuple[TensorRecord, ...]


@dataclass(frozen=True, slots=True)
class DescriptionHead:
    """What a model takes and gives, and the state it is in."""

    model: str
    version: str
    state: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]


@dataclass(frozen=True, slots=True)
class RefusalHead:
    """Why there is no answer, in the parts of an `EdgeError`."""

    code: str
    cannot: str
    because: str
    remedy: str = ""
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class WelcomeHead:
    """What a door grants to a connection; no shared memory where `regions` is 0."""

    version: int
    regions: int
    region_max_bytes: int
    body_max_bytes: int


def aligned(offset: int) -> int:
    """The next place at which a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def pack_hello(version: int = VERSION) -> bytes:
    """A client's first message."""
    return _HELLO.pack(MAGIC, version)


def unpack_hello(content: bytes) -> int:
    """The version that a client speaks. Raises: ContractError."""
    if len(content) != _HELLO.size or not content.startswith(MAGIC):
        raise ContractError("read a greeting", "the peer does not speak the local door's protocol")
    return int(_HELLO.unpack(content)[1])


def pack_welcome(welcome: WelcomeHead) -> bytes:
    """A door's answer to a greeting."""
    return _WELCOME.pack(MAGIC, welcome.version, welcome.regions, welcome.region_max_bytes, welcome.body_max_bytes)


def unpack_welcome(content: bytes) -> WelcomeHead:
    """What a door grants. Raises: ContractError."""
    if len(content) != _WELCOME.size or not content.startswith(MAGIC):
        raise ContractError("read a welcome", "the peer does not speak the local door's protocol")
    return WelcomeHead(*_WELCOME.unpack(content)[1:])


def pack_call(head: CallHead) -> bytes:
    """The head of a call. Raises: ContractError: it is too long."""
    names = [head.model.encode(), head.version.encode(), head.sequence.encode()]
    counts = (*map(len, names), len(head.outputs), len(head.inputs), 0)
    fixed = _fixed(_CALL, *counts, head.room.region, head.room.offset, head.room.bytes)
    return _bounded(b"".join((fixed, *names, *map(_text, head.outputs), *map(_record, head.inputs))))


def unpack_call(content: bytes) -> CallHead:
    """A call from its head. Raises: ContractError."""
    reader = _Reader(content, "a call")
    model, version, sequence, outputs, inputs, _, region, offset, size = reader.take(_CALL)
    names = reader.text(model), reader.text(version), reader.text(sequence)
    wanted = tuple(reader.short_text() for _ in range(reader.count(outputs)))
    tensors = reader.tensors(inputs)
    reader.end()
    return CallHead(names[0], tensors, names[1], wanted, names[2], Room(region, offset, size))


def pack_answer(head: AnswerHead) -> bytes:
    """The head of an answer. Raises: ContractError: it is too long."""
    return _bounded(_named(head.model, head.version, head.tensors))


def unpack_answer(content: bytes) -> AnswerHead:
    """An answer from its head. Raises: ContractError."""
    reader = _Reader(content, "an answer")
    model, version, tensors, _ = reader.take(_ANSWER)
    head = AnswerHead(reader.text(model), reader.text(version), reader.tensors(tensors))
    reader.end()
    return head


def pack_name(model: str, version: str = "") -> bytes:
    """The head that names a model: of DESCRIBE."""
    return _bounded(_named(model, version, ()))


def pack_description(head: DescriptionHead) -> bytes:
    """The head of a description: model, version and inputs as in an answer, then the outputs, then the state."""
    outputs = _named("", "", head.outputs)
    return _bounded(_named(head.model, head.version, head.inputs) + outputs + _text(head.state))


def unpack_description(content: bytes) -> DescriptionHead:
    """A description from its head. Raises: ContractError."""
    reader = _Reader(content, "a description")
    model, version, inputs, _ = reader.take(_ANSWER)
    names = reader.text(model), reader.text(version)
    taken = reader.tensors(inputs)
    _, _, outputs, _ = reader.take(_ANSWER)
    given = reader.tensors(outputs)
    state = reader.short_text()
    reader.end()
    return DescriptionHead(*names, state, taken, given)


def pack_listing(models: Sequence[tuple[str, str, str]]) -> bytes:
    """Name, version and state of each model. Raises: ContractError: too many."""
    texts = b"".join(_text(part) for model in models for part in model)
    return _bounded(_SHORT.pack(len(models)) + texts)


def unpack_listing(content: bytes) -> list[tuple[str, str, str]]:
    """Name, version and state of each model. Raises: ContractError."""
    reader = _Reader(content, "a list of models")
    (count,) = reader.take(_SHORT)
    parts = [reader.short_text() for _ in range(3 * count)]
    reader.end()
    return list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))


def pack_refusal(head: RefusalHead) -> bytes:
    """The head of a refusal; parts that are too long are cut."""
    parts = [part.encode()[:4096] for part in (head.code, head.cannot, head.because, head.remedy)]
    return _REFUSAL.pack(min(head.retry_after_ms, 0xFFFFFFFF), *map(len, parts)) + b"".join(parts)


def unpack_refusal(content: bytes) -> RefusalHead:
    """A refusal from its head. Raises: ContractError."""
    reader = _Reader(content, "a refusal")
    after, *sizes = reader.take(_REFUSAL)
    # A part may have been cut inside a character.
    code, cannot, because, remedy = (reader.text(size, errors="replace") for size in sizes)
    reader.end()
    return RefusalHead(code, cannot, because, remedy, after)


def pack_elements(elements: Sequence[bytes]) -> bytes:
    """Elements of a `bytes` tensor: each with its length in 4 bytes before it."""
    return b"".join(part for element in elements for part in (len(element).to_bytes(4, "little"), element))


def unpack_elements(content: bytes, count: int) -> list[bytes]:
    """The elements of a `bytes` tensor.

    Args:
        content: a private copy: lengths must not change between the look and the use.
        count: how many there must be.

    Raises:
        ContractError: lengths and bytes do not match.
    """
    elements: list[bytes] = []
    at = 0
    # Compared first: each element takes 4 bytes at least, so no count asks for more than was sent.
    while len(elements) < count and at + 4 <= len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        if size > len(content) - at - 4:
            raise ContractError(
                "read bytes", f"element {len(elements)} says {size} bytes, {len(content) - at - 4} left"
            )
        elements.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    if len(elements) != count or at != len(content):
        raise ContractError("read bytes", f"{len(content)} bytes do not hold exactly {count} elements")
    return elements


def _named(model: str, version: str, tensors: Sequence[TensorRecord]) -> bytes:
    names = [model.encode(), version.encode()]
    return b"".join((_fixed(_ANSWER, *map(len, names), len(tensors), 0), *names, *map(_record, tensors)))


def _record(tensor: TensorRecord) -> bytes:
    name = tensor.name.encode()
    code = _CODES.get(tensor.dtype)
    if code is None or len(tensor.shape) > AXES_MAX:
        raise ContractError(f"send tensor {tensor.name}", f"{tensor.dtype} {list(tensor.shape)} cannot travel")
    fixed = _fixed(_TENSOR, code, len(tensor.shape), len(name), tensor.region, tensor.offset, tensor.size)
    return fixed + struct.pack(f"<{len(tensor.shape)}q", *tensor.shape) + name


def _text(text: str) -> bytes:
    content = text.encode()
    return _fixed(_SHORT, len(content)) + content


def _fixed(form: struct.Struct, *values: int) -> bytes:
    try:
        return form.pack(*values)
    except struct.error as error:
        raise ContractError("send a message", f"a name, a count or a size is too large ({error})") from error


def _bounded(content: bytes) -> bytes:
    if len(content) > HEAD_MAX_BYTES:
        raise ContractError("send a message", f"its head has {len(content)} bytes, {HEAD_MAX_BYTES} are allowed")
    return content


class _Reader:
    """Takes one field after the other; whatever is missing or left over is one clear error."""

    def __init__(self, content: bytes, what: str) -> None:
        self._content, self._what, self._at = content, what, 0

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        end = self._at + form.size
        if end > len(self._content):
            raise self._broken(f"it ends after {len(self._content)} bytes, inside a field")
        values = form.unpack_from(self._content, self._at)
        self._at = end
        return values

    def text(self, size: int, errors: str = "strict") -> str:
        end = self._at + size
        if end > len(self._content):
            raise self._broken(f"it ends after {len(self._content)} bytes, inside a name")
        try:
            found = self._content[self._at : end].decode(errors=errors)
        except UnicodeDecodeError as error:
            raise self._broken("a name is not UTF-8") from error
        self._at = end
        return found

    def short_text(self) -> str:
        (size,) = self.take(_SHORT)
        return self.text(size)

    def count(self, wanted: int) -> int:
        if wanted > TENSORS_MAX:
            raise self._broken(f"it has {wanted} tensors, {TENSORS_MAX} are allowed")
        return wanted

    def tensors(self, wanted: int) -> tuple[TensorRecord, ...]:
        return tuple(self._tensor() for _ in range(self.count(wanted)))

    def end(self) -> None:
        if self._at != len(self._content):
            raise self._broken(f"{len(self._content) - self._at} bytes are left over")

    def _tensor(self) -> TensorRecord:
        code, rank, name_bytes, region, offset, size = self.take(_TENSOR)
        if code >= len(DTYPES) or rank > AXES_MAX:
            raise self._broken(f"a tensor has dtype number {code} and {rank} axes")
        shape = self.take(struct.Struct(f"<{rank}q"))
        return TensorRecord(self.text(name_bytes), DTYPES[code], shape, region, offset, size)

    def _broken(self, because: str) -> ContractError:
        return ContractError(f"read {self._what}", because)
