"""Serves what a device has installed, and goes along when its agent activates something else."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, final

from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import SlotId
from edge_runtime.installed import InstalledBuild, installed_builds
from edge_runtime.serving.host import ModelHost

_log: Final = logging.getLogger(__name__)
_LOOK_EVERY_S: Final = 1.0
_PATIENCE_S: Final = 1.0


@final
class Following:
    """The builds that a device's slots point to, served by a host; use it as a context manager.

    Each slot is served under the name that its model has when it is first seen: clients keep asking by that name.

    Args:
        host: loads and swaps.
        state_dir: the agent's.
        look_every_s: how often the pointers are read.

    Raises:
        ContractError: it is no state folder, or nothing is installed.
        InferenceError: a build cannot be loaded.
        TrustError: a file is not the promised one.
    """

    def __init__(self, host: ModelHost, state_dir: Path, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._host = host
        self._state_dir = state_dir
        self._look_every_s = look_every_s
        self._seen: dict[SlotId, InstalledBuild] = {}
        self._names: dict[SlotId, str] = {}
        self._ending = threading.Event()
        for slot, build in installed_builds(state_dir).items():
            self._take(slot, build)
        self._thread = threading.Thread(target=self._watch, name="following", daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        # It may be loading, and what loads may hang; the host frees what comes too late.
        self._thread.join(_PATIENCE_S)

    def look(self) -> None:
        """Serve what the slots point to now; what cannot be served leaves its predecessor in place."""
        try:
            builds = installed_builds(self._state_dir)
        except EdgeError as error:
            _log.warning("the device's pointers cannot be read: %s", error)
            return
        for slot, build in builds.items():
            seen = self._seen.get(slot)
            if seen is not None and build.activation.same_build(seen.activation):
                continue
            try:
                self._take(slot, build)
            except EdgeError as error:
                # Once: the same build is not tried again until the agent points to another.
                self._seen[slot] = build
                _log.warning("slot %s goes on with what it served: %s", slot, error)

    def _take(self, slot: SlotId, build: InstalledBuild) -> None:
        release = (build.release, build.source)
        name = self._names.get(slot)
        if name is None:
            self._names[slot] = self._host.load(release, variant=build.activation.variant).name
        elif any(one.name == name for one in self._host.models()):
            self._host.swap(release, name=name, variant=build.activation.variant)
        else:
            self._host.load(release, name=name, variant=build.activation.variant)
        self._seen[slot] = build

    def _watch(self) -> None:
        while not self._ending.wait(self._look_every_s):
            self._try_to_look()

    def _try_to_look(self) -> None:
        try:
            self.look()
        except Exception:  # noqa: BLE001 (short of files or memory, for example: the next look may succeed)
            _log.exception("the device's pointers could not be followed this time")
