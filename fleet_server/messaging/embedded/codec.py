"""MQTT 3.1.1 between bytes and packets, both directions, for broker and simulated devices.

Pure and strict: whatever bytes come in, out comes a packet or `MalformedPacket`, and no more than one packet is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from fleet_server.messaging.embedded.packets import (
    MAX_CLIENT_ID_BYTES,
    MAX_CREDENTIAL_BYTES,
    MAX_FILTERS_PER_PACKET,
    MAX_REMAINING_LENGTH,
    MAX_TOPIC_BYTES,
    OVERSIZE,
    SUBSCRIBE_REFUSED,
    UNSUPPORTED_LEVEL,
    Connack,
    Connect,
    ConnectCode,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    check_filter,
    check_text,
    check_topic,
    malformed,
)

_PROTOCOL: Final = b"\x00\x04MQTT"
_LEVEL_3_1_1: Final = 4
_U16: Final = struct.Struct("!H")
_PINGREQ: Final = b"\xc0\x00"
_PINGRESP: Final = b"\xd0\x00"
_DISCONNECT: Final = b"\xe0\x00"


class Decoder:
    """Bytes in any slices become packets in order; memory stays below one packet of `max_packet_bytes`."""

    __slots__ = ("_buffer", "_max_packet_bytes")

    def __init__(self, max_packet_bytes: int) -> None:
        self._buffer = bytearray()
        self._max_packet_bytes = max_packet_bytes

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield each packet that `data` completes.

        Raises:
            MalformedPacket: after the good packets before it; the stream cannot be read on.
        """
        self._buffer += data
        while (frame := self._next_frame()) is not None:
            yield decode(*frame)

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        length, used = 0, 0
        for used in range(1, 5):
            if used >= len(buffer):
                return None
            byte = buffer[used]
            length |= (byte & 0x7F) << 7 * (used - 1)
            if byte < 0x80:
                break
        else:
            raise malformed("the length field is longer than four bytes")
        if used > 1 and buffer[used] == 0:
            raise malformed("the length field is padded")
        total = 1 + used + length
        if total > self._max_packet_bytes:
            raise malformed(f"{total} bytes are more than {self._max_packet_bytes}", OVERSIZE)
        if len(buffer) < total:
            return None
        first, body = buffer[0], bytes(buffer[1 + used : total])
        del buffer[:total]
        return first, body


def decode(first: int, body: bytes) -> Packet:
    """Read one packet from its first byte and everything after the length field. Raises: MalformedPacket."""
    kind, flags = first >> 4, first & 0x0F
    if kind == 3:
        return _decode_publish(flags, body)
    reader = _READERS.get(kind)
    if reader is None:
        raise malformed(f"packet type {kind} is not spoken here")
    # MQTT 3.1.1, 2.2.2: fixed flags; anything else must close the connection.
    if flags != (2 if kind in (8, 10) else 0):
        raise malformed(f"reserved flags {flags:#x} on packet type {kind}")
    cursor = _Cursor(body)
    packet = reader(cursor)
    cursor.end()
    return packet


def encode(packet: Packet) -> bytes:
    """Write one packet. Raises: MalformedPacket when a field could not be read back."""
    match packet:
        case Publish():
            return _encode_publish(packet)
        case Puback(packet_id):
            return b"\x40\x02" + _u16(packet_id)
        case Connect():
            return _encode_connect(packet)
        case Connack(code, session_present):
            return bytes((0x20, 2, session_present, code))
        case Subscribe(packet_id, filters):
            asked = b"".join(_text(check_filter(name)) + bytes((qos,)) for name, qos in filters)
            return _frame(0x82, _u16(packet_id) + asked)
        case Suback(packet_id, codes):
            return _frame(0x90, _u16(packet_id) + bytes(codes))
        case Unsubscribe(packet_id, names):
            return _frame(0xA2, _u16(packet_id) + b"".join(_text(check_filter(name)) for name in names))
        case Unsuback(packet_id):
            return b"\xb0\x02" + _u16(packet_id)
        case Pingreq():
            return _PINGREQ
        case Pingresp():
            return _PINGRESP
        case Disconnect():
            return _DISCONNECT


