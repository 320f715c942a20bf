"""What a worker process may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker process may take before it is ended."""

    answer_within_s: float = 30.0
    """A call that takes longer hangs."""
    load_within_s: float = 300.0
    """Loading includes building an accelerator's engine, where there is one."""
    memory_bytes: int | None = None
    """Its data segment may not grow beyond this; None: no bound."""
