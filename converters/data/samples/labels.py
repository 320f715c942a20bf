"""Class texts and numbers to class indices; a label that fits nothing is named with the place where it stands."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from converters.errors import BadDataset
from edge_runtime.contract.ids import shown

_WHOLE: Final = re.compile(r"([0-9]{1,9})(?:\.0*)?\Z")
"""A class number; tables and arrays of floats write 2 as 2.0."""


def class_index(text: str, labels: Sequence[str] | None, where: str) -> int:
    """A label's index: by text first, because a label file of digits may be permuted, then by number.

    Raises:
        BadDataset: neither fits; `where` says which one it is.
    """
    if labels is not None and text in labels:
        return labels.index(text)
    count = len(labels) if labels is not None else None
    whole = _WHOLE.match(text)
    if whole and (count is None or int(whole[1]) < count):
        return int(whole[1])
    raise BadDataset(
        "match the labels",
        f"{where} says {shown(text)}, which is none of the {count if count is not None else 'numeric'} labels",
        "use the label list's own words, or class numbers starting at 0",
    )


def number(text: str, where: str) -> float:
    """A number that is right. Raises: BadDataset."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise BadDataset("match the labels", f"{where} says {shown(text)}, which is no number", "write numbers there")
    return value