class _Cursor:
    """Reads fields off one packet body and never past its end."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise malformed("a field runs past the end of its packet")
        piece = self._body[self._at : end]
        self._at = end
        return piece

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        high, low = self.take(2)
        return high << 8 | low

    def packet_id(self) -> int:
        value = self.u16()
        if value == 0:
            raise malformed("packet id 0")
        return value

    def binary(self, limit: int = 0xFFFF) -> bytes:
        length = self.u16()
        if length > limit:
            raise malformed(f"a field of {length} bytes is longer than {limit}")
        return self.take(length)

    def text(self, limit: int) -> str:
        try:
            return check_text(self.binary(limit).decode())
        except UnicodeDecodeError as error:
            raise malformed("a string is not UTF-8") from error

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._at)

    def remains(self) -> bool:
        return self._at < len(self._body)

    def end(self) -> None:
        if self.remains():
            raise malformed("bytes are left after the last field")


def _decode_publish(flags: int, body: bytes) -> Publish:
    qos, dup = flags >> 1 & 3, bool(flags & 8)
    if qos > 1:
        raise malformed("QoS 2 is not spoken here")
    if dup and not qos:
        raise malformed("a QoS 0 message is marked as sent again")
    cursor = _Cursor(body)
    topic = check_topic(cursor.text(MAX_TOPIC_BYTES))
    packet_id = cursor.packet_id() if qos else 0
    return Publish(topic, cursor.rest(), qos, bool(flags & 1), dup, packet_id)


def _read_connect(cursor: _Cursor) -> Connect:
    if cursor.binary(6) not in (b"MQTT", b"MQIsdp"):
        raise malformed("this is not MQTT")
    level, flags, keepalive_s = cursor.u8(), cursor.u8(), cursor.u16()
    if level != _LEVEL_3_1_1:
        raise malformed(f"protocol level {level} is not 4 (MQTT 3.1.1)", UNSUPPORTED_LEVEL)
    if flags & 0x01:
        raise malformed("the reserved CONNECT flag is set")
    client_id = cursor.text(MAX_CLIENT_ID_BYTES)
    will = _read_will(cursor, flags)
    username = cursor.text(MAX_CREDENTIAL_BYTES) if flags & 0x80 else None
    if flags & 0x40 and username is None:
        raise malformed("a password without a user name")
    password = cursor.binary(MAX_CREDENTIAL_BYTES) if flags & 0x40 else None
    return Connect(client_id, bool(flags & 0x02), keepalive_s, will, username, password)


def _read_will(cursor: _Cursor, flags: int) -> Will | None:
    qos, retain = flags >> 3 & 3, bool(flags & 0x20)
    if not flags & 0x04:
        if qos or retain:
            raise malformed("will options without a will")
        return None
    if qos > 1:
        raise malformed("QoS 2 is not spoken here")
    topic = check_topic(cursor.text(MAX_TOPIC_BYTES))
    return Will(topic, cursor.binary(), qos, retain)


def _read_connack(cursor: _Cursor) -> Connack:
    present, code = cursor.u8(), cursor.u8()
    if present > 1 or code > max(ConnectCode) or (present and code):
        raise malformed("an impossible CONNACK")
    return Connack(ConnectCode(code), bool(present))


def _read_subscribe(cursor: _Cursor) -> Subscribe:
    packet_id = cursor.packet_id()
    filters: list[tuple[str, int]] = []
    while cursor.remains() or not filters:
        name, qos = check_filter(cursor.text(MAX_TOPIC_BYTES)), cursor.u8()
        if qos > 2:
            raise malformed(f"QoS {qos} is asked for")
        filters.append((name, qos))
        _check_count(len(filters))
    return Subscribe(packet_id, tuple(filters))


def _read_suback(cursor: _Cursor) -> Suback:
    packet_id = cursor.packet_id()
    codes: list[int] = []
    while cursor.remains() or not codes:
        code = cursor.u8()
        if code > 2 and code != SUBSCRIBE_REFUSED:
            raise malformed(f"SUBACK code {code}")
        codes.append(code)
        _check_count(len(codes))
    return Suback(packet_id, tuple(codes))


def _read_unsubscribe(cursor: _Cursor) -> Unsubscribe:
    packet_id = cursor.packet_id()
    names: list[str] = []
    while cursor.remains() or not names:
        names.append(check_filter(cursor.text(MAX_TOPIC_BYTES)))
        _check_count(len(names))
    return Unsubscribe(packet_id, tuple(names))


def _check_count(count: int) -> None:
    if count > MAX_FILTERS_PER_PACKET:
        raise malformed(f"more than {MAX_FILTERS_PER_PACKET} filters in one packet")


_READERS: Final[dict[int, Callable[[_Cursor], Packet]]] = {
    1: _read_connect,
    2: _read_connack,
    4: lambda cursor: Puback(cursor.packet_id()),
    8: _read_subscribe,
    9: _read_suback,
    10: _read_unsubscribe,
    11: lambda cursor: Unsuback(cursor.packet_id()),
    12: lambda _: Pingreq(),
    13: lambda _: Pingresp(),
    14: lambda _: Disconnect(),
}


def _encode_publish(packet: Publish) -> bytes:
    check_topic(packet.topic)
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    number = _u16(packet.packet_id) if packet.qos else b""
    return _frame(first, _text(packet.topic) + number + packet.payload)


def _encode_connect(packet: Connect) -> bytes:
    flags = packet.clean_session << 1
    payload = _text(packet.client_id)
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | packet.will.retain << 5
        payload += _text(check_topic(packet.will.topic)) + _binary(packet.will.payload)
    if packet.username is not None:
        flags |= 0x80
        payload += _text(packet.username)
    if packet.password is not None:
        flags |= 0x40
        payload += _binary(packet.password)
    head = _PROTOCOL + bytes((_LEVEL_3_1_1, flags)) + _U16.pack(packet.keepalive_s)
    return _frame(0x10, head + payload)


def _frame(first: int, body: bytes) -> bytes:
    length = len(body)
    if length > MAX_REMAINING_LENGTH:
        raise malformed(f"{length} bytes do not fit into one packet", OVERSIZE)
    field = bytearray()
    while length > 0x7F:
        field.append(length & 0x7F | 0x80)
        length >>= 7
    field.append(length)
    return bytes((first, *field)) + body


def _u16(packet_id: int) -> bytes:
    if not 0 < packet_id <= 0xFFFF:
        raise malformed(f"packet id {packet_id}")
    return _U16.pack(packet_id)


def _text(text: str) -> bytes:
    try:
        return _binary(check_text(text).encode())
    except UnicodeEncodeError as error:
        raise malformed("a string cannot be written as UTF-8") from error


def _binary(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise malformed(f"a field of {len(data)} bytes is longer than 65535")
    return _U16.pack(len(data)) + data
