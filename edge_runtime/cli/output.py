"""How every command prints, whatever its output is: JSON, and text where not every character can be written."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Final

import typer

from edge_runtime.contract.errors import printable
from edge_runtime.terminal import fitted

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_READABLE: Final = "edge-runtime-readable"
_UNPRINTABLE: Final = r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


_USUAL: Final = frozenset({"strict", "backslashreplace", "surrogateescape"})
"""What Python does about such characters unless somebody wishes otherwise (`PYTHONIOENCODING=ascii:replace`)."""
_PLAIN: Final = dict(zip("×µ−–…≤≥→·’“”", "xu--.<>>*'\"\"", strict=True))
"""What our own sentences and tables use beyond ASCII; one character for one, so that columns stay in line."""


def use_any_output() -> None:
    """Have output written in whatever encoding it goes to, and nowhere when there is none (`>&-`)."""
    codecs.register_error(_READABLE, _readable)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # In this order, so that no file of ours gets the number that libraries take for the output.
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (for as long as the process lives)
        elif mode == "w" and isinstance(stream, TextIOWrapper) and stream.errors in _USUAL:
            stream.reconfigure(errors=_READABLE)


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Our own signs by their likeness in ASCII, all others by their number."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text), error.end


def say(line: str) -> None:
    """A sentence for a person on standard error; what would steer a terminal in it is escaped."""
    sys.stderr.write(f"{fitted(printable(line), sys.stderr)}\n")


def print_json(document: object) -> None:
    """A document on standard output, whatever text strangers put into it."""
    # Elsewhere JSON's own way to write a character is the only one that a program reads as that character.
    text = json.dumps(document, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf"))
    if not text.isascii() or "\x7f" in text:
        # JSON itself escapes the older control characters only, and a lone surrogate cannot be written at all.
        text = re.sub(_UNPRINTABLE, lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.write(text + "\n")
