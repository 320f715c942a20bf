"""How every command prints JSON, and the option that asks for it."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, Final

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_UNPRINTABLE: Final = r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def print_json(document: object) -> None:
    """A document on standard output, whatever text strangers put into it."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if not text.isascii() or "\x7f" in text:
        # JSON itself escapes the older control characters only, and a lone surrogate cannot be written at all.
        text = re.sub(_UNPRINTABLE, lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.write(text + "\n")
