"""What a program wrote before it failed, short enough for a sentence."""

from __future__ import annotations

from typing import Final

_SHOWN_LINES: Final = 3
_SHOWN_MAX: Final = 400


def last_words(written: bytes) -> str:
    """The last lines that are not empty, in one; empty where there are none."""
    lines = [line.strip() for line in written.decode("utf-8", "replace").splitlines() if line.strip()]
    return " / ".join(lines[-_SHOWN_LINES:])[-_SHOWN_MAX:]
