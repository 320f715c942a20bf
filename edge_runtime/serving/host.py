"""Models that are live in this process: load, find, swap, unload."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, final

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.layout import BlobSource, OpenRelease
from edge_runtime.contract.reasons import GOLDEN_FAILED, INTERNAL
from edge_runtime.inference.backend import BACKENDS, Registry
from edge_runtime.inference.model import Model
from edge_runtime.serving.calls import Call, Reply, TensorMeta, Ticket, UnknownModel, UnknownVersion
from edge_runtime.serving.deployment import Deployment, Retired, ServedState
from edge_runtime.serving.statistics import ServedStatistics

Release = Path | str | tuple[OpenRelease, BlobSource]
"""Folder of an OCI layout, or a release already read and where its blobs are."""

Done = Callable[[Reply | EdgeError], None]
"""Is told the outcome of a submitted call, on a worker thread; must return soon."""

_WORKERS: Final = 4


class _Place:
    """Where a name's live version stands; swapping is one assignment to `live`."""

    __slots__ = ("live",)

    def __init__(self, live: Deployment) -> None:
        self.live = live


class Served:
    """A model as doors see it: found by name alone it follows every swap, found with a version it stays with that."""

    __slots__ = ("_place", "_workers")

    def __init__(self, place: _Place, workers: ThreadPoolExecutor) -> None:
        self._place = place
        self._workers = workers

    @property
    def name(self) -> str:
        """Name by which it is served."""
        return self._place.live.name

    @property
    def version(self) -> str:
        """Version that answers now."""
        return self._place.live.version

    @property
    def state(self) -> ServedState:
        """What clients may expect now."""
        return self._place.live.state

    @property
    def inputs(self) -> tuple[TensorMeta, ...]:
        """Public inputs."""
        return self._place.live.inputs

    @property
    def outputs(self) -> tuple[TensorMeta, ...]:
        """Canonical output tensors, then public outputs."""
        return self._place.live.outputs

    def statistics(self) -> ServedStatistics:
        """What the version that answers now has done so far."""
        return self._place.live.tally.read()

    def call(self, call: Call) -> Reply:
        """The answer, worked out in this thread.

        Raises:
            BadCall: the call is to blame.
            UnknownVersion: this version was unloaded.
            InferenceError: there is no answer; `code` says why (`deadline`, `overloaded`, `cancelled`, …).
        """
        while True:
            live = self._place.live
            try:
                return live.call(call)
            except Retired:
                if self._place.live is live:
                    raise UnknownVersion(
                        f"ask model {live.name} {live.version}", "it was unloaded", "ask another version"
                    ) from None

    def submit(self, call: Call, done: Done) -> Ticket:
        """Have the answer worked out on a worker thread; `done` is called there, once, whatever happens."""
        return _Submitted(self._workers.submit(self._answer, call, done), done)

    def _answer(self, call: Call, done: Done) -> None:
        outcome: Reply | EdgeError
        try:
            outcome = self.call(call)
        except EdgeError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            outcome = InferenceError("answer", f"{type(error).__name__}: {shown(str(error))}", code=INTERNAL)
        done(outcome)


class _Submitted:
    def __init__(self, future: Future[None], done: Done) -> None:
        self._future = future
        self._done = done

    def cancel(self) -> bool:
        if not self._future.cancel():
            return False
        self._done(InferenceError("answer", "the call was cancelled", code="cancelled"))
        return True


