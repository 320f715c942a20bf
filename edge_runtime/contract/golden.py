"""What a golden set holds: its archive (ustar, sorted, mtime 0), and what a person says the right answers are."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

import io
import re
import tarfile
from collections.abc import Mapping
from typing import Final

from edge_runtime.contract.codec import Document
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import GOLDEN_MAX_BYTES

GOLDEN_MAX_MEMBERS: Final = 4096
TRUTH_MEMBER: Final = "truth.json"
OWN_LAYER: Final = "own.npz"

# inputs/<n>/<input>.npy, float/<n>/<tensor>.npy, truth.json; nothing else may be in the archive.
_MEMBER: Final = r"(?:(?:inputs|float)/(?:0|[1-9][0-9]{0,5})/[A-Za-z0-9._-]{1,100}\.npy|truth\.json)\Z"


class TrueObject(Document, frozen=True, kw_only=True):
    """One object in a picture."""

    label: int
    """Class index."""
    box: list[float]
    """Left, top, right, bottom in pixels of the picture as the golden set stores it."""


class TrueMask(Document, frozen=True, kw_only=True):
    """The class of every pixel of a picture as the golden set stores it."""

    height: int
    width: int
    runs: list[tuple[int, int]]
    """Row after row, a class and how many pixels it lasts; class −1: nobody judges them."""


class Truth(Document, frozen=True, kw_only=True):
    """`truth.json`: what a person says the right answers are, by output name, one entry per sample.

    None stands where nobody knows.
    """

    labels: dict[str, list[int | None]] = {}
    """Class index for a `classes` output; for `anomaly` and `score` 0 (normal) or 1."""
    values: dict[str, list[list[float] | None]] = {}
    """The right numbers for a `values` output."""
    objects: dict[str, list[list[TrueObject] | None]] = {}
    """All objects for a `detections` output."""
    masks: dict[str, list[TrueMask | None]] = {}
    """For a `segmentation` output."""

    def lengths(self) -> set[int]:
        """How many samples the entries speak of."""
        parts = (self.labels, self.values, self.objects, self.masks)
        return {len(entries) for part in parts for entries in part.values()}


def write_golden(members: Mapping[str, bytes]) -> bytes:
    """Pack a golden set deterministically. Raises: ContractError for a foreign name or over 4 MiB."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            _check_member(name)
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            archive.addfile(info, io.BytesIO(members[name]))
    packed = buffer.getvalue()
    if len(packed) > GOLDEN_MAX_BYTES:
        raise ContractError(
            "pack the golden set",
            f"{len(packed)} bytes exceed {GOLDEN_MAX_BYTES}",
            "use fewer samples or smaller inputs (--golden-count)",
        )
    return packed


def read_golden(packed: bytes) -> dict[str, bytes]:
    """Unpack a golden set in memory; nothing is ever extracted to disk.

    Raises:
        ContractError: not a plain ustar of the agreed members.
    """
    if len(packed) > GOLDEN_MAX_BYTES:
        raise ContractError("read the golden set", f"{len(packed)} bytes exceed {GOLDEN_MAX_BYTES}")
    members: dict[str, bytes] = {}
    unpacked = 0
    try:
        # "r:" refuses compression: an archive of 4 MiB must not unfold into gigabytes.
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
            for info in archive:
                _check_member(info.name)
                # A sparse file declares what the archive does not hold.
                is_plain = info.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not info.issparse()
                if not is_plain or info.name in members or len(members) >= GOLDEN_MAX_MEMBERS:
                    raise ContractError(f"read golden member {shown(info.name)}", "it is no plain, single file")
                unpacked += max(info.size, 0)
                source = archive.extractfile(info) if info.size >= 0 and unpacked <= len(packed) else None
                if source is None:
                    raise ContractError(f"read golden member {shown(info.name)}", "its size is impossible")
                members[info.name] = source.read()
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise ContractError("read the golden set", f"it is not a tar archive ({shown(str(error))})") from error
    return members


def _check_member(name: str) -> None:
    if not re.match(_MEMBER, name):
        raise ContractError(f"use golden member {shown(name)}", "the golden set has no place for it")
