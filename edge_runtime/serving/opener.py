"""How the models of a host are opened: with which engines, threads and limits, here or in a process of their own."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.ids import VariantId
from edge_runtime.inference.backend import Registry
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.model import Model
from edge_runtime.inference.requests.finite import NanPolicy
from edge_runtime.inference.tuned import TunedFrom
from edge_runtime.serving.instance import Instance, LocalInstance, Open
from edge_runtime.serving.variants import Origin, Release, read_origin
from edge_runtime.serving.worker_limits import WorkerLimits

if TYPE_CHECKING:
    from edge_runtime.serving.worker import Nursery

Isolation = Literal["thread", "process"]
"""Whether a model runs in this process, or in a worker process that can be ended when its engine hangs."""


@dataclass(slots=True)
class Opener:
    """Reads releases and opens their variants; any thread."""

    registry: Registry
    threads: int | None
    facts: DeviceFacts | None
    nan: NanPolicy
    limits: WorkerLimits
    tuned: TunedFrom = None
    _found: dict[frozenset[str], DeviceFacts] = field(default_factory=dict)
    _nursery: Nursery | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, release: Release, variant: str | None, *, first: VariantId | None = None) -> Origin:
        """A release and its variants that fit this machine. Args and Raises: as `variants.read_origin`."""
        return read_origin(release, variant, self._facts_about, self.tuned, first=first, registry=self.registry)

    def opens(self, isolation: Isolation) -> Open:
        """What loads a variant, here or in a process of its own."""
        return self._open_here if isolation == "thread" else self._open_in_process

    def _facts_about(self, names: frozenset[str]) -> DeviceFacts:
        """This machine's facts; engines are constructed to find out once, not at each swap."""
        if self.facts is not None:
            return self.facts
        if names not in self._found:
            self._found[names] = machine_facts(engines(names, self.registry))
        return self._found[names]

    def _open_here(self, origin: Origin, variant: VariantId) -> Instance:
        release = (origin.release, origin.source)
        return LocalInstance(
            Model.open(
                release,
                variant=variant,
                threads=self.threads,
                facts=origin.facts,
                registry=self.registry,
                tuned=self.tuned,
            ),
            self.nan,
        )

    def _open_in_process(self, origin: Origin, variant: VariantId) -> Instance:
        from edge_runtime.serving.worker import Nursery, open_worker

        with self._lock:
            self._nursery = self._nursery or Nursery()
        return open_worker(
            origin,
            variant,
            nursery=self._nursery,
            limits=self.limits,
            registry=self.registry,
            threads=self.threads,
            nan=self.nan,
            tuned=self.tuned,
        )
