"""Which release answers in a slot, and which one did before: two small files, each replaced in one step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.contract.digest import parse_digest
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import SlotId, parse_slot_id, parse_variant_id
from edge_runtime.update.disk import Disk, disk_errors
from edge_runtime.update.states import Activation

_CURRENT: Final = "current.json"
_PREVIOUS: Final = "previous.json"
_POINTER_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Pointed:
    """What a slot's pointers name; a pointer that cannot be read names nothing."""

    current: Activation | None
    previous: Activation | None
    damaged: bool = False
    """The `current` file is there but cannot be read."""


class SlotPointers:
    """The pointer files of all slots.

    Args:
        root: folder of the pointers; each slot has its own inside.
        disk: the disk to use.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root = root
        self._disk = disk or Disk()

    def slots(self) -> tuple[SlotId, ...]:
        """Every slot that ever had a pointer."""
        if not self._root.is_dir():
            return ()
        return tuple(sorted(parse_slot_id(path.name) for path in self._root.iterdir() if path.is_dir()))

    def read(self, slot: SlotId) -> Pointed:
        """What the slot's pointers name; never raises for damaged files."""
        folder = self._root / slot
        current, previous = _read(folder / _CURRENT), _read(folder / _PREVIOUS)
        return Pointed(current, previous, damaged=current is None and (folder / _CURRENT).exists())

    def activate(self, slot: SlotId, activation: Activation) -> None:
        """Point the slot at a build, and remember the one before; safe to repeat. Undone by `restore`.

        Raises:
            UpdateError: a disk error; both pointers are still whole, old or new.
        """
        pointed = self.read(slot)
        with disk_errors(f"activate variant {activation.variant} in slot {slot}"):
            if pointed.current is not None and not activation.same_build(pointed.current):
                self._replace(slot, _PREVIOUS, pointed.current)
            self._replace(slot, _CURRENT, activation)

    def restore(self, slot: SlotId, activation: Activation | None) -> None:
        """Point the slot back at what answered before, or at nothing; safe to repeat.

        Raises:
            UpdateError: a disk error.
        """
        with disk_errors(f"go back in slot {slot}"):
            if activation is None:
                self._remove(slot, _CURRENT)
            else:
                self._replace(slot, _CURRENT, activation)

    def clear(self, slot: SlotId) -> None:
        """Point the slot at nothing and forget what it was; safe to repeat. Raises: UpdateError."""
        with disk_errors(f"empty slot {slot}"):
            self._remove(slot, _CURRENT)
            self._remove(slot, _PREVIOUS)

    def _replace(self, slot: SlotId, name: str, activation: Activation) -> None:
        folder = self._root / slot
        self._disk.make_folder(folder)
        staged = folder / f".{name}"
        self._disk.write(staged, msgspec.json.encode(activation, order="sorted"))
        self._disk.rename(staged, folder / name)

    def _remove(self, slot: SlotId, name: str) -> None:
        folder = self._root / slot
        if folder.is_dir():
            self._disk.remove(folder / name)
            self._disk.flush_folder(folder)


def _read(path: Path) -> Activation | None:
    try:
        with path.open("rb") as source:
            activation = msgspec.json.decode(source.read(_POINTER_MAX_BYTES), type=Activation)
        parse_digest(activation.release)
        parse_digest(activation.variant_digest)
        parse_variant_id(activation.variant)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, ContractError):
        return None
    return activation
