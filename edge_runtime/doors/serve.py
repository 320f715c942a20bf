"""`edge-runtime serve`: composes models and doors, and takes them down in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.doors.access import Access, check_exposure
from edge_runtime.doors.door import Door, Listen
from edge_runtime.doors.following import Following
from edge_runtime.doors.metrics import EventCounter, ServingMetrics, check_metrics
from edge_runtime.doors.v2.regions import SystemRegions, parse_prefix
from edge_runtime.doors.v2.repository import Repository
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.inference.requests.finite import NanPolicy
from edge_runtime.installed import is_state_folder
from edge_runtime.interrupt import wait_for
from edge_runtime.serving.batching import ANY_MODEL, BatchPolicy
from edge_runtime.serving.events import Event, Happened
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.opener import Isolation
from edge_runtime.version import software_version

DRAIN_S: Final = 10.0
"""For requests in flight when the server ends."""
_LAST_WORD_S: Final = 2.0
"""For the models afterwards: whoever waited for what an engine still works on was cut off."""


Say = Callable[[str], None]
"""Is told one line that the operator should read; any thread, must return soon."""

_WORTH_A_LINE: Final = {
    Happened.SWAPPED: "took over",
    Happened.UNBATCHED: "is asked call by call",
    Happened.DEGRADED: "is degraded",
    Happened.FAILED: "has failed",
    Happened.RECOVERED: "is ready again",
}


def silent(line: str) -> None:
    """Nobody reads along."""
    del line


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What to serve, and through which doors."""

    releases: tuple[Path, ...]
    """Release folders, and state folders of devices."""
    http: Listen | None = None
    grpc: Listen | None = None
    metrics: Listen | None = None
    """Where Prometheus may ask, besides `/metrics` of the HTTP door."""
    uds: Path | None = None
    """Socket file of the local door."""
    uds_users: tuple[int, ...] = ()
    """Ids of users who may use it besides the server's own and root."""
    shared_memory: str | None = None
    """Objects below /dev/shm that clients may register: `on`, `off`, `PREFIX*`; None: on where no v2 door lets other
    machines in."""
    repository: Path | None = None
    """Folder of releases that clients may load and unload."""
    access: Access = field(default_factory=Access)
    """What the network doors demand."""
    memory_bytes: int | None = None
    threads: int | None = None
    batching: Mapping[str, BatchPolicy] = field(default_factory=dict)
    """How far calls of several callers are gathered, by model; `*`: all others; neither: as tuned here."""
    isolation: Isolation = "thread"
    """Whether each model runs in a process of its own."""
    backends: tuple[str, ...] = ()
    """Engines that may be used; empty: all."""
    nan: NanPolicy = "reject"
    """What to do about NaN and infinities that strangers send."""
    tuned: Path | None = None
    """Folder of what was tuned; None: the user's own."""
    drain_s: float = DRAIN_S


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that answers."""

    host: ModelHost
    doors: tuple[Door, ...]
    hung: list[str] = field(default_factory=list)
    """What had not come back when it ended (`2 calls of model m 1.0.0`): whoever waits for its threads waits for ever.
    """


@contextmanager
def serving(plan: ServePlan, say: Say = silent) -> Iterator[Serving]:
    """Load everything, open every door; on the way out shut the doors, drain, and free the models.

    Args:
        plan: what, and through which doors.
        say: is told what the operator should know and no client is: models that fail and recover.

    Raises:
        ContractError: a door would let the network in unprotected, nothing is to be served, or a release is broken.
        InferenceError: a release cannot be loaded.
        UnsupportedFeature: a door or the metrics need a library that is not installed.
        TrustError: a file is not the promised one.
        TransportError: an address cannot be had.
    """
    _check(plan)
    regions = SystemRegions(_shared_prefix(plan))
    with ExitStack() as stack:
        stack.callback(regions.close)
        events = EventCounter()
        host, hung = _host(plan, events, say), list[str]()
        stack.callback(lambda: hung.extend(host.close(_LAST_WORD_S)))
        for release in plan.releases:
            if is_state_folder(release):
                stack.enter_context(Following(host, release))
            else:
                host.load(release)
        _check_batching(plan, host, say)
        service = V2Service(host, software_version(), _repository(plan, say), regions)
        doors: list[Door] = []
        doors += _doors(plan, service, ServingMetrics(host, events, lambda: doors))
        stack.callback(_stop, doors, plan.drain_s)
        for door in doors:
            door.start()
        yield Serving(host, tuple(doors), hung)


def _repository(plan: ServePlan, say: Say) -> Repository | None:
    if plan.repository is None:
        return None
    repository = Repository(plan.repository)
    for why in repository.left_out():
        say(f"left out of the repository: {why}")
    return repository


def _stop(doors: Sequence[Door], drain_s: float) -> None:
    """All at once: they share the time, and none lets clients in while another drains."""
    stopping = [threading.Thread(target=door.stop, args=(drain_s,), name="stop-door") for door in doors]
    with suppress(RuntimeError):  # this process may have no more threads: the rest one after another
        for thread in stopping:
            thread.start()
    for door, thread in zip(doors, stopping, strict=True):
        if thread.ident is None:
            door.stop(drain_s)
        else:
            wait_for(thread)


def _check(plan: ServePlan) -> None:
    if not plan.releases and plan.repository is None:
        raise ContractError("serve", "nothing is named", "name releases, or a --repository from which clients may load")
    if plan.repository is not None and not plan.repository.is_dir():
        raise ContractError(f"use repository {plan.repository}", "it is no folder", "name a folder of releases")
    for option, listen in (("--http", plan.http), ("--grpc", plan.grpc), ("--metrics", plan.metrics)):
        if listen is not None:
            check_exposure(option, listen, plan.access)
    if plan.metrics is not None:
        check_metrics()


def _shared_prefix(plan: ServePlan) -> str | None:
    """Raises: ContractError."""
    if plan.shared_memory is not None:
        return parse_prefix(plan.shared_memory)
    # Nobody on another machine has memory to share, so whoever asks from there is after ours.
    return "" if all(one is None or one.is_loopback for one in (plan.http, plan.grpc)) else None


def _check_batching(plan: ServePlan, host: ModelHost, say: Say) -> None:
    """A model named for batching is served, or may still come. Raises: ContractError."""
    served = {one.name for one in host.models()}
    for name in sorted(plan.batching.keys() - served - {ANY_MODEL}):
        if plan.repository is None and not any(map(is_state_folder, plan.releases)):
            raise ContractError(
                f"batch the calls of model {shown(name)}",
                "no such model is served",
                f"name one of {', '.join(sorted(served))}",
            )
        say(f"model {shown(name)} is not served yet: its calls are batched once it is loaded")


def _line(event: Event) -> str | None:
    """What the operator reads about an event; None where the doors show all there is to it."""
    if event.what is Happened.LOADED and event.detail:
        return f"model {event.model} {event.version} runs variant {event.variant} with {event.detail}"
    if event.what not in _WORTH_A_LINE:
        return None
    on = f" on variant {event.variant}" if event.variant else ""
    because = f": {event.detail}" if event.detail else ""
    return f"model {event.model} {event.version} {_WORTH_A_LINE[event.what]}{on}{because}"


def _host(plan: ServePlan, events: EventCounter, say: Say) -> ModelHost:
    def listen(event: Event) -> None:
        events(event)
        if line := _line(event):
            say(line)

    return ModelHost(
        plan.memory_bytes,
        threads=plan.threads,
        backends=plan.backends or None,
        nan=plan.nan,
        batching=plan.batching,
        isolation=plan.isolation,
        tuned=plan.tuned,
        on_event=listen,
    )


def _doors(plan: ServePlan, service: V2Service, metrics: ServingMetrics) -> tuple[Door, ...]:
    """Each is imported where it is opened: a door that nobody asked for costs nothing, not even its library."""
    doors: list[Door] = []
    if plan.http is not None or plan.metrics is not None:
        from edge_runtime.doors.v2.http import HttpDoor
        from edge_runtime.doors.v2.http_metrics import beside_models, metrics_alone

        if plan.http is not None:
            doors.append(HttpDoor(service, plan.http, plan.access, routes=beside_models(metrics)))
        if plan.metrics is not None:
            routes = metrics_alone(metrics)
            doors.append(HttpDoor(service, plan.metrics, plan.access, routes=routes, kind="metrics"))
    if plan.grpc is not None:
        from edge_runtime.doors.v2.grpc import GrpcDoor
        from edge_runtime.doors.v2.grpc_service import GrpcService

        doors.append(GrpcDoor(GrpcService(service), plan.grpc, plan.access))
    if plan.uds is not None:
        from edge_runtime.doors.local.door import LocalDoor

        doors.append(LocalDoor(service.host, plan.uds, users=plan.uds_users))
    return tuple(doors)
