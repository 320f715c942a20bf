"""What the agent asks its trial process to do."""

from __future__ import annotations

import msgspec

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.update.states import Activation


class TrialTask(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate to measure beside what runs."""

    store_root: str
    candidate: Activation
    running: Activation | None
    backends: list[str] | None
    threads: int
    memory_bytes: int | None
    facts: DeviceFacts
    ask_golden: bool
    rounds: int = 30
    """Timed calls of each model, interleaved."""
