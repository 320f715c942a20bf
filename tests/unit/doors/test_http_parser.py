"""Bytes of strangers become requests or one precise refusal, however they are cut into pieces."""

import gc
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.doors.v2.http_body import FIRST_BYTES, Body, HttpError, MemoryBudget, unfold, wanted_coding
from edge_runtime.doors.v2.http_parser import STAGE_BYTES, Admitted, Head, RequestReader, parse_head

MAX = 4 * FIRST_BYTES


def reader(max_bytes: int = MAX, total: int = 8 * MAX, align_at: int = 0) -> RequestReader:
    return RequestReader(lambda _: Admitted(max_bytes, align_at), MemoryBudget(total))


def push(to: RequestReader, content: bytes) -> list[tuple[Head, bytes]]:
    """What a connection would do with so many bytes at once."""
    found: list[tuple[Head, bytes]] = []
    rest = memoryview(content)
    while rest:
        room = to.buffer()
        count = min(len(room), len(rest))
        room[:count] = rest[:count]
        room.release()
        to.advance(count)
        rest = rest[count:]
        while (request := to.poll()) is not None:
            found.append((request.head, bytes(request.body)))
    return found


def head(*lines: str, start: str = "POST /v2 HTTP/1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (start, "Host: h", *lines, "")).encode("latin-1")


ONE = head("Content-Length: 5") + b"hello"
CHUNKED = head("Transfer-Encoding: chunked") + b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: u\r\n\r\n"
NONE = head(start="GET /v2/health/live?x=1 HTTP/1.1")
LARGE = head(f"Content-Length: {2 * FIRST_BYTES + 17}") + bytes(range(256)) * (2 * FIRST_BYTES // 256) + b"x" * 17


@given(
    st.lists(st.sampled_from([ONE, CHUNKED, NONE]), min_size=1, max_size=5), st.lists(st.integers(1, 90), max_size=30)
)
def test_requests_are_the_same_however_they_are_cut(requests: list[bytes], cuts: list[int]) -> None:
    stream, to = b"".join(requests), reader()

    found: list[tuple[Head, bytes]] = []
    for cut in cuts:
        found += push(to, stream[:cut])
        stream = stream[cut:]
    found += push(to, stream)

    assert [body for _, body in found] == [b"" if one is NONE else b"hello" for one in requests]
    assert to.is_idle


@given(st.binary(max_size=400), st.booleans())
def test_noise_is_a_request_or_one_refusal(noise: bytes, after_a_head: bool) -> None:
    to = reader(max_bytes=1000)

    try:
        found = push(to, (head("Transfer-Encoding: chunked") if after_a_head else b"") + noise)
    except HttpError as error:
        assert error.status in {400, 413, 431, 501, 505}  # noqa: PT017 (a refusal is one of two right outcomes)
    else:
        assert all(one.path.startswith("/") for one, _ in found)


def test_a_body_larger_than_what_is_taken_at_once_comes_whole() -> None:
    assert [body for _, body in push(reader(), LARGE)] == [LARGE[-2 * FIRST_BYTES - 17 :]]


def test_the_tensor_behind_the_json_lies_where_engines_like_it() -> None:
    to = reader(align_at=3)
    room = to.buffer()
    content = head("Content-Length: 7") + b"{} " + b"\x01\x02\x03\x04"
    room[: len(content)] = content
    room.release()
    to.advance(len(content))

    request = to.poll()

    assert request is not None
    import numpy as np

    assert np.frombuffer(request.body[3:], np.uint8).ctypes.data % 16 == 0


def test_a_connection_keeps_its_buffer_for_the_next_body() -> None:
    budget = MemoryBudget(MAX)
    to = RequestReader(lambda _: Admitted(MAX), budget)
    push(to, ONE)
    left = budget._left

    push(to, ONE * 10)

    assert budget._left == left


def test_a_body_that_somebody_still_looks_at_is_not_overwritten() -> None:
    body = Body(MemoryBudget(MAX))
    body.begin(3, 0)
    body.append(memoryview(b"old"))
    held = body.content()

    body.begin(3, 0)
    body.append(memoryview(b"new"))

    assert (bytes(held), bytes(body.content())) == (b"old", b"new")


def test_a_huge_declared_size_takes_no_memory_before_its_bytes_come() -> None:
    budget = MemoryBudget(1 << 50)
    to = RequestReader(lambda _: Admitted(1 << 50), budget)

    push(to, head(f"Content-Length: {1 << 49}") + b"x" * 100)

    assert (1 << 50) - budget._left <= FIRST_BYTES


def test_memory_that_others_hold_is_refused_and_given_back() -> None:
    budget = MemoryBudget(FIRST_BYTES)
    first, second = (RequestReader(lambda _: Admitted(MAX), budget) for _ in range(2))
    push(first, LARGE[: len(LARGE) - 2 * FIRST_BYTES])

    with pytest.raises(HttpError, match="come again") as refused:
        push(second, LARGE)
    first.release()

    assert refused.value.status == 503
    assert [body for _, body in push(reader(total=5 * FIRST_BYTES), LARGE)]
    assert budget._left == FIRST_BYTES


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /v2\r\n\r\n", 400),
        (b"get /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /v2  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET v2 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /v2#x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /v2 HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (head("Host: again"), 400),
        (head("Name : x"), 400),
        (head(": x"), 400),
        (head(" folded"), 400),
        (head("X: a\x00b"), 400),
        (head("X: a\nY: b"), 400),
        (head("Content-Length: 5", "Content-Length: 5"), 400),
        (head("Content-Length: 5, 5"), 400),
        (head("Content-Length: +5"), 400),
        (head("Content-Length: -5"), 400),
        (head("Content-Length: 0x5"), 400),
        (head("Content-Length: 5_0"), 400),
        (head("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (head("Transfer-Encoding: gzip, chunked"), 501),
        (head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (b"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (head("Expect: miracles"), 417),
        (head(f"Content-Length: {MAX + 1}"), 413),
        (head(f"Content-Length: {10**30}"), 400),
        (head(*(f"X{number}: y" for number in range(101))), 431),
        (head("X: " + "y" * STAGE_BYTES), 431),
        (head("Transfer-Encoding: chunked") + b"z\r\n", 400),
        (head("Transfer-Encoding: chunked") + b"-1\r\n", 400),
        (head("Transfer-Encoding: chunked") + b"1\r\nab\r\n", 400),
        (head("Transfer-Encoding: chunked") + b"fffffff\r\n", 413),
        (head("Transfer-Encoding: chunked") + b"1" * 300, 400),
        (head("Transfer-Encoding: chunked") + b"0\r\n" + b"T: x\r\n" * 2000, 431),
    ],
)
def test_what_is_no_request_or_could_be_read_in_two_ways_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        push(reader(), raw)

    assert refused.value.status == status


def test_chunks_together_are_bounded() -> None:
    with pytest.raises(HttpError) as refused:
        push(reader(max_bytes=10), head("Transfer-Encoding: chunked") + b"6\r\n123456\r\n6\r\n")

    assert refused.value.status == 413


def test_ten_thousand_small_chunks_cost_no_copy_each() -> None:
    content = head("Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n"

    assert push(reader(), content)[0][1] == b"x" * 10_000


def test_an_absolute_target_means_its_path() -> None:
    assert parse_head(b"GET http://h:8000/v2?x HTTP/1.1\r\nHost: h\r\n").path == "/v2"


@pytest.mark.parametrize(
    ("raw", "keeps"),
    [
        (head(), True),
        (head("Connection: close"), False),
        (head("Connection: x, Close"), False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_a_connection_is_kept_as_its_client_says(raw: bytes, keeps: bool) -> None:
    assert push(reader(), raw)[0][0].keeps_alive is keeps


@pytest.mark.parametrize(
    ("coding", "packed"), [("gzip", gzip.compress(b"x" * 99, mtime=0)), ("deflate", zlib.compress(b"x" * 99))]
)
def test_folded_bodies_are_unfolded_up_to_their_bound(coding: str, packed: bytes) -> None:
    assert bytes(unfold(memoryview(packed), coding, 99, MemoryBudget(MAX))) == b"x" * 99
    with pytest.raises(HttpError, match="more than the 98 bytes"):
        unfold(memoryview(packed), coding, 98, MemoryBudget(MAX))


@pytest.mark.parametrize(
    "damage", [lambda one: one[:-5], lambda one: one + b"x", lambda one: b"y" + one, lambda _: b""]
)
def test_damaged_folded_bodies_are_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HttpError) as refused:
        unfold(memoryview(damage(gzip.compress(b"x" * 99))), "gzip", 1000, MemoryBudget(MAX))

    assert refused.value.status == 400


def test_a_bomb_is_not_unfolded() -> None:
    bomb = zlib.compress(bytes(100 * 1024 * 1024))

    tracemalloc.start()
    try:
        with pytest.raises(HttpError) as refused:
            unfold(memoryview(bomb), "deflate", 1024, MemoryBudget(MAX))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert refused.value.status == 413
    assert peak < 1024 * 1024


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate;q=0.5", "deflate"),
        ("gzip;q=0", None),
        ("gzip, deflate", None),
        ("br", None),
    ],
)
def test_an_answer_is_folded_when_its_client_asks_for_one_coding(accepted: str, coding: str | None) -> None:
    assert wanted_coding(accepted) == coding


def test_a_body_that_somebody_still_looks_at_counts_until_they_let_go() -> None:
    budget = MemoryBudget(MAX)
    body = Body(budget)
    body.begin(None, 0)
    body.append(memoryview(b"x" * 10))
    taken = MAX - budget._left
    content = body.content()

    body.release()
    while_looking = MAX - budget._left
    del content

    assert (taken > 0, while_looking, MAX - budget._left) == (True, taken, 0)


def test_what_a_folded_body_unfolds_to_is_memory_of_bodies() -> None:
    budget = MemoryBudget(4 * MAX)
    packed = memoryview(gzip.compress(bytes(MAX)))

    content = unfold(packed, "gzip", MAX, budget)
    held = 4 * MAX - budget._left
    with pytest.raises(HttpError) as refusal:
        [unfold(packed, "gzip", MAX, budget) for _ in range(10)]
    refused = refusal.value.status
    del refusal
    gc.collect()
    after = 4 * MAX - budget._left
    del content

    assert (held >= MAX, refused, after == held, budget._left) == (True, 503, True, 4 * MAX)
