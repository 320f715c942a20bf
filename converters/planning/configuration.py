"""What all parts of a recipe have in common; pure."""

from __future__ import annotations

import msgspec


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration: a misspelt key is an error, never a silent default."""
