"""Models that are live in this process: load, find, swap, unload."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Final, final

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.errors import ContractError, EdgeError
from edge_runtime.contract.ids import VariantId, shown
from edge_runtime.inference.backend import BACKENDS, Registry, allowed
from edge_runtime.inference.requests.finite import NanPolicy
from edge_runtime.inference.tuned import TunedFrom
from edge_runtime.inference.tuned_settings import as_wished
from edge_runtime.serving.backoff import Backoff
from edge_runtime.serving.batched import check_batchable, gathering
from edge_runtime.serving.batching import ALONE, ANY_MODEL, BatchPolicy
from edge_runtime.serving.calls import UnknownModel, UnknownVersion
from edge_runtime.serving.caretaker import Caretaker
from edge_runtime.serving.deployment import Deployment
from edge_runtime.serving.events import Event, Happened, Listener, ignore
from edge_runtime.serving.opener import Isolation, Opener
from edge_runtime.serving.residency import Residency
from edge_runtime.serving.seating import Keeper
from edge_runtime.serving.served import Place, Served
from edge_runtime.serving.shadow import Shadow
from edge_runtime.serving.variants import Release
from edge_runtime.serving.worker_limits import WorkerLimits

_QUEUE_LIMIT: Final = 64
_DRAIN_S: Final = 3600.0
_SHADOW_ROOM: Final = 8
_PATIENCE_S: Final = 30.0
_DRAIN_CHECK_S: Final = 0.5
"""Between two looks at whether the sequences of a replaced version have ended."""


@final
class ModelHost:
    """All models served by this process; any thread may ask, load, swap and unload.

    Args:
        memory_bytes: all loaded models together may need this much by estimate; None: no bound. The model that was not
            asked for longest makes room, and comes back with its next call.
        threads: threads inside one call; None: as each variant says.
        backends: names of engines that may be used; None: all.
        facts: this machine's; None: found out when a release is loaded.
        queue_limit: calls that may wait for one model.
        nan: what to do about NaN and infinities in inputs.
        backoff: when a variant that failed is tried again.
        isolation: where models run unless a call of `load` or `swap` says otherwise.
        worker_limits: what a model in a process of its own may take.
        batching: how far calls of several callers are gathered, by the name that a model is served under; `*`: for all
            others that can be asked so. Without either, as `edge-runtime tune` found best here.
        drain_s: sequences of a replaced version that have not ended by then are ended: their client may be gone.
        tuned: where what `edge-runtime tune` found is taken from.
        on_event: is told what happens to the models.
        registry: backends by name.
    """

    def __init__(  # noqa: PLR0913 (whoever composes a program sets each by name)
        self,
        memory_bytes: int | None = None,
        *,
        threads: int | None = None,
        backends: Collection[str] | None = None,
        facts: DeviceFacts | None = None,
        queue_limit: int = _QUEUE_LIMIT,
        nan: NanPolicy = "off",
        backoff: Backoff | None = None,
        isolation: Isolation = "thread",
        worker_limits: WorkerLimits | None = None,
        drain_s: float = _DRAIN_S,
        tuned: TunedFrom = None,
        batching: Mapping[str, BatchPolicy] | None = None,
        on_event: Listener = ignore,
        registry: Registry = BACKENDS,
    ) -> None:
        self._opener = Opener(allowed(registry, backends), threads, facts, nan, worker_limits or WorkerLimits(), tuned)
        self._keeper = Keeper(Residency(memory_bytes), Caretaker(), on_event, backoff or Backoff(), queue_limit)
        self._batching = batching or {}
        self._isolation: Isolation = isolation
        self._drain_s = drain_s
        # Guards both tables; never held while a model is loaded or drained.
        self._changing = threading.Lock()
        self._names: dict[str, Place] = {}
        self._versions: dict[tuple[str, str], Place] = {}
        self._unloaded: set[str] = set()
        """Names that were served once, for whoever still asks by them."""
        self._coming: set[Deployment] = set()
        """What is being loaded."""
        self._is_closed = False

    @property
    def used_bytes(self) -> int:
        """Memory that the loaded models need by estimate."""
        return self._keeper.residency.used_bytes

    def load(
        self,
        release: Release,
        *,
        name: str | None = None,
        variant: str | None = None,
        isolation: Isolation | None = None,
    ) -> Served:
        """Open a release beside what is served; the first version of a name is the one that answers for it.

        What is returned stays with this version; `find` by name alone follows every swap.

        Args:
            release: what to load.
            name: served under this name; None: the model's own.
            variant: exactly this one (and the fallback that it names); None: the best for this machine.
            isolation: `process` for engines that may hang or crash, which costs a copy of each tensor; None: as the
                version that answers for the name, else as the host's models.

        Raises:
            InferenceError: code `load_failed`, `no_variant`, `golden_failed` or `memory`; nothing has changed.
            ContractError: the release breaks the contract, or this version is already served under that name.
            DigestMismatch: a file is not the promised one.
        """
        fresh = self._described(release, name, variant, isolation)
        if (fresh.name, fresh.version) in self._versions:
            raise _already_served(fresh)
        self._bring_in(fresh, beside=None)
        with self._placing(fresh):
            place = Place(fresh)
            if self._versions.setdefault((fresh.name, fresh.version), place) is not place:
                raise _already_served(fresh)
            self._names.setdefault(fresh.name, Place(fresh))
        return Served(place)

    def swap(
        self,
        release: Release,
        *,
        name: str | None = None,
        variant: str | None = None,
        isolation: Isolation | None = None,
    ) -> Served:
        """Let a release answer for its name between two calls, then drain and unload the version it replaces.

        It is loaded beside the former version and must answer its golden questions before it takes over.

        Args: as `load`.

        Raises: as `load`, except that a version may replace itself; the former version keeps answering. UnknownModel:
            nothing is served under that name.
        """
        fresh = self._described(release, name, variant, isolation)
        self._check_open(fresh)
        if (place := self._names.get(fresh.name)) is None:
            served = ", ".join(sorted(self._names)) or "no models"
            remedy = "load it, or say with name= which one it replaces"
            raise UnknownModel(f"swap model {shown(fresh.name)}", f"served are {served}", remedy)
        self._bring_in(fresh, beside=place.live)
        with self._placing(fresh):
            place = self._names.setdefault(fresh.name, Place(fresh))
            former, place.live = place.live, fresh
            leaving = [former] if former is not fresh else []
            if fresh.version != former.version:
                self._versions.pop((former.name, former.version), None)
            pinned = self._versions.setdefault((fresh.name, fresh.version), Place(fresh))
            if pinned.live not in {fresh, former}:
                leaving.append(pinned.live)
            pinned.live = fresh
            is_watched = bool(place.draining)
            if former in leaving and former.is_sequential:
                if former.on_swap == "drain":
                    leaving.remove(former)
                    former.drained_by = time.monotonic() + self._drain_s
                    place.draining += (former,)
                else:
                    place.forgotten = frozenset(former.seating.open_sequences())
        if former is not fresh:
            self._tell(Happened.SWAPPED, fresh, detail=f"replaces {former.version}")
        for one in leaving:
            one.seating.retire()
        if place.draining and not is_watched:
            self._keeper.caretaker.after(_DRAIN_CHECK_S, lambda: self._end_drained(place))
        return Served(place)

    def shadow(
        self,
        release: Release,
        *,
        name: str | None = None,
        variant: str | None = None,
        isolation: Isolation | None = None,
        share: float = 0.1,
        room: int = _SHADOW_ROOM,
    ) -> Shadow:
        """Let a candidate answer a share of the live calls besides; clients see nothing of it.

        Args:
            release: the candidate.
            name: whose calls; None: the candidate's own name.
            variant: as `load`.
            isolation: as `load`; a candidate that hangs in this process can never be freed.
            share: of the calls, 0 < share ≤ 1.
            room: calls that may wait for the candidate; more are not taken, and counted.

        Raises:
            UnknownModel: nothing is served under that name.
            ContractError: the share is no share, or a shadow runs already.
            InferenceError: as `load`; the live version is not touched.
        """
        if not 0 < share <= 1:
            raise ContractError("start a shadow", f"its share is {share}", "give a number above 0, at most 1")
        candidate = self._described(release, name, variant, isolation)
        self.find(candidate.name)
        place = self._names[candidate.name]

        def leave() -> None:
            place.shadow = None

        shadow = Shadow(place.live, candidate, leave, share=share, room=room)
        with self._changing:
            is_alone = place.shadow is None and not self._is_closed
            if is_alone:
                place.shadow = shadow
        if not is_alone:
            shadow.abandon()
            self._check_open(candidate)
            raise ContractError(f"start a shadow of {candidate.name}", "one runs already", "stop it first")
        return shadow

    def unload(self, name: str, version: str | None = None) -> None:
        """Drain and free one version, or all of a name. Raises: UnknownModel, UnknownVersion."""
        with self._changing:
            self.find(name, version)
            keys = [key for key in self._versions if key[0] == name and version in {None, key[1]}]
            leaving = [self._versions.pop(key).live for key in keys]
            shadow: Shadow | None = None
            rest = [place.live for key, place in self._versions.items() if key[0] == name]
            if not rest:
                place = self._names.pop(name)
                self._unloaded.add(name)
                leaving.extend(place.draining)
                shadow = place.shadow
            elif self._names[name].live in leaving:
                self._names[name].live = rest[-1]
        if shadow is not None:
            shadow.stop()
        for one in leaving:
            one.seating.retire()

    def find(self, name: str, version: str | None = None) -> Served:
        """The live version of a name, or exactly one version. Raises: UnknownModel, UnknownVersion."""
        place = self._names.get(name)
        if place is None:
            because = "it was unloaded" if name in self._unloaded else "it is not served here"
            remedy = "list what is: POST /v2/repository/index, or models() of a local client"
            raise UnknownModel(f"ask model {shown(name)}", because, remedy)
        if version:
            place = self._versions.get((name, version))
            if place is None:
                served = ", ".join(sorted(key[1] for key in list(self._versions) if key[0] == name))
                raise UnknownVersion(f"ask model {name} {shown(version)}", f"served are {served}", "ask one of these")
        return Served(place)

    def models(self) -> tuple[Served, ...]:
        """Every version that is served, each pinned, in the order in which they were loaded."""
        return tuple(Served(place) for place in list(self._versions.values()))

    def close(self, patience_s: float = _PATIENCE_S) -> tuple[str, ...]:
        """Drain and free everything; safe to repeat.

        Args:
            patience_s: for calls in flight, candidates of shadows and loads all together.

        Returns:
            What did not come back in time (`2 calls of model m 1.0.0`). It frees its memory should it ever do so.
        """
        give_up = time.monotonic() + patience_s
        self._keeper.caretaker.close()
        with self._changing:
            self._is_closed = True
            places = (*self._versions.values(), *self._names.values())
            leaving = {one for place in places for one in (place.live, *place.draining)}
            shadows = [place.shadow for place in places if place.shadow is not None]
            self._versions.clear()
            self._names.clear()
        hung = [left for one in shadows if (left := one.abandon(max(0.0, give_up - time.monotonic())))]
        for one in (*leaving, *self._coming.copy()):
            if left := one.seating.retire(max(0.0, give_up - time.monotonic())):
                hung.append(f"{left} of model {one.name} {one.version}")
        return tuple(hung)

    def __enter__(self) -> ModelHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _described(
        self, release: Release, name: str | None, variant: str | None, isolation: Isolation | None
    ) -> Deployment:
        origin = self._opener.read(release, variant)
        name = name or origin.release.manifest.name
        place = self._names.get(name)
        if isolation is None:
            isolation = self._isolation if place is None else place.live.isolation
        opens = self._opener.opens(isolation)
        if self._batching.get(name, ALONE) != ALONE:
            check_batchable(name, origin)
        wished = self._batching.get(name) or self._batching.get(ANY_MODEL)
        rows = None if wished is None else wished.max_rows
        tuned = as_wished(origin.tuned, self._opener.threads, rows)
        origin = replace(origin, tuned=tuned)
        version = str(origin.release.manifest.version)

        def unbatched(one: VariantId) -> None:
            if (settings := tuned.pop(one, None)) is not None:
                tuned.update(as_wished({one: settings}, None, 1))  # of its batch nothing is used any more
            detail = "it cannot be asked by several at once, though its release says so"
            self._keeper.tell(Event(Happened.UNBATCHED, name, version, one, detail=detail))

        return Deployment(name, origin, gathering(opens, wished, unbatched), self._keeper, isolation)

    def _bring_in(self, fresh: Deployment, beside: Deployment | None) -> None:
        self._check_open(fresh)
        self._coming.add(fresh)
        try:
            fresh.seating.load(None if beside is None else beside.seating)
        except EdgeError as error:
            self._tell(Happened.REFUSED, fresh, reason=error.code, detail=error.because)
            raise
        finally:
            self._coming.discard(fresh)

    @contextmanager
    def _placing(self, fresh: Deployment) -> Iterator[None]:
        """Change the tables for what was loaded; it leaves memory where it finds no place in them."""
        try:
            with self._changing:
                self._check_open(fresh)
                yield
        except EdgeError:
            fresh.seating.retire()
            raise

    def _check_open(self, fresh: Deployment) -> None:
        if self._is_closed:
            raise ContractError(f"serve {fresh.name} {fresh.version}", "the models were closed", "open them again")

    def _end_drained(self, place: Place) -> None:
        """Retire versions whose last sequence has ended; look again later while there are others."""
        now = time.monotonic()
        ended = {one for one in place.draining if not one.seating.is_in_use or now >= one.drained_by}
        for one in ended:
            one.seating.retire()
        with self._changing:
            place.draining = tuple(one for one in place.draining if one not in ended)
            are_left = bool(place.draining)
        if are_left:
            self._keeper.caretaker.after(_DRAIN_CHECK_S, lambda: self._end_drained(place))

    def _tell(self, what: Happened, one: Deployment, *, reason: str | None = None, detail: str = "") -> None:
        self._keeper.tell(Event(what, one.name, one.version, None, reason, detail))


def _already_served(one: Deployment) -> ContractError:
    return ContractError(f"load {one.name} {one.version}", "this version is already served", "swap or unload it")
