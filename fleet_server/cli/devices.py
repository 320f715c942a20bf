"""`edge-fleet devices …`: let devices in, look at them, send them away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import typer

from fleet_server.cli.output import say, show_json, show_table
from fleet_server.cli.remote import Json, JsonOption, KeyOption, Remote, ServerOption
from fleet_server.errors import InvalidRequest, NotFound

app = typer.Typer(help="Let devices in, look at them, send them away.")


@app.command("list")
def list_devices(
    selector: Annotated[str, typer.Option("--selector", "-l", help="site=bonn,ring in (canary,early)")] = "",
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List devices and what their slots run."""
    with Remote(server, api_key) as remote:
        found = remote.items("/api/v1/devices", {"selector": selector, "limit": 1000})
    if as_json:
        show_json(found)
        return
    rows = [[one["id"], one["standing"], one["connection"], _labels(one), _slots(one)] for one in found]
    show_table(("device", "standing", "connection", "labels", "slots"), rows)


@app.command()
def show(device: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Show one device and its recent history."""
    with Remote(server, api_key) as remote:
        found = remote.get(f"/api/v1/devices/{device}")
        history = remote.get(f"/api/v1/devices/{device}/timeline", {"limit": 20})
    if as_json:
        show_json({**found, "timeline": history["items"]})
        return
    say(f"{found['id']}  {found['standing']}  {found['connection']}  {_labels(found)}")
    for slot in cast("list[Json]", found["slots"]):
        say(f"  {_slot(slot)}")
    entries = cast("list[Json]", history["items"])
    show_table(("event", "slot", "detail"), [[entry["name"], entry["slot"], entry["detail"]] for entry in entries])


@app.command()
def claim(
    device: Annotated[str | None, typer.Option(help="Bind the claim to this device id.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; repeat for more.")] = None,
    ttl_s: Annotated[float, typer.Option(help="Seconds until it expires.")] = 86_400.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it here (mode 0600).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file.")] = False,
    server: ServerOption = None,
    api_key: KeyOption = None,
) -> None:
    """Make an enrolment document with a one-time claim: all that a new device needs."""
    if output is not None and output.exists() and not force:
        raise InvalidRequest(f"write {output}", "it exists, and may hold a claim that is still good", "add --force")
    body = {"device": device, "labels": _parse_labels(label or []), "ttl_s": ttl_s}
    with Remote(server, api_key) as remote:
        is_known = device is not None and _is_known(remote, device)
        enrolment = remote.post("/api/v1/claims", body)
    if output is None:
        show_json(enrolment)
        return
    _write_private(output, enrolment)
    say(f"wrote {output}; it works once, give it to one device")
    if device is not None and is_known:
        say(f"note: {device} has joined already; whoever uses this claim takes its place")


@app.command()
def revoke(
    device: str,
    decommission: Annotated[bool, typer.Option(help="It has left for good.")] = False,
    server: ServerOption = None,
    api_key: KeyOption = None,
) -> None:
    """Refuse a device from now on, its live sessions included."""
    with Remote(server, api_key) as remote:
        remote.post(f"/api/v1/devices/{device}/{'decommission' if decommission else 'revoke'}")
    say(f"{device} is {'decommissioned' if decommission else 'revoked'}")


@app.command()
def label(device: str, labels: list[str], server: ServerOption = None, api_key: KeyOption = None) -> None:
    """Replace a device's labels (key=value …)."""
    with Remote(server, api_key) as remote:
        remote.put(f"/api/v1/devices/{device}/labels", {"labels": _parse_labels(labels)})
    say(f"{device}: {', '.join(labels)}")


def _parse_labels(pairs: list[str]) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidRequest(f"use label {pair!r}", "it has no =", "write key=value")
        parsed[key] = value
    return parsed


def _is_known(remote: Remote, device: str) -> bool:
    try:
        remote.get(f"/api/v1/devices/{device}")
    except NotFound:
        return False
    return True


def _write_private(path: Path, document: Json) -> None:
    import json

    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
            json.dump(document, target)
    except OSError as error:
        raise InvalidRequest(f"write {path}", error.strerror or str(error), "name another file") from error


def _labels(device: Json) -> str:
    labels = cast("dict[str, str]", device["labels"])
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _slots(device: Json) -> str:
    return "; ".join(_slot(slot) for slot in cast("list[Json]", device["slots"]))


def _slot(slot: Json) -> str:
    reported = cast("Json | None", slot["reported"])
    desired = cast("Json | None", slot["desired"])
    wanted = f" wants {desired['target']}#{desired['seq']}" if desired else ""
    if reported is None:
        return f"{slot['slot']}: never reported{wanted}"
    running = cast("Json | None", reported["running"])
    runs = f" runs {running.get('target') or running['release']} ({running['variant']})" if running else " runs nothing"
    reason = cast("Json | None", reported["reason"])
    return f"{slot['slot']}: {reported['state']}{runs}{wanted}" + (f" [{reason['code']}]" if reason else "")