@final
class ModelHost:
    """All models served by this process; any thread may ask, load, swap and unload.

    Args:
        memory_bytes: all loaded models together may need this much by estimate; None: no bound.
        threads: threads inside one call; None: as each variant says.
        backends: names of engines that may be used; None: all.
        registry: backends by name.
    """

    def __init__(
        self,
        memory_bytes: int | None = None,
        *,
        threads: int | None = None,
        backends: Collection[str] | None = None,
        registry: Registry = BACKENDS,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._backends = backends
        self._registry = registry
        self._changing = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._versions: dict[tuple[str, str], _Place] = {}
        self._workers = ThreadPoolExecutor(_WORKERS, "serving")

    def load(self, release: Release, *, name: str | None = None, variant: str | None = None) -> Served:
        """Open a release beside what is served; the first version of a name is the one that answers for it.

        What is returned stays with this version; `find` by name alone follows every swap.

        Args:
            release: what to load.
            name: served under this name; None: the model's own.
            variant: exactly this one; None: the best for this machine.

        Raises:
            InferenceError: code `load_failed`, `no_variant`, `golden_failed`; nothing has changed.
            ContractError: the release breaks the contract, or this version is already served under that name.
            DigestMismatch: a file is not the promised one.
        """
        loaded = self._open(release, name, variant)
        with self._changing:
            if (loaded.name, loaded.version) in self._versions:
                loaded.retire()
                raise InferenceError(
                    f"load {loaded.name} {loaded.version}", "it is already served", "unload it first", code="exists"
                )
            place = self._versions[loaded.name, loaded.version] = _Place(loaded)
            self._places.setdefault(loaded.name, _Place(loaded))
        return Served(place, self._workers)

    def swap(self, release: Release, *, name: str | None = None, variant: str | None = None) -> Served:
        """Let a release answer for its name between two calls, then drain and unload the version it replaces.

        Args: as `load`.

        Raises: as `load`; the former version keeps answering.
        """
        loaded = self._open(release, name, variant)
        with self._changing:
            place = self._places.setdefault(loaded.name, _Place(loaded))
            former, place.live = place.live, loaded
            if former is not loaded:
                self._versions.pop((former.name, former.version), None)
            self._versions[loaded.name, loaded.version] = _Place(loaded)
        if former is not loaded:
            former.retire()
        return Served(place, self._workers)

    def unload(self, name: str, version: str | None = None) -> None:
        """Drain and free one version, or all of a name. Raises: UnknownModel, UnknownVersion."""
        self.find(name, version)
        with self._changing:
            keys = [key for key in self._versions if key[0] == name and version in {None, key[1]}]
            leaving = [self._versions.pop(key).live for key in keys]
            rest = [place.live for key, place in self._versions.items() if key[0] == name]
            if not rest:
                self._places.pop(name, None)
            elif self._places[name].live in leaving:
                self._places[name].live = rest[-1]
        for one in leaving:
            one.retire()

    def find(self, name: str, version: str | None = None) -> Served:
        """The live version of a name, or exactly one version. Raises: UnknownModel, UnknownVersion."""
        place = self._places.get(name)
        if place is None:
            raise UnknownModel(f"ask model {shown(name)}", "it is not served here", "ask for the list of models")
        if version:
            place = self._versions.get((name, version))
            if place is None:
                served = ", ".join(sorted(key[1] for key in list(self._versions) if key[0] == name))
                raise UnknownVersion(f"ask model {name} {shown(version)}", f"served are {served}", "ask one of these")
        return Served(place, self._workers)

    def models(self) -> tuple[Served, ...]:
        """Every version that is served, each pinned, in the order in which they were loaded."""
        return tuple(Served(place, self._workers) for place in list(self._versions.values()))

    def close(self) -> None:
        """Drain and free everything; safe to repeat."""
        with self._changing:
            leaving = [place.live for place in self._versions.values()]
            self._versions.clear()
            self._places.clear()
        self._workers.shutdown()
        for one in leaving:
            one.retire()

    def __enter__(self) -> ModelHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, release: Release, name: str | None, variant: str | None) -> Deployment:
        model = Model.open(
            release, variant=variant, threads=self._threads, backends=self._backends, registry=self._registry
        )
        try:
            _check_golden(model)
        except BaseException:
            model.close()
            raise
        return Deployment(name or model.release.manifest.name, model)


def _check_golden(model: Model) -> None:
    """Ask the release's golden questions, which warms the model up as well."""
    for check in model.golden_check():
        if not check.passed:
            raise InferenceError(
                f"serve {model.release.manifest.name} {model.release.manifest.version}",
                f"golden check {check.against} {check.metric} is {check.value}",
                "build the release again, or load another variant",
                code=GOLDEN_FAILED,
            )
