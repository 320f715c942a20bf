"""Composition root of the device: makes every part of the agent from its settings, and nothing else does."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import secrets
import signal
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from edge_runtime.agent.agent import Agent, Telemetry
from edge_runtime.agent.build import BUILD_S, agent_version
from edge_runtime.agent.clock import AgentClock
from edge_runtime.agent.director import Director, Trust
from edge_runtime.agent.enrolment import join, read_enrolment, renew
from edge_runtime.agent.fingerprint import gather
from edge_runtime.agent.identity import Identity, IdentityFolder
from edge_runtime.agent.live import LiveModel
from edge_runtime.agent.mqtt import MqttIdentity, MqttTransport
from edge_runtime.agent.outbox import Outbox
from edge_runtime.agent.polling import PollingTransport
from edge_runtime.agent.server import FleetServer, HttpsDesk
from edge_runtime.agent.slots import SlotsPorts, SlotsWorker
from edge_runtime.agent.source import FolderSource, LabelledImage, read_folder
from edge_runtime.agent.transport import Transport
from edge_runtime.agent.windows import WindowRecorder
from edge_runtime.agent.workload import EngineLimits, ProcessBench
from edge_runtime.contract import reasons, topics
from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Birth, Enrolment, Reported, Status
from edge_runtime.contract.errors import ContractError, EdgeError, TransportError, UpdateError
from edge_runtime.contract.ids import SlotId
from edge_runtime.installed import DATABASE, POINTERS, STORE, is_state_folder
from edge_runtime.interrupt import Ending
from edge_runtime.parent import limit_memory
from edge_runtime.settings import DeviceSettings
from edge_runtime.trust.trusted_time import TimeFloor
from edge_runtime.update.database import StateDatabase
from edge_runtime.update.executor import SlotMachine
from edge_runtime.update.fetcher import HttpBlobFetcher, Throttle
from edge_runtime.update.home import Home
from edge_runtime.update.installation import Board, Ports
from edge_runtime.update.journal import Journal
from edge_runtime.update.pointers import SlotPointers
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore

_FLOOR_KEY: Final = "time.floor"
_ENROL_PAUSE_MAX_S: Final = 60.0
_RENEWAL_PAUSE_S: Final = 60.0

log = structlog.get_logger("agent")


@dataclass(frozen=True, slots=True)
class _Base:
    """What exists before the device has an identity."""

    settings: DeviceSettings
    database: StateDatabase
    clock: AgentClock
    facts: DeviceFacts
    stopping: threading.Event


def run_agent(settings: DeviceSettings, source: Path | None) -> None:
    """Run this device until SIGTERM or SIGINT.

    Raises:
        EdgeError: it cannot start, or cannot go on; says why and what to do.
    """
    configure_logging(settings.log_level)
    images = None if source is None else read_folder(source)
    limit_memory(settings.memory_bytes)
    stopping = Ending()
    with _ended_by_any_thread(stopping):
        _run(settings, images, stopping)


def _run(settings: DeviceSettings, images: tuple[LabelledImage, ...] | None, stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    for switch in settings.unsafe_disable:
        log.warning("defence.disabled", switch=switch, advice="remove unsafe_disable from the configuration")
    with _locked(settings.state_dir), ExitStack() as closing:
        database = StateDatabase(settings.state_dir / DATABASE)
        closing.callback(database.close)
        clock = _clock(settings, database)
        base = _Base(settings, database, clock, gather(settings), stopping)
        identity = _identify(base)
        if identity is None:
            return
        database.put("device", identity.device)
        tls = identity.tls_context()
        server = FleetServer(identity.enrolment.server_url, tls, clock.certain)
        closing.callback(server.close)
        recorders = {slot: WindowRecorder(slot) for slot in settings.slots}
        lives = {slot: _live(base, slot, recorders[slot]) for slot in settings.slots}
        if images is not None:
            first = settings.slots[0]
            feed = FolderSource(
                images, lives[first], recorders[first], now=clock.now, interval_s=settings.source_interval_s
            )
            closing.callback(feed.stop)
            feed.start()
        _work(base, identity, tls, server, (lives, recorders))


@contextmanager
def _ended_by_any_thread(stopping: threading.Event) -> Iterator[None]:
    """A device that lost a thread answers half, unseen: it ends instead, and its supervisor starts it whole.

    Raises:
        UpdateError: a thread ended by an error nobody foresaw.
    """
    dead: list[str] = []

    def end(what: threading.ExceptHookArgs) -> None:
        name = what.thread.name if what.thread is not None else "unknown"
        trace = (what.exc_type, what.exc_value or what.exc_type(), what.exc_traceback)
        log.critical("thread.died", thread=name, exc_info=trace)
        dead.append(name)
        stopping.set()

    former, threading.excepthook = threading.excepthook, end
    try:
        yield
    finally:
        threading.excepthook = former
    if dead:
        raise UpdateError(
            "go on",
            f"the thread {dead[0]!r} ended by an error that is in the log",
            "start the agent again, as its service does by itself, and report the error",
            code=reasons.INTERNAL,
        )


def _work(
    base: _Base,
    identity: Identity,
    tls: ssl.SSLContext,
    server: FleetServer,
    slots: tuple[dict[SlotId, LiveModel], dict[SlotId, WindowRecorder]],
) -> None:
    settings, clock = base.settings, base.clock
    lives, recorders = slots
    home = _home(settings, base.database)
    home.tidy()
    trust = Trust(base.database, identity.enrolment.tuf_root)
    director = Director(
        settings.device,
        server,
        trust,
        home.store,
        clock=clock,
        check_signatures="signatures" not in settings.unsafe_disable,
    )
    bench = ProcessBench(
        str(_store_folder(settings)),
        _limits(settings),
        base.facts,
        settings.trial_timeout_s,
        check_golden="golden" not in settings.unsafe_disable,
    )
    fetcher = HttpBlobFetcher(server.client, Throttle(settings.link_bytes_per_s))
    board = Board(settings.device, base.facts)
    machines = {
        slot: SlotMachine(slot, home, Ports(director, fetcher, bench, live), board) for slot, live in lives.items()
    }
    session = secrets.token_hex(8)
    outbox = Outbox(base.database, session, settings.outbox_bytes)
    agent = Agent(
        _birth(settings, base.facts, session),
        clock,
        _transport(base, identity, tls, server, session),
        machines,
        telemetry=Telemetry(outbox, recorders, settings.telemetry_window_s),
        repeat_s=settings.poll_interval_s,
        renew=_Renewal(base, identity, tls, server),
    )
    ports = SlotsPorts(machines, home.journal, director, clock, agent.on_report)
    worker = SlotsWorker(ports, settings.poll_interval_s)
    threading.Thread(target=_end_trial, args=(base.stopping, bench), name="trial-end", daemon=True).start()
    agent.run(worker, base.stopping)
    for live in lives.values():
        live.deactivate()


def configure_logging(level: str) -> None:
    """Structured lines on standard error; the level can be changed while running."""
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format="%(message)s")
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def read_reports(state_dir: Path) -> list[Reported]:
    """Where each slot of a device stands, read from its state folder. Raises: ContractError, UpdateError."""
    from edge_runtime.update.report import make_report

    if not is_state_folder(state_dir):
        raise ContractError(f"read {state_dir}", "it is no agent's state folder", "name the state_dir of a device")
    database = StateDatabase(state_dir / DATABASE)
    try:
        journal, pointers = Journal(database), SlotPointers(state_dir / POINTERS)
        from edge_runtime.contract.ids import DeviceId

        device = DeviceId(database.get("device") or "unknown")
        return [make_report(device, journal.read(slot), pointers.read(slot).current) for slot in journal.slots()]
    finally:
        database.close()


class _Renewal:
    """Renews the certificate at two thirds of its life, and gives it to the connections to come."""

    def __init__(self, base: _Base, identity: Identity, tls: ssl.SSLContext, server: FleetServer) -> None:
        self._base = base
        self._identity = identity
        self._tls = tls
        self._server = server
        self._not_before = 0.0

    def __call__(self) -> None:
        clock = self._base.clock
        # By certain time: a clock that runs ahead would have every certificate renewed at once, for ever. A device
        # that slept past its certificate's end does not know the time, but meets a server that refuses it.
        is_due = self._identity.needs_renewal(clock.certain()) or self._server.is_refused
        if clock.monotonic() < self._not_before or not is_due:
            return
        self._not_before = clock.monotonic() + _RENEWAL_PAUSE_S
        folder = IdentityFolder(self._identity.folder)
        try:
            self._identity = renew(folder, HttpsDesk(clock.certain), self._identity)
        except EdgeError as error:
            log.warning("certificate.renewal_failed", reason=str(error))
            return
        self._tls.load_cert_chain(folder.folder / "device.crt", folder.folder / "device.key")
        self._server.reconnect()
        log.info("certificate.renewed", device=self._identity.device)


def _identify(base: _Base) -> Identity | None:
    """The identity of an earlier start, or a new one; None when told to stop meanwhile."""
    settings = base.settings
    folder = IdentityFolder(settings.state_dir / "identity")
    if (known := folder.load(settings.device)) is not None:
        return known
    if settings.enrolment is None:
        raise ContractError(
            f"start device {settings.device}",
            "it has not joined a fleet and the configuration names no enrolment file",
            "make one with edge-fleet devices claim, and name it as enrolment",
        )
    enrolment = read_enrolment(settings.enrolment)
    pause_s = 1.0
    while not base.stopping.is_set():
        if (identity := _try_join(base, folder, enrolment)) is not None:
            log.info("device.enrolled", device=settings.device)
            return identity
        base.stopping.wait(pause_s * random.uniform(0.5, 1))
        pause_s = min(pause_s * 2, _ENROL_PAUSE_MAX_S)
    return None


def _try_join(base: _Base, folder: IdentityFolder, enrolment: Enrolment) -> Identity | None:
    desk, settings = HttpsDesk(base.clock.certain), base.settings
    try:
        return join(folder, desk, enrolment, device=settings.device, labels=settings.labels, facts=base.facts)
    except TransportError as error:
        log.warning("enrolment.delayed", reason=str(error))
        return None


def _clock(settings: DeviceSettings, database: StateDatabase) -> AgentClock:
    floor_s = float(database.get(_FLOOR_KEY) or 0.0)
    return AgentClock(
        settings.clock_offset_s, TimeFloor(BUILD_S, floor_s), lambda raised_s: database.put(_FLOOR_KEY, repr(raised_s))
    )


def _limits(settings: DeviceSettings) -> EngineLimits:
    return EngineLimits(tuple(settings.backends) or None, settings.threads, settings.memory_bytes)


def _store_folder(settings: DeviceSettings) -> Path:
    return settings.state_dir / STORE


def _home(settings: DeviceSettings, database: StateDatabase) -> Home:
    store = ContentStore(_store_folder(settings))
    return Home(Journal(database), store, SlotPointers(settings.state_dir / POINTERS))


def _live(base: _Base, slot: SlotId, recorder: WindowRecorder) -> LiveModel:
    def count_fault(build: Activation, code: str) -> None:
        recorder.fail(build.release, build.variant, code, base.clock.now())

    return LiveModel(
        slot,
        ContentStore(_store_folder(base.settings)),
        _limits(base.settings),
        base.facts,
        check_golden="golden" not in base.settings.unsafe_disable,
        on_fault=count_fault,
    )


def _birth(settings: DeviceSettings, facts: DeviceFacts, session: str) -> Birth:
    return Birth(
        device=settings.device,
        session=session,
        agent=agent_version(),
        facts=facts,
        slots={},
        capabilities=[f"unsafe:{switch}" for switch in settings.unsafe_disable],
        labels=settings.labels,
    )


def _transport(
    base: _Base, identity: Identity, tls: ssl.SSLContext, server: FleetServer, session: str
) -> Transport:
    device, endpoint = identity.device, identity.grant.mqtt
    if endpoint is None or base.settings.polling:
        return PollingTransport(device, server)
    will = Status(device=device, state="lost", session=session)
    who = MqttIdentity(device, endpoint, tls, topics.up(device, topics.STATUS), encode(will))
    return MqttTransport(who, base.clock.certain)


def _end_trial(stopping: threading.Event, bench: ProcessBench) -> None:
    """A trial may take minutes: a stop does not wait for it."""
    stopping.wait()
    bench.stop()


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """One agent per state folder: two would each undo the other's steps."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UpdateError(
            f"use state_dir {state_dir}", error.strerror or str(error), "name a folder this user may write"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise UpdateError(
            f"use state_dir {state_dir}", "another agent is running on it", "stop that one, or use another folder"
        ) from error
    try:
        yield
    finally:
        os.close(lock)


