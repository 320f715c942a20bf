"""Headers that a client sends again and again are unpacked once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

import hpack

_INDEXED_MIN: Final = 0x80
_LONG_INDEX: Final = 0xFF


@final
class RememberingDecoder(hpack.Decoder):
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
