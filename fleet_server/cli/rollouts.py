"""`edge-fleet rollouts …`: bring a release to devices, wave by wave, and watch it happen."""

from __future__ import annotations

import math
from typing import Annotated, cast

import typer

from fleet_server.cli.output import say, show_json, show_table
from fleet_server.cli.remote import Json, JsonOption, KeyOption, Remote, ServerOption
from fleet_server.errors import InvalidRequest

app = typer.Typer(help="Bring a release to devices, wave by wave, and watch it happen.")

Release = Annotated[str, typer.Option("--release", help="NAME:VERSION, for example digits:1.0.0.")]
Selector = Annotated[str, typer.Option("--selector", "-l", help="site=lab,ring in (canary,early); none: all.")]
Slot = Annotated[str, typer.Option(help="Slot of the devices.")]
MaxTrials = Annotated[int, typer.Option(help="Variants a device may try.")]


@app.command()
def create(
    release: Release,
    selector: Selector = "",
    slot: Slot = "main",
    waves: Annotated[str, typer.Option(help="Counts or percentages, cumulative.")] = "1,10%,50%,100%",
    max_failed: Annotated[str, typer.Option(help="Share of a wave that may fail: 0, 0.05 or 5%.")] = "0",
    soak: Annotated[float, typer.Option(help="Seconds each device watches the new model before it confirms.")] = 60.0,
    deadline: Annotated[float, typer.Option(help="Seconds each device has to confirm.")] = 3600.0,
    hold: Annotated[float, typer.Option(help="Seconds between a wave's passing and the next wave.")] = 0.0,
    on_failure: Annotated[str, typer.Option(help="pause or revert_all.")] = "pause",
    max_trials: MaxTrials = 3,
    name: Annotated[str | None, typer.Option(help="For people; default: the release.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and watch; exit 2 unless it completes.")] = False,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a rollout."""
    body: Json = {
        **_what(release, selector, slot, waves, max_trials),
        "max_failed_ratio": _share(max_failed),
        "soak_s": _finite("--soak", soak),
        "deadline_s": _finite("--deadline", deadline),
        "hold_s": _finite("--hold", hold),
        "on_failure": on_failure,
        "name": name,
    }
    with Remote(server, api_key) as remote:
        found = remote.post("/api/v1/rollouts", body)
        rollout = cast("Json", found["rollout"])
        if watch:
            _watch(remote, str(rollout["id"]), as_json=as_json)
        elif as_json:
            show_json(found)
        else:
            say(f"{rollout['id']}  {rollout['sentence']}\nwatch it: edge-fleet rollouts watch {rollout['id']}")


@app.command()
def preview(
    release: Release,
    selector: Selector = "",
    slot: Slot = "main",
    waves: Annotated[str, typer.Option(help="Counts or percentages, cumulative.")] = "1,10%,50%,100%",
    max_trials: MaxTrials = 3,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which variants each device would be offered and why; changes nothing."""
    with Remote(server, api_key) as remote:
        found = remote.post("/api/v1/rollouts/preview", _what(release, selector, slot, waves, max_trials))
    if as_json:
        show_json(found)
        return
    show_table(
        ("device", "wave", "runs", "would try", "because", "cannot run"),
        [_preview_row(one) for one in cast("list[Json]", found["devices"])],
    )
    without = cast("list[str]", found["without_variant"])
    say(f"no variant fits: {', '.join(without)}" if without else "a variant fits every device")
    say(f"{found['bytes_first']} bytes in all, if each device fetches its first choice only")


@app.command("list")
def list_rollouts(server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """List rollouts, newest first."""
    with Remote(server, api_key) as remote:
        found = remote.get("/api/v1/rollouts")
    if as_json:
        show_json(found)
        return
    rows = [
        [one["id"], one["name"], one["state"], one["selector"] or "(all)", one["sentence"]]
        for one in cast("list[Json]", found["items"])
    ]
    show_table(("rollout", "name", "state", "selector", "why"), rows)


@app.command()
def show(rollout: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Show a rollout: waves with verdicts, devices, history."""
    from fleet_server.cli.rollout_view import print_whole

    with Remote(server, api_key) as remote:
        found = remote.get(f"/api/v1/rollouts/{rollout}")
    if as_json:
        show_json(found)
    else:
        print_whole(found)


@app.command()
def watch(rollout: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Watch until it ends: exit 0 when completed, 2 when paused, reverted or cancelled."""
    with Remote(server, api_key) as remote:
        _watch(remote, rollout, as_json=as_json)


@app.command()
def pause(rollout: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Assign nobody else until someone resumes."""
    _command("pause", rollout, server, api_key, as_json=as_json)


@app.command()
def resume(rollout: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Go on. After a failed wave this accepts the wave as it is, in your name."""
    _command("resume", rollout, server, api_key, as_json=as_json)


@app.command()
def cancel(rollout: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """End it where it is; reached devices keep what they have."""
    _command("cancel", rollout, server, api_key, as_json=as_json)


@app.command()
def revert(rollout: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Send every reached device back to what it ran before."""
    _command("revert", rollout, server, api_key, as_json=as_json)


def _command(verb: str, rollout: str, server: str | None, api_key: str | None, *, as_json: bool) -> None:
    with Remote(server, api_key) as remote:
        found = remote.post(f"/api/v1/rollouts/{rollout}/{verb}")
    if as_json:
        show_json(found)
        return
    after = cast("Json", found["rollout"])
    say(f"{after['id']} is {after['state']}: {after['sentence']}")


def _watch(remote: Remote, rollout: str, *, as_json: bool) -> None:
    from fleet_server.cli import rollout_watch

    try:
        state = rollout_watch.watch(remote, rollout, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(f"\nstopped watching; the rollout goes on: edge-fleet rollouts watch {rollout}", err=True)
        raise typer.Exit(130) from None
    if state != "completed":
        raise typer.Exit(2)


def _what(release: str, selector: str, slot: str, waves: str, max_trials: int) -> Json:
    model, colon, version = release.partition(":")
    if not colon:
        raise InvalidRequest(f"roll out {release!r}", "it has no version", "write NAME:VERSION, e.g. digits:1.0.0")
    sizes = [part.strip() for part in waves.split(",")]
    return {
        "model": model, "version": version, "selector": selector, "slot": slot, "waves": sizes, "max_trials": max_trials
    }  # fmt: skip


def _share(text: str) -> float:
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / 100 if text.strip().endswith("%") else float(number)
    except ValueError as error:
        raise InvalidRequest(f"read --max-failed {text!r}", "it is no share", "write 0, 0.05 or 5%") from error
    return _finite("--max-failed", share)


def _finite(option: str, value: float) -> float:
    # JSON cannot carry NaN or an infinity, so the server never sees them.
    if not math.isfinite(value):
        raise InvalidRequest(f"use {option} {value}", "it is no number to count with", "use a finite one")
    return value


def _preview_row(one: Json) -> list[object]:
    candidates = cast("list[Json]", one["candidates"])
    rejected = cast("list[Json]", one["rejected"])
    return [
        one["device"],
        one["wave"],
        one["runs"],
        " → ".join(str(candidate["variant"]) for candidate in candidates) or "nothing",
        candidates[0]["because"] if candidates else None,
        "; ".join(f"{misfit['variant']}: {misfit['because']}" for misfit in rejected) or None,
    ]
