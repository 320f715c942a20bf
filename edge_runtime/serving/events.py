"""What a host tells whoever listens: models that come, go, fail and recover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Happened(Enum):
    """What kind of event it is; names are `noun.verb_past` as in logs."""

    LOADED = "model.loaded"
    SWAPPED = "model.swapped"
    REFUSED = "model.refused"
    """A release did not get to answer; what answered before goes on."""
    UNLOADED = "model.unloaded"
    EVICTED = "model.evicted"
    """Unloaded to make room; the next call loads it again."""
    UNBATCHED = "model.unbatched"
    """Calls that were run together got no answers of their own: those of this variant run one by one from now on."""
    DEGRADED = "model.degraded"
    FAILED = "model.failed"
    RECOVERED = "model.recovered"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one version of a model."""

    what: Happened
    model: str
    version: str
    variant: str | None = None
    """The variant that answers from now on."""
    reason: str | None = None
    """Code of `contract.reasons`, for what went wrong."""
    detail: str = ""
    """One sentence for a person."""


Listener = Callable[[Event], None]
"""Is told each event in the thread where it happens; must return soon and not raise."""


def ignore(event: Event) -> None:
    """A listener that does not care."""
    del event
