"""A release that was tuned on this machine, without the minute that it takes."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.model import Model
from edge_runtime.inference.tuned import fingerprint_of
from edge_runtime.inference.tuned_choice import TunedChoice
from edge_runtime.tuning.kept import keep


def tuned_here(
    release: Path, folder: Path, *, threads: int | None, batch: int, variant: str | None = None, because: str = ""
) -> Path:
    """Keep a choice for one variant, by default the release's first, as `edge-runtime tune` would; returns the file."""
    with Model.open(release, variant=variant) as model:
        name = model.variant.manifest.target.engine
        facts = machine_facts(engines({name}))
        choice = TunedChoice(
            release=model.release_digest, variant=model.variant_digest, fingerprint=fingerprint_of(facts),
            engine=f"{name} {facts.engines[0].version}", threads=threads, batch=batch, p50_ms=1.0,
            at="2026-11-24T10:00:00Z", is_winner=True, because=because,
        )  # fmt: skip
    return keep(folder, choice.release, choice.fingerprint, [choice])
