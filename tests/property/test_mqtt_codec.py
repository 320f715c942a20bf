"""The MQTT codec gives back what it was given, and answers anything else with its one error."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.messaging.embedded.codec import Decoder, decode, encode
from fleet_server.messaging.embedded.packets import (
    SUBSCRIBE_REFUSED,
    Connack,
    Connect,
    ConnectCode,
    Disconnect,
    MalformedPacket,
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
    check_topic,
)

LIMIT = 1 << 20

_letters = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="+#/")
_levels = st.text(_letters, max_size=8)
_topics = st.lists(_levels, min_size=1, max_size=6).map("/".join).filter(bool)
_wild = st.lists(st.one_of(_levels, st.just("+")), min_size=1, max_size=6)
_filters = st.one_of(_wild.map("/".join), _wild.map(lambda levels: "/".join([*levels, "#"]))).filter(bool)
_payloads = st.binary(max_size=300)
_ids = st.integers(1, 0xFFFF)
_qos = st.integers(0, 1)
_wills = st.builds(Will, _topics, _payloads, _qos, st.booleans())


@st.composite
def _connects(draw: st.DrawFn) -> Connect:
    username = draw(st.none() | st.text(_letters, max_size=20))
    password = None if username is None else draw(st.none() | _payloads)
    return Connect(
        draw(st.text(_letters, max_size=40)),
        draw(st.booleans()),
        draw(st.integers(0, 0xFFFF)),
        draw(st.none() | _wills),
        username,
        password,
    )


@st.composite
def _publishes(draw: st.DrawFn) -> Publish:
    topic, payload, retain = draw(_topics), draw(_payloads), draw(st.booleans())
    if draw(_qos):
        return Publish(topic, payload, 1, retain, draw(st.booleans()), draw(_ids))
    return Publish(topic, payload, 0, retain)


_asked = st.lists(st.tuples(_filters, st.integers(0, 2)), min_size=1, max_size=5).map(tuple)
_granted = st.lists(st.sampled_from([0, 1, 2, SUBSCRIBE_REFUSED]), min_size=1, max_size=5).map(tuple)
packets: st.SearchStrategy[Packet] = st.one_of(
    _connects(),
    _publishes(),
    st.builds(Connack, st.sampled_from(ConnectCode)),
    st.builds(Puback, _ids),
    st.builds(Subscribe, _ids, _asked),
    st.builds(Suback, _ids, _granted),
    st.builds(Unsubscribe, _ids, st.lists(_filters, min_size=1, max_size=5).map(tuple)),
    st.builds(Unsuback, _ids),
    st.sampled_from([Pingreq(), Pingresp(), Disconnect(), Connack(ConnectCode.ACCEPTED, session_present=True)]),
)


@given(st.lists(packets, max_size=6), st.lists(st.integers(0, 4000), max_size=12))
def test_packets_survive_the_wire_wherever_it_is_cut(sent: list[Packet], borders: list[int]) -> None:
    wire = b"".join(encode(packet) for packet in sent)
    cuts = [0, *sorted(min(border, len(wire)) for border in borders), len(wire)]
    decoder = Decoder(LIMIT)

    got = [p for a, b in pairwise(cuts) for p in decoder.feed(wire[a:b])]

    assert got == sent


@given(st.binary(max_size=400))
def test_any_bytes_give_packets_or_the_codecs_error(data: bytes) -> None:
    _feed_everything(data)


@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_framed_body_gives_a_packet_or_the_codecs_error(first: int, body: bytes) -> None:
    try:
        packet = decode(first, body)
    except MalformedPacket:
        return
    # What is accepted must be something that can be said again, else the broker could not pass it on.
    assert list(Decoder(LIMIT).feed(encode(packet))) == [packet]


@given(packets, st.data())
def test_a_damaged_packet_gives_packets_or_the_codecs_error(packet: Packet, data: st.DataObject) -> None:
    wire = bytearray(encode(packet))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))

    _feed_everything(bytes(wire))


@given(st.text(max_size=30))
def test_a_topic_is_a_filter_without_wildcards(text: str) -> None:
    if _accepts_topic(text):
        assert _accepts_filter(text)
        assert not {"+", "#", "\x00"} & set(text)


def test_a_packet_that_announces_too_much_is_refused_before_it_comes() -> None:
    decoder = Decoder(1000)

    error = _error_of(decoder, b"\x30\xff\xff\x7f")

    assert error is not None
    assert error.code == "oversize"


def test_what_mqtt_forbids_is_refused() -> None:
    hostile = {
        "NUL in a topic": b"\x30\x05\x00\x03a\x00b",
        "wildcard in a topic": b"\x30\x05\x00\x03a/#",
        "surrogate in a topic": b"\x30\x05\x00\x03\xed\xa0\x80",
        "overlong UTF-8": b"\x30\x04\x00\x02\xc0\xaf",
        "empty topic": b"\x30\x02\x00\x00",
        "QoS 2": b"\x34\x05\x00\x01a\x00\x01",
        "QoS 3": b"\x36\x05\x00\x01a\x00\x01",
        "packet id 0": b"\x32\x05\x00\x01a\x00\x00",
        "DUP at QoS 0": b"\x38\x03\x00\x01a",
        "subscribe without filters": b"\x82\x02\x00\x01",
        "subscribe flags": b"\x80\x06\x00\x01\x00\x01a\x00",
        "misplaced #": b"\x82\x08\x00\x01\x00\x03#/a\x00",
        "shared +": b"\x82\x07\x00\x01\x00\x02a+\x00",
        "five length bytes": b"\x30\x80\x80\x80\x80\x01",
        "padded length": b"\xc0\x80\x00",
        "trailing bytes": b"\xc0\x01\x00",
        "reserved type": b"\xf0\x00",
        "reserved CONNECT flag": b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a",
        "password without user": b"\x10\x10\x00\x04MQTT\x04\x42\x00\x3c\x00\x01a\x00\x01p",
        "will QoS without will": b"\x10\x0d\x00\x04MQTT\x04\x0a\x00\x3c\x00\x01a",
    }

    accepted = [name for name, wire in hostile.items() if _error_of(Decoder(LIMIT), wire) is None]

    assert accepted == []


def test_mqtt_5_is_told_apart_so_that_it_can_be_answered() -> None:
    error = _error_of(Decoder(LIMIT), b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a")

    assert error is not None
    assert error.code == "protocol_level"


def _feed_everything(data: bytes) -> None:
    whole = _error_of(Decoder(LIMIT), data)
    decoder = Decoder(LIMIT)
    singly: MalformedPacket | None = None
    for byte in data:
        singly = singly or _error_of(decoder, bytes((byte,)))
    assert (whole is None) == (singly is None)


def _error_of(decoder: Decoder, data: bytes) -> MalformedPacket | None:
    try:
        for _ in decoder.feed(data):
            pass
    except MalformedPacket as error:
        return error
    return None


def _accepts_topic(text: str) -> bool:
    try:
        check_topic(text)
    except MalformedPacket:
        return False
    return True


def _accepts_filter(text: str) -> bool:
    try:
        check_filter(text)
    except MalformedPacket:
        return False
    return True
