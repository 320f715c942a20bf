"""Which tensors hold one row for each sample: where they do, several questions can be one, and one several."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edge_runtime.contract.release import ReleaseManifest, VariantManifest

SAMPLES: str = "N"
"""Name of the axis that counts samples."""

BatchAxes = Mapping[str, Collection[int]]
"""For each input whose first axis counts samples: how many axes it has then."""


def batch_axes(release: ReleaseManifest, variant: VariantManifest) -> BatchAxes | None:
    """Where samples of several callers can be put together; None where this variant takes them one by one only."""
    if release.states:
        # What a caller's samples leave behind is that caller's alone.
        return None
    outputs = [release.tensors[name].shape for name in variant.io.outputs]
    if variant.batch.max < 2 or not variant.batch.dynamic or any(shape[:1] != [SAMPLES] for shape in outputs):
        return None
    axes: dict[str, set[int]] = {}
    shapes = [(spec.name, spec.shape) for spec in release.signature.inputs]
    shapes += [(name, release.tensors[name].shape) for name in variant.io.inputs]
    for name, shape in shapes:
        if shape[:1] == [SAMPLES]:
            axes.setdefault(name, set()).add(len(shape))
    return axes or None
