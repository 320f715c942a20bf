"""Reads fields of a flatbuffer by their numbers in a published schema, where no generated code is installed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

_MOST: Final = 100_000
"""Entries of one vector; a small file can claim billions."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a flatbuffer. Every method raises ValueError when an offset points outside of the bytes."""

    content: bytes
    position: int

    @classmethod
    def root(cls, content: bytes) -> Table:
        """The table that a buffer starts with."""
        return cls(content, _number(content, "<I", 0))

    def text(self, field: int) -> str:
        """A string; empty where it is left out."""
        at = self._at(field)
        return "" if at is None else self._string(at + _number(self.content, "<I", at))

    def table(self, field: int) -> Table | None:
        """A table, or the value of a union."""
        at = self._at(field)
        return None if at is None else Table(self.content, at + _number(self.content, "<I", at))

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        starts = self._vector(field, 4)
        return [Table(self.content, start + _number(self.content, "<I", start)) for start in starts]

    def numbers(self, field: int, code: str) -> tuple[Any, ...]:
        """A vector of numbers of a struct code (`f`, `I`)."""
        return tuple(_number(self.content, f"<{code}", start) for start in self._vector(field, struct.calcsize(code)))

    def number(self, field: int, code: str) -> Any:
        """A number; 0 where it is left out."""
        at = self._at(field)
        return 0 if at is None else _number(self.content, f"<{code}", at)

    def _at(self, field: int) -> int | None:
        vtable = self.position - _number(self.content, "<i", self.position)
        entry = 4 + 2 * field
        if entry >= _number(self.content, "<H", vtable):
            return None
        offset = _number(self.content, "<H", vtable + entry)
        return self.position + offset if offset else None

    def _vector(self, field: int, width: int) -> list[int]:
        at = self._at(field)
        if at is None:
            return []
        start = at + _number(self.content, "<I", at)
        count = _number(self.content, "<I", start)
        if count > _MOST:
            raise ValueError("too many entries")
        return [start + 4 + width * index for index in range(count)]

    def _string(self, start: int) -> str:
        size = _number(self.content, "<I", start)
        if start + 4 + size > len(self.content):
            raise ValueError("a string ends outside of the buffer")
        return self.content[start + 4 : start + 4 + size].decode("utf-8", errors="replace")


def _number(content: bytes, code: str, position: int) -> Any:
    if not 0 <= position <= len(content) - struct.calcsize(code):
        raise ValueError("an offset points outside of the buffer")
    return struct.unpack_from(code, content, position)[0]
