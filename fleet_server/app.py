"""The composition root: opens a data folder, wires every service, and makes the two web applications."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from fastapi import FastAPI, Response

from edge_runtime.contract.device_state import MqttEndpoint
from edge_runtime.contract.errors import EdgeError
from fleet_server import problems
from fleet_server.db import Database
from fleet_server.errors import StartError
from fleet_server.identity import api as identity_api
from fleet_server.identity.access import Viewer
from fleet_server.identity.ca import CertificateAuthority, KeyPair
from fleet_server.identity.certificates import DeviceCertificates, Revocations
from fleet_server.identity.peer_certificate import RequireCertificate
from fleet_server.inventory import api as inventory_api
from fleet_server.inventory.director import Director
from fleet_server.inventory.enrolment import Endpoints, Reception
from fleet_server.inventory.service import Inventory
from fleet_server.messaging.broker import Address, Broker, BrokerSettings, choose_broker, open_broker
from fleet_server.messaging.ingest import IngestClient, IngestSettings
from fleet_server.metrics import FleetMetrics
from fleet_server.openapi import describe_documents
from fleet_server.releases import api as releases_api
from fleet_server.releases.blobs import BlobStore
from fleet_server.releases.service import Releases
from fleet_server.releases.signing import TufRepository
from fleet_server.rollouts import api as rollouts_api
from fleet_server.rollouts.executor import Executor
from fleet_server.rollouts.service import Rollouts
from fleet_server.settings import SERVER_CLIENT_ID, ServerSettings
from fleet_server.telemetry import api as telemetry_api
from fleet_server.telemetry.ingest import Ingest
from fleet_server.telemetry.service import Telemetry

API_VERSION: Final = "1.0"
OPEN_PATHS: Final = frozenset({"/healthz", "/api/v1/openapi.json"})
"""Paths of the people's listener that answer without a key."""

_RING_AGAIN_S: Final = 30.0
_HOUSEKEEPING_S: Final = 600.0

log = structlog.get_logger("server")

Ticker = Callable[[float], None]


@dataclass(slots=True)
class Context:
    """Everything one running server consists of. Made by `open_context`, begun by `start`, ended by `stop`."""

    settings: ServerSettings
    database: Database
    authority: CertificateAuthority
    server_pair: KeyPair
    inventory: Inventory
    reception: Reception
    certificates: DeviceCertificates
    revocations: Revocations
    director: Director
    repository: TufRepository
    releases: Releases
    rollouts: Rollouts
    telemetry: Telemetry
    ingest: Ingest
    client: IngestClient
    broker: Broker
    metrics: FleetMetrics
    lock: int
    """Descriptor of the data folder's lock."""
    tickers: list[Ticker] = field(default_factory=list)
    """Called with the time, one after the other, every `tick_s`; rollouts are decided here."""
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start broker, ingest and clock. Raises: BrokerError; then nothing is left running."""
        self.revocations.apply(time.time())
        self.broker.start()
        self.client.start(self.ingest.apply, self.ingest.ring_unsettled)
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop everything in the order that loses nothing; safe to call twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10.0)
        self.client.stop()
        self.broker.stop()
        self.database.close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def tick(self, now: float) -> None:
        """Give every ticker its turn; one that fails does not stop the others."""
        for ticker in self.tickers:
            try:
                ticker(now)
            except EdgeError as error:
                log.warning("tick.failed", reason=str(error))
            except Exception:
                log.exception("tick.failed")

    def _run(self) -> None:
        while not self._stopping.wait(self.settings.tick_s):
            self.tick(time.time())


def open_context(settings: ServerSettings, now: float) -> Context:
    """Open or create everything in the data folder; starts nothing.

    Raises:
        StartError: the folder cannot be used, or another server uses it. TrustError: its keys do not fit together.
    """
    lock = _lock(settings.data_dir)
    try:
        return _wire(settings, now, lock)
    except BaseException:
        os.close(lock)
        raise


def _wire(settings: ServerSettings, now: float, lock: int) -> Context:
    data = settings.data_dir
    database = Database(settings.url)
    database.upgrade()
    authority = CertificateAuthority.open(data / "ca", now)
    repository = TufRepository(data)
    repository.bootstrap(now)
    repository.begin_anew(now)
    pair = authority.server_pair("server", _hosts(settings), now)
    broker = open_broker(settings.broker, _broker_settings(settings, authority, pair))
    own = authority.client_pair(SERVER_CLIENT_ID, now)
    client = IngestClient(
        IngestSettings(
            _reachable(broker.address), authority.certificate_path, own.certificate, own.key, SERVER_CLIENT_ID
        )
    )
    inventory, telemetry = Inventory(client), Telemetry()
    certificates = DeviceCertificates(database, authority, settings.certificate_days)
    revocations = Revocations(database, authority, broker)
    reception = Reception(
        database,
        inventory,
        certificates,
        revocations=revocations,
        authority=authority,
        endpoints=_endpoints(settings),
        tuf_root=repository.root,
    )
    blobs = BlobStore(data / "releases")
    blobs.discard_stage()
    ingest = Ingest(database, inventory, telemetry)
    checked = "signatures" not in settings.unsafe_disable
    releases = Releases(database, blobs, repository, check_signatures=checked)
    rollouts = Rollouts(database, inventory, releases, unsafe_gate_off="gate" in settings.unsafe_disable)
    context = Context(
        settings=settings,
        database=database,
        authority=authority,
        server_pair=pair,
        inventory=inventory,
        reception=reception,
        certificates=certificates,
        revocations=revocations,
        director=Director(lambda: repository.director_key),
        repository=repository,
        releases=releases,
        rollouts=rollouts,
        telemetry=telemetry,
        ingest=ingest,
        client=client,
        broker=broker,
        metrics=FleetMetrics(database, inventory, client),
        lock=lock,
    )
    executor = Executor(database, inventory, releases, rollouts)
    ring_again = _every(_RING_AGAIN_S, lambda _now: ingest.ring_unsettled())
    context.tickers += [executor.tick, ring_again, _housekeeping(context)]
    return context


def create_people_app(context: Context) -> FastAPI:
    """API, OpenAPI, metrics and health for people and programs; every route but health needs an API key."""
    app = FastAPI(
        title="edgefleet",
        version=API_VERSION,
        description="Devices, releases, rollouts and telemetry of one fleet.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    _share(app, context)
    for router in (
        inventory_api.people,
        releases_api.people,
        rollouts_api.router,
        telemetry_api.people,
        identity_api.router,
    ):
        app.include_router(router)

    @app.get("/healthz", tags=["health"])
    def health() -> dict[str, str]:
        """Whether this server answers, and whether its broker does."""
        return {"status": "ok", "broker": "connected" if context.client.is_connected else "away"}

    @app.get("/metrics", tags=["health"], response_class=Response, responses=problems.responses(401))
    def metrics(_who: Viewer) -> Response:
        """Prometheus text format."""
        return Response(context.metrics.render(), media_type="text/plain; version=0.0.4")

    return app


def add_console(app: FastAPI, context: Context) -> None:
    """Add the web console to the people's application; at most once per process."""
    from fleet_server.console.mount import mount
    from fleet_server.console.snapshot import ConsolePorts

    ports = ConsolePorts(
        context.database,
        context.inventory,
        context.rollouts,
        context.telemetry,
        broker=choose_broker(context.settings.broker),
        is_broker_connected=lambda: context.client.is_connected,
        clock=time.time,
    )
    mount(app, ports)


