"""A device's state folder with one release in slot main, as an agent leaves it."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.contract.ids import SlotId
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.installed import DATABASE, POINTERS, STORE
from edge_runtime.update.pointers import SlotPointers
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore


def write_state(folder: Path, release: Path) -> Path:
    """Install the first variant of a release folder; returns the state folder."""
    layout, store = LayoutFolder(release).open(), ContentStore(folder / STORE)
    for blob in (release / "blobs" / "sha256").iterdir():
        store.put(blob.read_bytes())
    entry = layout.index.variants[0]
    index = release / "blobs" / "sha256" / layout.digest.removeprefix("sha256:")
    activation = Activation(
        seq=1, target=None, release=layout.digest, release_bytes=index.stat().st_size, variant=entry.id,
        variant_digest=entry.descriptor.digest, parameters={},
    )  # fmt: skip
    SlotPointers(folder / POINTERS).activate(SlotId("main"), activation)
    (folder / DATABASE).touch()
    return folder
