"""Blobs over HTTP: resumed, capped, and "not now" told from "never"."""

from pathlib import Path

import httpx
import pytest

from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.errors import DigestMismatch, TransportError, UpdateError
from edge_runtime.contract.layout import FILE_MEDIA_TYPE, OCI_MANIFEST, Descriptor
from edge_runtime.update.fetcher import HttpBlobFetcher, Throttle
from tests.fakes.documents import MODEL

CONTENT = bytes(range(256)) * 1000
BLOB = Descriptor(mediaType=FILE_MEDIA_TYPE, digest=digest_of(CONTENT), size=len(CONTENT))


class Registry:
    """An HTTP server of one blob, with the ways in which servers misbehave."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.status: int | None = None
        self.content = CONTENT
        self.ranges = True
        self.shift = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.status is not None:
            return httpx.Response(self.status)
        wanted = request.headers.get("Range")
        if wanted is None or not self.ranges or request.headers.get("If-Range") != f'"{BLOB.digest}"':
            return httpx.Response(200, stream=httpx.ByteStream(self.content))
        first = int(wanted.removeprefix("bytes=").rstrip("-")) + self.shift
        headers = {"Content-Range": f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"}
        return httpx.Response(206, stream=httpx.ByteStream(self.content[first:]), headers=headers)

    def fetch(self, stage: Path, blob: Descriptor = BLOB, *, interrupted: bool = False) -> None:
        with httpx.Client(transport=httpx.MockTransport(self), base_url="https://fleet") as client:
            HttpBlobFetcher(client).fetch(MODEL, blob, stage, interrupted=lambda: interrupted)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "blob.part"


def test_a_blob_arrives_whole(registry: Registry, stage: Path) -> None:
    registry.fetch(stage)

    assert stage.read_bytes() == CONTENT
    assert registry.requests[0].url.path == f"/v2/{MODEL}/blobs/{BLOB.digest}"


def test_manifests_have_their_own_path(registry: Registry, stage: Path) -> None:
    registry.fetch(stage, Descriptor(mediaType=OCI_MANIFEST, digest=BLOB.digest, size=BLOB.size))

    assert registry.requests[0].url.path == f"/v2/{MODEL}/manifests/{BLOB.digest}"


def test_a_download_continues_where_it_broke_off(registry: Registry, stage: Path) -> None:
    stage.write_bytes(CONTENT[:1000])

    registry.fetch(stage)

    assert stage.read_bytes() == CONTENT
    assert registry.requests[0].headers["Range"] == "bytes=1000-"


def test_a_server_without_ranges_starts_anew(registry: Registry, stage: Path) -> None:
    registry.ranges = False
    stage.write_bytes(b"x" * 1000)

    registry.fetch(stage)

    assert stage.read_bytes() == CONTENT


def test_a_complete_stage_file_needs_no_request(registry: Registry, stage: Path) -> None:
    stage.write_bytes(CONTENT)

    registry.fetch(stage)

    assert registry.requests == []


def test_a_stage_file_that_is_too_long_is_begun_again(registry: Registry, stage: Path) -> None:
    stage.write_bytes(CONTENT + b"more")

    registry.fetch(stage)

    assert stage.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_sends_more_than_was_promised_is_cut_off(
    registry: Registry, stage: Path, *, ranges: bool
) -> None:
    registry.ranges = ranges
    registry.content = CONTENT + b"!" * 10_000_000
    stage.write_bytes(CONTENT[:1000])

    with pytest.raises(DigestMismatch, match="more than"):
        registry.fetch(stage)

    assert stage.stat().st_size <= BLOB.size


def test_a_short_answer_is_not_now(registry: Registry, stage: Path) -> None:
    registry.content = CONTENT[:5000]

    with pytest.raises(TransportError, match="ended after 5000"):
        registry.fetch(stage)

    assert stage.stat().st_size == 5000


def test_a_server_that_continues_elsewhere_is_not_believed(registry: Registry, stage: Path) -> None:
    registry.shift = 7
    stage.write_bytes(CONTENT[:1000])

    with pytest.raises(TransportError, match="another place"):
        registry.fetch(stage)

    assert stage.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
def test_a_busy_or_refusing_server_is_not_now(registry: Registry, stage: Path, status: int) -> None:
    registry.status = status

    with pytest.raises(TransportError) as caught:
        registry.fetch(stage)

    assert caught.value.code == "network"


@pytest.mark.parametrize("status", [404, 410])
def test_a_blob_that_is_not_there_is_named_so(registry: Registry, stage: Path, status: int) -> None:
    registry.status = status

    with pytest.raises(UpdateError) as caught:
        registry.fetch(stage)

    assert caught.value.code == "blob_missing"


def test_a_range_the_server_cannot_serve_starts_over_next_time(registry: Registry, stage: Path) -> None:
    registry.status = 416
    stage.write_bytes(b"x" * 1000)

    with pytest.raises(TransportError):
        registry.fetch(stage)

    assert not stage.exists()


def test_a_server_that_cannot_be_reached_is_not_now(stage: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with (
        httpx.Client(transport=httpx.MockTransport(refuse), base_url="https://fleet") as client,
        pytest.raises(TransportError, match="no route"),
    ):
        HttpBlobFetcher(client).fetch(MODEL, BLOB, stage, interrupted=lambda: False)


def test_an_interrupted_download_keeps_what_arrived(registry: Registry, stage: Path) -> None:
    registry.fetch(stage, interrupted=True)

    assert 0 < stage.stat().st_size < BLOB.size


def test_the_link_is_not_used_faster_than_it_is_set() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    throttle = Throttle(1000.0, lambda: now, sleep)
    for _ in range(10):
        throttle.spend(500)

    assert 4.8 <= now <= 5.1