def create_devices_app(context: Context) -> FastAPI:
    """What devices reach over TLS; without a valid device certificate only enrolment answers."""
    app = FastAPI(title="edgefleet devices", version=API_VERSION, openapi_url=None)
    problems.install(app)
    _share(app, context)
    for router in (inventory_api.devices, releases_api.devices, telemetry_api.devices):
        app.include_router(router)
    app.add_middleware(RequireCertificate, certificates=context.certificates)
    describe_documents(app, (*inventory_api.DOCUMENTS, *telemetry_api.DOCUMENTS))
    return app


def _share(app: FastAPI, context: Context) -> None:
    app.state.database = context.database
    app.state.inventory = inventory_api.InventoryPorts(
        context.database, context.inventory, context.reception, context.director
    )
    app.state.releases = releases_api.ReleasePorts(context.database, context.releases, context.repository)
    app.state.rollouts = rollouts_api.RolloutPorts(context.database, context.rollouts)
    app.state.telemetry = telemetry_api.TelemetryPorts(context.database, context.telemetry)


def _lock(data: Path) -> int:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(data / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"use the data folder {data}", error.strerror or str(error), "name a folder you may write: --data DIR"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StartError(
            f"use the data folder {data}", "another server uses it", "stop that one, or name another folder: --data DIR"
        ) from error
    return lock


def _hosts(settings: ServerSettings) -> list[str]:
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 (compared with, not bound to)
    named = {settings.devices_host, settings.public_host} - everywhere
    return sorted({"localhost", "127.0.0.1", *named})


def _reachable(address: Address) -> Address:
    """Where this machine reaches a listener that is bound to all its addresses."""
    return address._replace(host={"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(address.host, address.host))  # noqa: S104


def _endpoints(settings: ServerSettings) -> Endpoints:
    return Endpoints(
        f"https://{settings.public_host}:{settings.devices_port}",
        MqttEndpoint(host=settings.public_host, port=settings.mqtt_port),
    )


def _broker_settings(settings: ServerSettings, authority: CertificateAuthority, pair: KeyPair) -> BrokerSettings:
    return BrokerSettings(
        ca_file=authority.certificate_path,
        cert_file=pair.certificate,
        key_file=pair.key,
        data_dir=settings.data_dir / "broker",
        host=settings.devices_host,
        port=settings.mqtt_port,
        server_client_id=SERVER_CLIENT_ID,
        crl_file=authority.folder / "ca.crl",
        unsafe_open_access=settings.unsafe_open_broker or "acl" in settings.unsafe_disable,
    )


def _every(period_s: float, action: Ticker) -> Ticker:
    due_at = 0.0

    def tick(now: float) -> None:
        nonlocal due_at
        if now >= due_at:
            due_at = now + period_s
            action(now)

    return tick


def _housekeeping(context: Context) -> Ticker:
    def clean(now: float) -> None:
        context.repository.refresh_if_due(now)
        with context.database.session() as session:
            context.telemetry.prune(session, now - context.settings.telemetry_days * 86_400)

    return _every(_HOUSEKEEPING_S, clean)
