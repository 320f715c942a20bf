"""Digests: how every immutable thing in edgefleet is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NewType, Protocol

from edge_runtime.contract.errors import ContractError, DigestMismatch
from edge_runtime.contract.ids import shown

if TYPE_CHECKING:

    class _Hash(Protocol):
        def hexdigest(self) -> str: ...

    def _own_sha256(content: bytes | memoryview, /) -> _Hash: ...

else:
    # Python's own SHA-256, which a build may leave out.
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256 as _own_sha256
        else:
            from _sha256 import sha256 as _own_sha256
    except ImportError:
        from hashlib import sha256 as _own_sha256

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits."""

_PREFIX: Final = "sha256:"
_HEX: Final = frozenset("0123456789abcdef")
_HEX_LENGTH: Final = 64
_READ_BYTES: Final = 1 << 20
_WORTH_OPENSSL: Final = 1 << 18
"""Bytes from which on hashlib is used: it loads OpenSSL, which takes longer than Python's own code for less."""


def parse_digest(text: str) -> Digest:
    """Check a digest. Raises: ContractError when it is not `sha256:<64 hex>`."""
    digits = text.removeprefix(_PREFIX)
    if not text.startswith(_PREFIX) or len(digits) != _HEX_LENGTH or not _HEX.issuperset(digits):
        raise ContractError(f"use {shown(text)} as a digest", "it is not sha256: and 64 lower-case hex digits")
    return Digest(text)


def digest_of(content: bytes | memoryview) -> Digest:
    """The digest of bytes in memory."""
    if len(content) < _WORTH_OPENSSL:
        return Digest(_PREFIX + _own_sha256(content).hexdigest())
    import hashlib  # five times as fast, once it is there

    return Digest(_PREFIX + hashlib.sha256(content).hexdigest())


def digest_of_file(path: Path) -> tuple[Digest, int]:
    """The digest and the size in bytes of a file, read in 1 MiB pieces."""
    import hashlib

    hasher = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as source:
        while piece := source.read(_READ_BYTES):
            hasher.update(piece)
            size_bytes += len(piece)
    return Digest(_PREFIX + hasher.hexdigest()), size_bytes


def hex_of(digest: Digest) -> str:
    """The 64 hex digits of a digest, which are its file name in a content store."""
    return digest.removeprefix(_PREFIX)


def check_bytes(content: bytes, digest: Digest, size_bytes: int | None, what: str) -> None:
    """Refuse bytes that are not the promised ones. Raises: DigestMismatch."""
    if size_bytes is not None and len(content) != size_bytes:
        raise DigestMismatch(
            f"accept {what}", f"expected {size_bytes} bytes, got {len(content)}", "fetch it again from a sound source"
        )
    actual = digest_of(content)
    if actual != digest:
        raise DigestMismatch(f"accept {what}", f"expected {digest}, got {actual}", "fetch it again from a sound source")
