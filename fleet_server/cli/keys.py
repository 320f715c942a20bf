"""`edge-fleet keys …`: API keys of people, and the keys whose releases devices believe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet_server.cli.output import say, show_json, show_table
from fleet_server.cli.remote import JsonOption, KeyOption, Remote, ServerOption
from fleet_server.errors import StartError

if TYPE_CHECKING:
    from fleet_server.releases.signing import TufRepository

app = typer.Typer(help="API keys, and the keys whose releases devices believe.")

DataOption = Annotated[Path, typer.Option(help="The server's data folder.")]
OfflineOption = Annotated[Path | None, typer.Option(help="Folder of the offline keys; default: DATA/offline.")]


@app.command()
def create(
    name: str,
    role: Annotated[str, typer.Option(help="viewer, operator, releaser or admin.")] = "viewer",
    data: Annotated[Path | None, typer.Option(help="Make it directly in this data folder, without a server.")] = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key; it is shown only now."""
    if data is not None:
        secret = _create_locally(data, name, role)
    else:
        with Remote(server, api_key) as remote:
            secret = str(remote.post("/api/v1/keys", {"name": name, "role": role})["secret"])
    if as_json:
        show_json({"name": name, "role": role, "secret": secret})
    else:
        say(secret)


@app.command("list")
def list_keys(server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """List API keys, without their secrets."""
    with Remote(server, api_key) as remote:
        found = remote.get_list("/api/v1/keys")
    if as_json:
        show_json(found)
        return
    rows = [[one["prefix"], one["name"], one["role"], "revoked" if one["revoked_at"] else "valid"] for one in found]
    show_table(("prefix", "name", "role", "state"), rows)


@app.command()
def revoke(prefix: str, server: ServerOption = None, api_key: KeyOption = None) -> None:
    """Refuse an API key from now on."""
    with Remote(server, api_key) as remote:
        remote.delete(f"/api/v1/keys/{prefix}")
    say(f"{prefix} is revoked")


@app.command()
def authorise(
    model: str,
    public_key: Annotated[Path, typer.Argument(help="The team's .pub file (edge-convert keygen).")],
    data: DataOption = Path("fleet-data"),
    offline_dir: OfflineOption = None,
) -> None:
    """Let a key sign releases of a model; needs the offline targets key, and a running server sees it at once."""
    from edge_runtime.contract.ids import parse_model_name
    from edge_runtime.trust.keys import PublicKey

    repository = _repository(data)
    key = PublicKey.load(public_key)
    repository.authorise(parse_model_name(model), key, offline_dir or repository.offline, time.time())
    say(f"{key.key_id} may sign releases of {model}")


def _repository(data: Path) -> TufRepository:
    from fleet_server.releases.signing import TufRepository

    repository = TufRepository(data)
    if not repository.is_bootstrapped:
        raise StartError(
            f"use the data folder {data}", "it holds no trust metadata", "start edge-fleet serve there once"
        )
    return repository


def _create_locally(data: Path, name: str, role: str) -> str:
    from fleet_server.db import Database
    from fleet_server.errors import InvalidRequest
    from fleet_server.identity import api_keys
    from fleet_server.identity.model import Role

    if not (data / "fleet.db").exists():
        raise StartError(f"use the data folder {data}", "it holds no database", "start edge-fleet serve there once")
    if role not in [known.value for known in Role]:
        raise InvalidRequest("create an API key", f"there is no role {role}", "use viewer, operator, releaser or admin")
    database = Database(f"sqlite:///{data / 'fleet.db'}")
    try:
        with database.session() as session:
            _, secret = api_keys.create(session, name, Role(role), by="command line", now=time.time())
    finally:
        database.close()
    return secret
