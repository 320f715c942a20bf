"""What OpenVINO complains of, without where in its own source code it did."""

from __future__ import annotations

import re
from typing import Final

_PLACES: Final = re.compile(
    r"(?:Exception from \S+:\d+:?|Check '.*' failed at \S+:\d+:?|FrontEnd API failed with \w+:?|Summary:"
    r"|To facilitate the conversion of unsupported operations.*|Model wasn't fully converted\.)\s*\Z"
)
"""Lines about its insides, as version 2026 writes them."""
_UNKNOWN: Final = re.compile(r"-- No conversion rule found for operations: (.+)")


def complaint_of(error: BaseException) -> str:
    """The lines of an exception that are about the model, as one; all of them where none is."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [_UNKNOWN.sub(r"it has no operation \1", line) for line in lines if line and not _PLACES.match(line)]
    return "; ".join(said) or " ".join(filter(None, lines)) or type(error).__name__
