"""The folder of releases from which clients may load: what is in it, found by reading it, never by building a path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.layout import LayoutFolder

_RELEASES_MAX: Final = 1000
_DEPTH: Final = ("*/index.json", "*/*/index.json")
"""A folder for each release, or one for each model with its versions in it."""
_PARTS: Final = re.compile(r"\d+|\D+")


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release in the folder."""

    name: str
    version: str
    folder: Path


class Repository:
    """A folder of releases (OCI layouts), as `edge-convert` writes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def releases(self) -> list[StoredRelease]:
        """What can be loaded now, by name, older versions first; what cannot be read is left out."""
        found = [one for one in self._read() if isinstance(one, StoredRelease)]
        return sorted(found, key=lambda one: (one.name, _by_number(one.version)))

    def left_out(self) -> list[str]:
        """Why what looks like a release cannot be read, one sentence for each: clients see none of it."""
        return [str(one) for one in self._read() if isinstance(one, EdgeError)]

    def _read(self) -> Iterator[StoredRelease | EdgeError]:
        for pattern in _DEPTH:
            for index in sorted(self._folder.glob(pattern))[:_RELEASES_MAX]:
                folder = index.parent
                # A link may lead anywhere; what is served must lie in the folder that the operator named.
                if not folder.resolve().is_relative_to(self._folder):
                    continue
                try:
                    manifest = LayoutFolder(folder).open().manifest
                except EdgeError as error:
                    yield error
                else:
                    yield StoredRelease(manifest.name, manifest.version, folder)

    def find(self, name: str, version: str | None = None, *, what: str = "load") -> StoredRelease:
        """The release of that name, its newest where no version is given.

        Args:
            name: of the model.
            version: exactly this one.
            what: is to be done with it, for the sentence that refuses.

        Raises:
            InferenceError: code `not_found`.
        """
        fitting = [one for one in self.releases() if one.name == name and version in {None, one.version}]
        if not fitting:
            raise InferenceError(
                f"{what} model {shown(name)}",
                "the repository holds no such release",
                "ask for its index: POST /v2/repository/index",
                code="not_found",
            )
        return fitting[-1]


def _by_number(version: str) -> list[tuple[int, int, str]]:
    """Sorts 2.10 behind 2.9."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _PARTS.findall(version)]
