"""`edge-runtime serve`: models behind doors, until somebody ends it."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli.options import Backends, Threads, Tuned
from edge_runtime.cli.output import Json, print_json, say
from edge_runtime.contract.errors import ContractError
from edge_runtime.interrupt import Ending, end_at_once, wait_for

if TYPE_CHECKING:
    from edge_runtime.doors.access import Access
    from edge_runtime.doors.serve import Serving
    from edge_runtime.serving.served import Served

app = typer.Typer()


class Nan(Enum):
    """What may be done about inputs that are no numbers."""

    OFF = "off"
    SAMPLE = "sample"
    REJECT = "reject"


_DEFAULT_HTTP = "127.0.0.1:8000"


@app.command()
def serve(
    releases: Annotated[
        list[Path] | None, typer.Argument(help="Folders that edge-convert wrote, or a device's state_dir.")
    ] = None,
    *,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help=f"Open Inference Protocol v2 over HTTP; {_DEFAULT_HTTP} where no door is named."
        ),
    ] = None,
    grpc: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The same protocol over gRPC (extra: serve).")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Prometheus metrics alone; the HTTP door has them at /metrics as well."),
    ] = None,
    uds: Annotated[
        Path | None, typer.Option(help="Socket file for programs of this user on this machine: the fastest door.")
    ] = None,
    uds_user: Annotated[
        list[str] | None, typer.Option(help="Another user who may use the socket; repeat for several.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Folder of releases that clients may load and unload.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM) of the network doors.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token that network clients must send.")
    ] = None,
    shared_memory: Annotated[
        str | None,
        typer.Option(
            metavar="on|off|PREFIX*",
            help="Objects below /dev/shm that v2 clients may register; default: on, off beyond the loopback.",
        ),
    ] = None,
    memory_mb: Annotated[int | None, typer.Option(min=1, help="All loaded models together may need so much.")] = None,
    threads: Threads = None,
    backend: Backends = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Each model in a process of its own, for engines that may hang or crash.")
    ] = False,
    batch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODEL=]SIZE[:DELAY]|off",
            help="Gather calls of clients, up to so many samples, waiting so long (8:500us); default: as tuned here.",
        ),
    ] = None,
    nan: Annotated[
        Nan,
        typer.Option(help="What to do about NaN and infinities in inputs; sample: count them in one request of 64."),
    ] = Nan.REJECT,
    tuned: Tuned = None,
    drain: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="For requests in flight when the server is ended.")
    ] = 10.0,
    as_json: Json = False,
) -> None:
    """Serve models to other programs until interrupted.

    Only doors that are named open; without --http, --grpc and --uds it is HTTP on 127.0.0.1:8000.

    Beyond this machine a network door demands TLS and a token. Port 0 takes any that is free.
    """
    from edge_runtime.doors.door import parse_listen
    from edge_runtime.doors.memory import keep_freed_memory
    from edge_runtime.doors.serve import ServePlan, serving
    from edge_runtime.serving.batching import parse_policies

    if http is None and grpc is None and uds is None:
        http = _DEFAULT_HTTP
    plan = ServePlan(
        releases=tuple(releases or ()),
        http=parse_listen(http) if http is not None else None,
        grpc=parse_listen(grpc) if grpc is not None else None,
        metrics=parse_listen(metrics) if metrics is not None else None,
        uds=uds,
        uds_users=tuple(map(_user_id, uds_user or [])),
        shared_memory=shared_memory,
        repository=repository,
        access=_access(tls_cert, tls_key, token_file),
        memory_bytes=memory_mb * 1024 * 1024 if memory_mb is not None else None,
        threads=threads,
        isolation="process" if isolate else "thread",
        backends=tuple(backend or ()),
        batching=parse_policies(batch or ()),
        nan=nan.value,
        tuned=tuned,
        drain_s=drain,
    )
    keep_freed_memory()
    ended = Ending()
    with serving(plan, _say) as running:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Who starts it with nohup, or in the background of a script, wants it to stay.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: _end(ended))
        _announce(running, as_json=as_json)
        wait_for(ended)
    hung = " and ".join(running.hung)
    _say(f"ended, giving up {hung} that did not come back" if hung else "drained and ended")
    # Whatever still runs is given up: a thread that hangs in an engine would keep the process for ever.
    end_at_once(0)


def _tuned(model: Served) -> dict[str, object] | None:
    """What of `edge-runtime tune` is in use."""
    return None if model.tuned is None else asdict(model.tuned)


def _say(line: str) -> None:
    with suppress(OSError):  # a reader that is gone, a disk that is full: no reason to stop serving
        say(f"edge-runtime: {line}")


def _end(ended: Ending) -> None:
    """Once drains; again ends at once."""
    if ended.is_set():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    ended.set()


def _user_id(name: str) -> int:
    import pwd

    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ContractError(f"let user {name} in", "this machine has no such user", "name another") from None


def _access(tls_cert: Path | None, tls_key: Path | None, token_file: Path | None) -> Access:
    from edge_runtime.doors.access import Access, TlsFiles, is_readable_by_others, read_token

    if (tls_cert is None) != (tls_key is None):
        raise ContractError("use TLS", "a certificate needs its key", "give both --tls-cert and --tls-key")
    tls = TlsFiles(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    if token_file is not None and is_readable_by_others(token_file):
        _say(f"others can read token file {token_file}: chmod 600 it")
    return Access(tls, read_token(token_file) if token_file is not None else None)


def _announce(running: Serving, *, as_json: bool) -> None:
    """What is served where, for a person or for the program that started us."""
    if as_json:
        print_json(
            {
                "doors": [{"kind": door.kind, "address": door.address} for door in running.doors],
                "models": [
                    {"name": one.name, "version": one.version, "variant": one.variant, "tuned": _tuned(one)}
                    for one in running.host.models()
                ],
            }
        )
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for head in ("model", "version", "variant", "door", "address"):
        table.add_column(head, overflow="fold")  # an address that is cut cannot be copied
    doors = [(door.kind, door.address) for door in running.doors]
    rows = [(one.name, one.version, one.variant or "") for one in running.host.models()] or [("(none yet)", "", "")]
    for row in rows:
        for place, (kind, address) in enumerate(doors):
            table.add_row(*map(Text, (*(row if place == 0 else ("", "", "")), kind, address)))
    console = Console()
    console.print(table)
    console.print("Ctrl-C drains and ends.", highlight=False)
