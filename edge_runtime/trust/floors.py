"""Version floors: nothing older than what was seen, unless the keys that signed it have been replaced.

A floor is kept per role *and key*. A role's floor is the highest version that a threshold of its present keys
stood behind, so replacing stolen keys undoes a version number that the thief drove sky-high (TUF specification
5.3.11, fast-forward recovery), while adding a key undoes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuf.api.metadata import Role


def floor_of(floors: Mapping[str, int], name: str, delegation: Role) -> int:
    """The lowest version still acceptable for a role under its present keys; 0 when none was seen."""
    seen = sorted((floors.get(f"{name}@{key_id}", 0) for key_id in delegation.keyids), reverse=True)
    return seen[delegation.threshold - 1] if delegation.threshold <= len(seen) else 0


def raised(floors: Mapping[str, int], name: str, version: int, signers: Iterable[str]) -> dict[str, int]:
    """The floors after a version was accepted from these keys; none of them falls."""
    marks = {f"{name}@{key_id}": version for key_id in signers}
    return {**floors, **{mark: max(value, floors.get(mark, 0)) for mark, value in marks.items()}}


def names_with(floors: Mapping[str, int], prefix: str) -> frozenset[str]:
    """The names under which floors are kept, of those that begin with a prefix."""
    return frozenset(mark.rpartition("@")[0] for mark in floors if mark.startswith(prefix))
