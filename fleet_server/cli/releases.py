"""`edge-fleet releases …`: push signed releases and look at them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, cast

import typer

from edge_runtime.contract.layout import Descriptor, LayoutFolder
from fleet_server.cli.output import say, show_json, show_table
from fleet_server.cli.remote import Json, JsonOption, KeyOption, Remote, ServerOption
from fleet_server.errors import InvalidRequest

app = typer.Typer(help="Push signed releases and look at them.")

_PIECE_BYTES = 1 << 18
_METADATA_MAX_BYTES = 8 * 1024 * 1024


@app.command()
def push(
    layout: Annotated[Path, typer.Argument(help="Folder that edge-convert wrote.")],
    metadata: Annotated[Path | None, typer.Option(help="Signed models-NAME.json; default: beside the layout.")] = None,
    withdraw: Annotated[
        list[str] | None, typer.Option(help="Version that the metadata no longer lists on purpose; repeat for more.")
    ] = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a release; blobs that are there already are skipped, so an interrupted push goes on where it stopped."""
    folder = LayoutFolder(layout)
    release = folder.open()
    name = release.manifest.name
    signed = _read_metadata(metadata or layout.parent / f"models-{name}.json")
    with Remote(server, api_key) as remote:
        sent = _upload(remote, folder, quiet=as_json)
        body = {
            "model": name,
            "version": release.manifest.version,
            "release_digest": release.digest,
            "metadata": signed,
            "withdraws": withdraw or [],
        }
        accepted = remote.post("/api/v1/releases", body)
    if as_json:
        show_json({**accepted, "uploaded_blobs": sent})
        return
    there = "every blob was there already" if sent == 0 else f"{sent} blobs uploaded"
    say(f"{name} {release.manifest.version} accepted as {accepted['digest']} ({there})")


@app.command("list")
def list_releases(
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List releases, newest first."""
    with Remote(server, api_key) as remote:
        found = cast("list[Json]", remote.get("/api/v1/releases", {"model": model} if model else {})["items"])
    if as_json:
        show_json(found)
        return
    rows = [
        [one["model"], one["version"], "withdrawn" if one["withdrawn"] else "", one["digest"], one["pushed_by"]]
        for one in found
    ]
    show_table(("model", "version", "", "digest", "pushed by"), rows)


@app.command()
def show(
    model: str, version: str, server: ServerOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Show a release: variants, evidence, and defences that were switched off when it was built."""
    with Remote(server, api_key) as remote:
        found = remote.get(f"/api/v1/releases/{model}/{version}")
    if as_json:
        show_json(found)
        return
    say(f"{model} {version}  {found['task']}  licence {found['licence']}")
    if cast("Json", found["release"])["withdrawn"]:
        say("  WITHDRAWN by its team: devices refuse to install it")
    for waiver in cast("list[Json]", found["waivers"]):
        say(f"  WAIVED {waiver['check']}: {waiver['detail']}")
    variants = cast("list[Json]", found["variants"])
    rows = [[one["id"], one["size_bytes"], _accuracy(one), _latency(one), one["digest"]] for one in variants]
    show_table(("variant", "bytes", "accuracy", "p95 ms", "digest"), rows)


def _upload(remote: Remote, folder: LayoutFolder, *, quiet: bool) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    blobs = {blob.digest: blob for blob in folder.blobs()}
    missing = [blob for blob in blobs.values() if not remote.has(_path(blob))]
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as progress:
        task = progress.add_task("uploading", total=sum(blob.size for blob in missing))
        for blob in missing:
            remote.upload(
                _path(blob), _advancing(folder.path_of(blob.digest), lambda size: progress.advance(task, size))
            )
    return len(missing)


def _advancing(path: Path, sent: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as source:
        while piece := source.read(_PIECE_BYTES):
            yield piece
            sent(len(piece))


def _path(blob: Descriptor) -> str:
    return f"/api/v1/releases/blobs/{blob.digest}"


def _read_metadata(path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"read signed metadata {path}", str(error), "sign the release first: edge-convert sign"
        ) from error
    if len(content) > _METADATA_MAX_BYTES:
        raise InvalidRequest(f"read signed metadata {path}", f"it exceeds {_METADATA_MAX_BYTES} bytes")
    return content


def _accuracy(variant: Json) -> object:
    evidence = cast("Json | None", variant["evidence"])
    accuracy = cast("Json | None", evidence.get("accuracy")) if evidence else None
    return accuracy["value"] if accuracy else None


def _latency(variant: Json) -> object:
    evidence = cast("Json | None", variant["evidence"])
    latency = cast("Json | None", evidence.get("latency_ms")) if evidence else None
    return latency["p95"] if latency else None
