"""The library h2 as the gRPC door needs it: what clients are told at first, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

import h2.config
import h2.connection
import h2.settings
import hpack

from edge_runtime.doors.v2.http2_cutter import FRAME_MAX_BYTES

STREAM_WINDOW: Final = 8 * 1024 * 1024
"""Bytes that a call may send unasked: most messages come without a word of ours in between."""
STREAMS_MAX: Final = 256
"""Calls that one client may have open; well-behaved ones keep others back until there is room."""
_HEADERS_MAX_BYTES: Final = 16 * 1024
"""Of one call, unpacked: their sum with 32 bytes for each (RFC 9113, 6.5.2)."""
_CLOSED_MAX: Final = 1024
_INDEXED_MIN: Final = 0x80
_LONG_INDEX: Final = 0xFF


def new_connection() -> _Connection:
    """The server's end of a connection that has just been opened."""
    # Nothing is passed on to anybody, so that no header can do harm that is looked at by nobody.
    config = h2.config.H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_inbound_headers=False,
        normalize_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    codes = h2.settings.SettingCodes
    connection = _Connection(config)
    connection.local_settings = h2.settings.Settings(
        client=False,
        initial_values={
            codes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
            codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            codes.MAX_FRAME_SIZE: FRAME_MAX_BYTES,
            codes.MAX_HEADER_LIST_SIZE: _HEADERS_MAX_BYTES,
        },
    )
    connection.max_inbound_frame_size = FRAME_MAX_BYTES
    connection.decoder = _Decoder()
    connection.decoder.max_header_list_size = _HEADERS_MAX_BYTES
    connection.initiate_connection()
    return connection


class _Connection(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = _CLOSED_MAX  # the library's 65,536 would cost every client megabytes


@final
class _Decoder(hpack.Decoder):
    """Unpacks header blocks; the same one again is only looked up, where it says nothing new.

    A block of nothing but references leaves the table as it is, and means the same until another one changes that
    (HPACK: RFC 7541, 6.1).
    """

    def __init__(self) -> None:
        super().__init__()
        self._block = b""
        self._headers: Iterable[hpack.HeaderTuple] = ()

    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:  # noqa: FBT001, FBT002 (theirs)
        """The headers in a block. Raises: HPACKError."""
        if data == self._block and data:
            return self._headers
        headers = super().decode(data, raw)
        has_only_references = len(data) > 0 and min(data) >= _INDEXED_MIN and max(data) < _LONG_INDEX
        self._block, self._headers = (bytes(data), headers) if has_only_references else (b"", ())
        return headers
