"""The head of a gRPC call, and the status at its end."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.errors import InferenceError
from edge_runtime.doors.v2.grpc_head import CallRefused, read_head, refusal_of

HEAD = {b":method": b"POST", b":path": b"/s/M", b"te": b"trailers", b"content-type": b"application/grpc"}


def head_with(**changes: bytes | None) -> list[tuple[bytes, bytes]]:
    """The head with other headers; None: without that one."""
    names = {name.replace("_", "-").encode(): value for name, value in changes.items()}
    names = {b":method" if name == b"method" else name: value for name, value in names.items()}
    return [(name, value) for name, value in (HEAD | names).items() if value is not None]


@pytest.mark.parametrize("kind", [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8"])
def test_a_call_says_what_it_wants(kind: bytes) -> None:
    head = read_head(head_with(content_type=kind, authorization=b"Bearer x", grpc_encoding=b"gzip"))

    assert (head.path, head.authorization, head.timeout_s, head.coding) == ("/s/M", "Bearer x", None, "gzip")


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"99999999S", 99_999_999), (b"20m", 0.02), (b"5u", 5e-6), (b"0n", 0)],
)
def test_a_timeout_has_a_unit(stated: bytes, seconds: float) -> None:
    assert read_head(head_with(grpc_timeout=stated)).timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("stated", [b"", b"5", b"S", b"-1S", b"1.5S", b"123456789S", b"5s", b"5S ", b"\xb25S"])
def test_a_timeout_that_is_none_is_refused(stated: bytes) -> None:
    with pytest.raises(CallRefused, match="grpc-timeout is") as caught:
        read_head(head_with(grpc_timeout=stated))

    assert caught.value.code == 13


@pytest.mark.parametrize(
    ("changes", "http_status", "code"),
    [
        ({"method": b"GET"}, b"405", 13),
        ({"content_type": b"application/json"}, b"415", 13),
        ({"content_type": b"application/grpcx"}, b"415", 13),
        ({"content_type": None}, b"415", 13),
        ({"te": None}, b"200", 13),
        ({"grpc_encoding": b"br"}, b"200", 12),
    ],
)
def test_what_is_no_grpc_is_told_so(changes: dict[str, bytes | None], http_status: bytes, code: int) -> None:
    with pytest.raises(CallRefused) as caught:
        read_head(head_with(**changes))

    assert caught.value.alone()[0] == (b":status", http_status)
    assert caught.value.code == code


def test_an_unknown_encoding_is_told_which_ones_are_known() -> None:
    with pytest.raises(CallRefused) as caught:
        read_head(head_with(grpc_encoding=b"br"))

    assert (b"grpc-accept-encoding", b"identity,gzip,deflate") in caught.value.trailers()


@given(st.text(max_size=200))
def test_a_sentence_survives_as_a_header(sentence: str) -> None:
    sentence = sentence.encode("utf-8", "replace").decode()

    told = dict(CallRefused("INTERNAL", sentence).trailers())[b"grpc-message"]

    assert all(0x20 <= code < 0x7F for code in told)
    assert unquote(told.decode()) == sentence


def test_who_may_come_again_is_told_when() -> None:
    overloaded, broken = (InferenceError("answer", "no", code=code) for code in ("overloaded", "engine_failed"))

    assert dict(refusal_of(overloaded).trailers())[b"grpc-retry-pushback-ms"] == b"1000"
    assert set(dict(refusal_of(broken).trailers())) == {b"grpc-status", b"grpc-message"}
