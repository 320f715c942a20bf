"""How much a client may trouble a server with frames that bring no call any further, and with headers."""

from __future__ import annotations

from typing import Final, final

from edge_runtime.doors.v2.http2_cutter import END_HEADERS, ENHANCE_YOUR_CALM, BrokenProtocol

NUISANCE_MAX: Final = 1000
"""Such frames that may come at once."""
FORGIVEN_PER_S: Final = 200.0
_FORGIVEN_PER_MESSAGE: Final = 10
_BYTES_PER_FRAME: Final = 1024
"""Of an answer, that make up for one frame: clients that read 4 KiB at a time open two windows each time."""

_BLOCK_MAX_BYTES: Final = 64 * 1024
"""Of the frames that the headers of one call come in: they are bounded before they are unpacked."""


@final
class HeaderBlock:
    """The headers of one call, which may come in several frames with nothing in between."""

    __slots__ = ("_bytes", "is_open")

    def __init__(self) -> None:
        self._bytes = 0
        self.is_open = False
        """They are not whole."""

    def count(self, flags: int, size: int) -> None:
        """One frame of them came. Raises: BrokenProtocol: they are too long."""
        self._bytes += size
        if self._bytes > _BLOCK_MAX_BYTES:
            raise BrokenProtocol(ENHANCE_YOUR_CALM)
        self.is_open = not flags & END_HEADERS
        if not self.is_open:
            self._bytes = 0


@final
class Nuisance:
    """Counts pings, resets, empty frames, refused calls and the like, and forgets them with time and every message.

    Args:
        now: `time.monotonic()` seconds.
    """

    __slots__ = ("_count", "_since")

    def __init__(self, now: float) -> None:
        self._count = 0.0
        self._since = now

    def count(self, now: float) -> None:
        """One came. Raises: BrokenProtocol: it is one too many."""
        self._count = max(0.0, self._count - (now - self._since) * FORGIVEN_PER_S) + 1
        self._since = now
        if self._count > NUISANCE_MAX:
            raise BrokenProtocol(ENHANCE_YOUR_CALM)

    def forgive_message(self) -> None:
        """A whole message came."""
        self._count -= _FORGIVEN_PER_MESSAGE

    def weigh_sent(self, size: int) -> None:
        """So many bytes of an answer were let through: a few are a nuisance themselves, many make up for some."""
        self._count += 1 - size / _BYTES_PER_FRAME
