"""Breaks lines for a terminal at words, as rich does, where rich is not worth its import."""

from __future__ import annotations

import os
from typing import TextIO


def fitted(text: str, stream: TextIO, *, indent: int = 0) -> str:
    """A line as it is written to a stream: in a terminal broken at words, elsewhere as it is, for programs.

    Args:
        text: one line; what no line has room for, such as a path, stays whole.
        stream: where it goes.
        indent: spaces before every line but the first.
    """
    try:
        width = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        return text
    if not 0 < width < len(text):
        return text
    import textwrap

    return textwrap.fill(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
