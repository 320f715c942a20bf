"""What a device's slots share on disk: journal, content store, pointers; and what of it is garbage."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.contract.digest import Digest
from edge_runtime.update.contents import blobs_to_keep, everything, index_descriptor
from edge_runtime.update.journal import Journal
from edge_runtime.update.pointers import SlotPointers
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore


@dataclass(frozen=True, slots=True)
class Home:
    """Where a device keeps what it knows; shared by its slots."""

    journal: Journal
    store: ContentStore
    pointers: SlotPointers

    def tidy(self) -> None:
        """Remove what a former run left half-done, but for downloads in progress. Raises: UpdateError."""
        with self.store.lock:
            self.store.drop_leftovers(self._needed())

    def collect_garbage(self) -> int:
        """Remove every blob that nothing live can reach; returns the bytes freed. Raises: UpdateError."""
        with self.store.lock:
            return self.store.sweep(self._needed())

    def check(self, activation: Activation) -> None:
        """Read every blob of a build from disk. Raises: ContractError, DigestMismatch when one is lost or damaged."""
        index = index_descriptor(activation.release, activation.release_bytes)
        for blob in everything(self.store, index, activation.variant_digest):
            self.store.verify(blob)

    def _needed(self) -> set[Digest]:
        pointed = [self.pointers.read(slot) for slot in self.pointers.slots()]
        activations = [one for pair in pointed for one in (pair.current, pair.previous) if one is not None]
        statuses = [self.journal.read(slot).status for slot in self.journal.slots()]
        return blobs_to_keep(self.store, activations, statuses)
