"""The file of what `edge-runtime tune` found best on a machine."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Annotated

import msgspec

from edge_runtime.contract.codec import SCHEMA, Document
from edge_runtime.contract.digest import Digest


class TunedChoice(Document, frozen=True, kw_only=True):
    """The best settings of one variant on one kind of machine."""

    release: Digest
    variant: Digest
    fingerprint: Digest
    engine: str
    """Name and version that measured it."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None
    """Inside one call; None: as the variant and its engine would have it."""
    provider: str | None = None
    """The one that is best of several that the variant names."""
    batch: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    """Samples per call with which one sample cost least."""
    p50_ms: float
    at: str
    """RFC 3339, UTC."""
    is_winner: bool
    """Whether this variant is the one to take of its release."""
    because: str = ""
    """Why it is, or what it lacked."""


class TunedFile(Document, frozen=True, kw_only=True):
    """Every choice made on this machine."""

    schema: str = SCHEMA
    choices: list[TunedChoice]
