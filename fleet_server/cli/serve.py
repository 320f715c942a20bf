"""`edge-fleet serve`: the whole server from nothing, and `edge-fleet backup`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet_server.cli.output import say
from fleet_server.errors import StartError

if TYPE_CHECKING:
    from fleet_server.db import Database
    from fleet_server.settings import ServerSettings

app = typer.Typer()

_TRYING_OUT = """\
*** FOR TRYING OUT ***
This first start made everything a fleet trusts, and all of it lies in {data}:
  ca/       the authority that certifies devices       keys/   the keys that sign assignments and snapshots
  offline/  the two keys above all others; the server never reads it. Move it to offline media, and name it with
            --offline-dir to edge-fleet keys authorise and revoke, the only commands that need it
"""

_DEFENCES = {
    "gate": "the rollouts' gate",
    "acl": "the broker's access control",
    "signatures": "the check of model signatures",
}


@app.command()
def serve(
    data: Annotated[Path, typer.Option(help="Folder for database, keys and blobs; made when new.")] = Path(
        "fleet-data"
    ),
    host: Annotated[str | None, typer.Option(help="Address of the people's listener.")] = None,
    devices_host: Annotated[str | None, typer.Option(help="Address of the devices' listener and broker.")] = None,
    public_host: Annotated[str | None, typer.Option(help="Name or address under which devices reach it.")] = None,
    people_port: Annotated[int | None, typer.Option(help="Port for people (HTTP).")] = None,
    devices_port: Annotated[int | None, typer.Option(help="Port for devices (TLS).")] = None,
    mqtt_port: Annotated[int | None, typer.Option(help="Port of the broker (TLS).")] = None,
    broker: Annotated[str | None, typer.Option(help="auto, embedded or mosquitto.")] = None,
    certificate_days: Annotated[float | None, typer.Option(help="Life of device certificates.")] = None,
    tick_s: Annotated[float | None, typer.Option(help="Pause between two looks at rollouts.")] = None,
    admin_key_file: Annotated[Path | None, typer.Option(help="Write the admin key here (mode 0600).")] = None,
    unsafe_open_broker: Annotated[bool, typer.Option(hidden=True)] = False,
    unsafe_disable: Annotated[
        list[str] | None, typer.Option(help="gate, acl or signatures: for controls only.", hidden=True)
    ] = None,
) -> None:
    """Run the fleet server until Ctrl-C or SIGTERM."""
    named = {
        "host": host,
        "devices_host": devices_host,
        "public_host": public_host,
        "people_port": people_port,
        "devices_port": devices_port,
        "mqtt_port": mqtt_port,
        "broker": broker,
        "certificate_days": certificate_days,
        "tick_s": tick_s,
        "unsafe_open_broker": unsafe_open_broker or None,
        "unsafe_disable": tuple(unsafe_disable or ()) or None,
    }
    _run(
        {"data_dir": data.absolute(), **{key: value for key, value in named.items() if value is not None}},
        admin_key_file,
    )


@app.command()
def backup(
    out: Annotated[Path, typer.Argument(help="New folder; serve --data OUT starts from it.")],
    data: Annotated[Path, typer.Option(help="The server's data folder.")] = Path("fleet-data"),
    blobs: Annotated[bool, typer.Option(help="Take the releases' blobs along.")] = True,
) -> None:
    """Copy database, CA, online keys, metadata and blobs while the server runs; offline keys stay where they are."""
    from fleet_server.cli.backup import copy_data

    copy_data(data, out, with_blobs=blobs)
    say(f"wrote {out}; try it with: edge-fleet serve --data {out}")


def _run(named: dict[str, object], admin_key_file: Path | None) -> None:
    from pydantic import ValidationError

    from fleet_server.app import open_context
    from fleet_server.cli import listeners
    from fleet_server.settings import ServerSettings

    _configure_logging()
    try:
        settings = ServerSettings.model_validate(ServerSettings(**named).model_dump())  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StartError("start the server", f"{where}: {first['msg']}", "see edge-fleet serve --help") from error
    for defence in settings.unsafe_disable:
        say(f"*** UNSAFE: {_DEFENCES[defence]} is switched off; nothing else than a control may run like this ***")
    is_new = not (settings.data_dir / "fleet.db").exists()
    # Before anything is made: a start that fails leaves nothing, and the next one is still the first.
    sockets = listeners.open_sockets(settings)
    context = open_context(settings, time.time())
    try:
        context.start()
        admin_key = _first_admin_key(context.database, admin_key_file)
        if is_new:
            say(_TRYING_OUT.format(data=settings.data_dir))
        if admin_key is not None:
            say(f"admin API key, shown only now:  {admin_key}\n")
        listeners.serve(context, sockets, lambda: say(_ready(settings)))
    finally:
        context.stop()
    say("stopped")


def _first_admin_key(database: Database, path: Path | None) -> str | None:
    """Make an admin key when there is none yet, or when the file that should hold one is missing."""
    from fleet_server.identity import api_keys, audit
    from fleet_server.identity.model import Role

    with database.session() as session:
        wanted = not api_keys.list_all(session) if path is None else not path.exists()
        if not wanted:
            return None
        name = "admin" if path is None else f"admin ({path.name})"
        _, text = api_keys.create(session, name, Role.ADMIN, by=audit.SYSTEM, now=time.time())
        if path is not None:
            # Before the commit: a key that works but was never written down could not be had again.
            _write_private(path, text)
    return None if path is not None else text


def _write_private(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
            target.write(text + "\n")
        staged.replace(path)
    except OSError as error:
        raise StartError(f"write the admin key to {path}", error.strerror or str(error), "name another file") from error


def _ready(settings: ServerSettings) -> str:
    return (
        f"console  http://{settings.host}:{settings.people_port}/console  (log in with an API key)\n"
        f"people   http://{settings.host}:{settings.people_port}\n"
        f"devices  https://{settings.public_host}:{settings.devices_port}\n"
        f"broker   mqtts://{settings.public_host}:{settings.mqtt_port} ({settings.broker})\n"
        "ready; Ctrl-C stops everything"
    )


def _configure_logging() -> None:
    import logging

    import structlog

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
    )
