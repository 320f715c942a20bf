"""Of what `edge-runtime tune` found best on this machine, what a variant takes (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.layout import OpenVariant
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.inference.requests.rows import batch_axes
from edge_runtime.inference.tuned import leaves_threads_open
from edge_runtime.inference.tuned_choice import TunedChoice


@dataclass(frozen=True, slots=True)
class TunedSettings:
    """What one variant takes of its tuned choice; None: nothing was found for it, or somebody chose otherwise."""

    threads: int | None
    """Inside one call."""
    provider: str | None
    batch: int | None
    """Samples up to which calls are gathered; nobody is held back for it."""
    at: str
    """When it was measured, RFC 3339, UTC."""
    engine: str
    """Name and version that measured it."""
    because: str = ""
    """Why, in the words of whoever measured it."""

    def __str__(self) -> str:
        """As a person reads it."""
        parts = []
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'s' * (self.threads > 1)} per call")
        if self.provider is not None:
            parts.append(f"provider {self.provider}")
        if self.batch is not None:
            parts.append(f"up to {self.batch} samples at once")
        return f"{', '.join(parts) or 'no setting of its own'} (tuned here on {self.at[:10]} with {self.engine})"


def settings_of(release: ReleaseManifest, variant: OpenVariant, choice: TunedChoice) -> TunedSettings:
    """What of a choice the variant leaves open."""
    manifest = variant.manifest
    gathers = choice.batch > 1 and batch_axes(release, manifest) is not None
    return TunedSettings(
        threads=choice.threads if leaves_threads_open(manifest) else None,
        provider=choice.provider if choice.provider in manifest.target.provider else None,
        batch=min(choice.batch, manifest.batch.max) if gathers else None,
        at=choice.at,
        engine=choice.engine,
        because=choice.because,
    )


def as_wished(
    tuned: Mapping[VariantId, TunedSettings], threads: int | None, batch: int | None
) -> dict[VariantId, TunedSettings]:
    """What is left where a person said otherwise; variants of which nothing is left are left out."""
    wished = {
        name: replace(
            one, threads=one.threads if threads is None else None, batch=one.batch if batch is None else None
        )
        for name, one in tuned.items()
    }
    return {name: one for name, one in wished.items() if (one.threads, one.provider, one.batch) != (None, None, None)}
