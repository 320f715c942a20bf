"""Fetches blobs over HTTP: resumes, never takes more than was promised, and tells "not now" from "never"."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from edge_runtime.contract import reasons
from edge_runtime.contract.device_api import blob_path, manifest_path
from edge_runtime.contract.errors import DigestMismatch, TransportError, UpdateError
from edge_runtime.contract.ids import ModelName
from edge_runtime.contract.layout import OCI_INDEX, OCI_MANIFEST, Descriptor
from edge_runtime.update.disk import disk_errors

_PIECE_BYTES: Final = 64 * 1024
_BURST_S: Final = 0.1
_NOT_NOW: Final = frozenset({401, 403, 408, 421, 425, 429})
"""Besides every 5xx: the server is busy, or this device's certificate is being renewed."""


class Throttle:
    """A token bucket over the bytes of one link.

    Args:
        bytes_per_s: rate; None does not limit.
        clock: monotonic seconds.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        bytes_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    def spend(self, size_bytes: int) -> None:
        """Wait until the link may have carried these bytes."""
        if self._rate is None:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now - _BURST_S) + size_bytes / self._rate
        if self._free_at > now:
            self._sleep(self._free_at - now)


class HttpBlobFetcher:
    """Fetches from the fleet server or any OCI registry.

    Args:
        client: carries base URL, TLS context and time limits; the caller closes it.
        throttle: bandwidth limit.
    """

    def __init__(self, client: httpx.Client, throttle: Throttle | None = None) -> None:
        self._client = client
        self._throttle = throttle or Throttle(None)

    def fetch(
        self, model: ModelName, descriptor: Descriptor, stage: Path, *, interrupted: Callable[[], bool]
    ) -> None:
        """Complete `stage`; see `update.ports.BlobFetcher`.

        Raises:
            TransportError: not now.
            UpdateError: `blob_missing`, `disk_full`.
            DigestMismatch: more bytes than promised.
        """
        with disk_errors(f"fetch blob {descriptor.digest}"):
            have = _usable_bytes(stage, descriptor.size)
            if have == descriptor.size:
                stage.touch()
                return
        is_manifest = descriptor.mediaType in {OCI_INDEX, OCI_MANIFEST}
        path = (manifest_path if is_manifest else blob_path)(model, descriptor.digest)
        # Compressed transfers could unfold into more than was promised, and cannot be resumed.
        headers = {"Accept-Encoding": "identity", "Accept": descriptor.mediaType if is_manifest else "*/*"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{descriptor.digest}"'}
        try:
            with self._client.stream("GET", path, headers=headers) as response:
                self._receive(response, descriptor, stage, have, interrupted)
        except httpx.HTTPError as error:
            raise TransportError(
                f"fetch blob {descriptor.digest}", str(error) or type(error).__name__, "it is tried again"
            ) from error

    def _receive(
        self,
        response: httpx.Response,
        descriptor: Descriptor,
        stage: Path,
        have: int,
        interrupted: Callable[[], bool],
    ) -> None:
        what = f"fetch blob {descriptor.digest}"
        if response.status_code == 416:
            with disk_errors(what):
                stage.unlink(missing_ok=True)
            raise TransportError(what, "the server cannot continue the download", "it is tried again from the start")
        _check_status(response.status_code, what)
        start = _start_of(response, have, what)
        total = start
        with disk_errors(what), stage.open("r+b" if start else "wb") as target:
            target.seek(start)
            target.truncate()
            for piece in response.iter_raw(_PIECE_BYTES):
                total += len(piece)
                if total > descriptor.size:
                    raise DigestMismatch(what, f"the server sends more than {descriptor.size} bytes")
                target.write(piece)
                self._throttle.spend(len(piece))
                if interrupted():
                    return
        if total < descriptor.size:
            raise TransportError(what, f"the connection ended after {total} of {descriptor.size} bytes")


def _usable_bytes(stage: Path, size_bytes: int) -> int:
    try:
        have = stage.stat().st_size
    except FileNotFoundError:
        return 0
    return have if have <= size_bytes else 0


def _check_status(status: int, what: str) -> None:
    if status in {200, 206}:
        return
    if status in _NOT_NOW or status >= 500:
        raise TransportError(what, f"the server answered {status}", "it is tried again")
    raise UpdateError(
        what, f"the server answered {status}", "push the release again", code=reasons.BLOB_MISSING
    )


def _start_of(response: httpx.Response, have: int, what: str) -> int:
    """Where the body belongs: 206 continues, 200 starts anew (the server may ignore ranges)."""
    if response.status_code == 200:
        return 0
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal() or int(first) != have:
        raise TransportError(what, "the server continues at another place than asked for")
    return have
