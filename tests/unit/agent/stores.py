"""Releases in a device's store, as an installation leaves them."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.agent.workload import EngineLimits
from edge_runtime.contract.ids import TargetPath, VariantId
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore

LIMITS = EngineLimits(("onnxruntime",), 1, None)
FACTS = machine_facts(engines(["onnxruntime"]))


def stored(store: ContentStore, layout: Path, seq: int) -> Activation:
    """Install a release; names its first variant."""
    folder = LayoutFolder(layout)
    release = folder.open()
    for blob in folder.blobs():
        store.put(folder.path_of(blob.digest).read_bytes())
    entry = release.index.variants[0]
    return Activation(
        seq=seq, target=TargetPath("models/pixels/1"), release=release.digest, release_bytes=release.index.size_bytes,
        variant=VariantId(entry.id), variant_digest=entry.digest, parameters={},
    )  # fmt: skip
