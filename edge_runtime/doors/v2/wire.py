"""Protocol Buffers' wire format, as far as the v2 messages need it: what a field holds stays where it arrived.

The protobuf package copies every tensor when it parses a message and again when it writes one; here a bytes field is a
view into the message that came, and a message that leaves is joined once from the buffers that it consists of.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from edge_runtime.contract.errors import ContractError

NUMBERS_MAX: Final = 65_536
"""Tags, lengths and numbers that one message may hold, those inside it included: an empty field takes two bytes on the
wire and a hundred times as much here."""

Content = bytes | memoryview
"""A message as it came."""
Document = dict[str, Any]
"""Fields by name; a repeated field is a list, one that did not come is missing."""

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_VARINT_MAX_BYTES: Final = 10
_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF
_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(0x80))


class MalformedMessage(ContractError):
    """Bytes that are not the message they should be."""

    default_code = "malformed_message"

    def __init__(self, because: str) -> None:
        super().__init__("read the message", because, "send what the protocol's .proto files describe")

    def __reduce__(self) -> tuple[object, ...]:
        return MalformedMessage, (self.because,)


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """What one value of a field is."""

    wire_type: int
    read: Callable[[_Reader, int, int], Any]
    """The value between two places of what is being read."""
    write: Callable[[Any], Any]
    """The buffer behind the tag, and behind the length where there is one."""
    is_left_packed: bool = False
    """Its numbers stay bytes, in views that follow each other, because there may be millions."""


@final
@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    number: int
    name: str
    kind: Kind | Message
    repeated: bool = False

    @property
    def comes_packed(self) -> bool:
        """Whether it is many numbers, which come in one piece or one by one."""
        return self.repeated and self.kind.wire_type != _LEN


@final
class Message:
    """The fields of one message; whatever else arrives in it is skipped, as a newer client may know more."""

    __slots__ = ("_by_name", "_by_tag")
    wire_type = _LEN

    def __init__(self, *fields: Field) -> None:
        self._by_name: dict[str, tuple[Field, bytes]] = {}
        self._by_tag: dict[int, tuple[str, Callable[[_Reader, int, int], Any], Callable[..., None]]] = {}
        for field in fields:
            kind, key = field.kind, field.number << 3
            leaves_as = _LEN if field.comes_packed else kind.wire_type
            self._by_name[field.name] = field, varint(key | leaves_as)
            read = _nested(kind) if isinstance(kind, Message) else kind.read
            self._by_tag[key | kind.wire_type] = field.name, read, _append if field.repeated else _set
            if isinstance(kind, Kind) and field.comes_packed:
                in_one_piece = (kind.read, _append) if kind.is_left_packed else (_packed(kind), _extend)
                self._by_tag[key | _LEN] = field.name, *in_one_piece

    def read(self, content: Content) -> Document:
        """The fields of a message that arrived; bytes are views into it. Raises: MalformedMessage."""
        return _Reader(content).message(self, 0, len(content))

    def write(self, document: Mapping[str, Any]) -> bytes:
        """The message with these fields, joined once; a bytes field may be anything with a contiguous buffer."""
        parts: list[Any] = []
        self.append(parts, document)
        return b"".join(parts)

    def append(self, parts: list[Any], document: Mapping[str, Any]) -> int:
        """Add the buffers that the fields consist of; returns how many bytes they are."""
        size = 0
        for name, value in document.items():
            field, tag = self._by_name[name]
            if isinstance(field.kind, Kind) and field.comes_packed:
                size += _add(parts, tag, BYTES, b"".join([field.kind.write(one) for one in value]))
            else:
                for one in value if field.repeated else (value,):
                    size += _add(parts, tag, field.kind, one)
        return size


@final
class _Reader:
    """One message that came; counts what it holds."""

    __slots__ = ("_content", "_left", "view")

    def __init__(self, content: Content) -> None:
        self._content = content
        self._left = NUMBERS_MAX
        self.view = memoryview(content)

    def message(self, message: Message, at: int, end: int) -> Document:
        found: Document = {}
        while at < end:
            tag, start = self.number(at, end)
            at = start
            match tag & 7:
                case 2:
                    size, start = self.number(at, end)
                    at = start + size
                case 0:
                    _, at = self.number(at, end)
                case 1:
                    at += 8
                case 5:
                    at += 4
                case other:
                    raise MalformedMessage(f"a field in it has the wire type {other}")
            if at > end:
                raise MalformedMessage("it ends within a field")
            if tag < 8:
                raise MalformedMessage("a field in it has the number 0")
            if known := message._by_tag.get(tag):  # noqa: SLF001 (two halves of one thing)
                name, read, keep = known
                keep(found, name, read(self, start, at))
        return found

    def number(self, at: int, end: int) -> tuple[int, int]:
        """A varint and where it ends. Every field has one at least, so they are what is counted."""
        self._left -= 1
        if self._left < 0:
            raise MalformedMessage(f"it holds more than {NUMBERS_MAX} fields and numbers")
        if at < end and (group := self._content[at]) < 0x80:
            return group, at + 1
        number = shift = 0
        for position in range(at, min(end, at + _VARINT_MAX_BYTES)):
            group = self._content[position]
            if group < 0x80:
                return (number | group << shift) & _WORD, position + 1
            number |= (group & 0x7F) << shift
            shift += 7
        raise MalformedMessage("a number in it does not end")


def places(content: Content, number: int) -> list[tuple[int, int]]:
    """Where the values of a bytes field stand in a message that was read without an error: begin and end of each."""
    reader, found, at = _Reader(content), [], 0
    while at < len(content):
        tag, start = reader.number(at, len(content))
        match tag & 7:
            case 2:
                size, start = reader.number(start, len(content))
                at = start + size
            case 0:
                _, at = reader.number(start, len(content))
            case other:
                at = start + (8 if other == 1 else 4)
        if tag == number << 3 | _LEN:
            found.append((start, at))
    return found


def varint(number: int) -> bytes:
    """A number in groups of seven bits, lowest first; a negative one as its 64-bit complement."""
    if 0 <= number < 0x80:
        return _ONE_BYTE[number]
    number &= _WORD
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _nested(message: Message) -> Callable[[_Reader, int, int], Document]:
    return lambda reader, start, end: reader.message(message, start, end)


def _packed(kind: Kind) -> Callable[[_Reader, int, int], list[Any]]:
    def read(reader: _Reader, at: int, end: int) -> list[Any]:
        values = []
        while at < end:
            start = at
            _, at = reader.number(start, end)
            values.append(kind.read(reader, start, at))
        return values

    return read


def _set(found: Document, name: str, value: Any) -> None:
    found[name] = value


def _append(found: Document, name: str, value: Any) -> None:
    found.setdefault(name, []).append(value)


def _extend(found: Document, name: str, values: list[Any]) -> None:
    found.setdefault(name, []).extend(values)


def _add(parts: list[Any], tag: bytes, kind: Kind | Message, value: Any) -> int:
    if isinstance(kind, Message):
        inner: list[Any] = []
        size = kind.append(inner, value)
    else:
        content = kind.write(value)
        inner, size = [content], memoryview(content).nbytes
    head = tag + varint(size) if kind.wire_type == _LEN else tag
    parts.append(head)
    parts += inner
    return len(head) + size


def _text(reader: _Reader, start: int, end: int) -> str:
    try:
        return str(reader.view[start:end], "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedMessage("a text in it is not UTF-8") from error


def _signed(reader: _Reader, start: int, end: int) -> int:
    number, _ = reader.number(start, end)
    return number - (1 << 64) if number >> 63 else number


def _unsigned(reader: _Reader, start: int, end: int) -> int:
    return reader.number(start, end)[0]


def _view(reader: _Reader, start: int, end: int) -> memoryview:
    return reader.view[start:end]


def _double(reader: _Reader, start: int, end: int) -> float:
    number: float = struct.unpack("<d", reader.view[start:end])[0]
    return number


def _as_is(value: Any) -> Any:
    return value


STRING: Final = Kind(_LEN, _text, str.encode)
BYTES: Final = Kind(_LEN, _view, _as_is)
BOOL: Final = Kind(_VARINT, lambda reader, start, end: reader.number(start, end)[0] != 0, varint)
INT: Final = Kind(_VARINT, _signed, varint)
"""int32, int64 or an enumeration."""
UINT: Final = Kind(_VARINT, _unsigned, varint)
DOUBLE: Final = Kind(_I64, _double, struct.Struct("<d").pack)
VARINTS: Final = Kind(_VARINT, _view, _as_is, is_left_packed=True)
FLOATS: Final = Kind(_I32, _view, _as_is, is_left_packed=True)
DOUBLES: Final = Kind(_I64, _view, _as_is, is_left_packed=True)
