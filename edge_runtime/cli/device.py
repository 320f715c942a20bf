"""`edge-runtime agent` and `status`: the device's long-running process, and where it stands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_runtime.cli.output import Json, print_json

app = typer.Typer()


@app.command()
def agent(
    config: Annotated[Path, typer.Option(help="The device's configuration file (TOML).")],
    source: Annotated[Path | None, typer.Option(help="Folder of images to classify with the live model.")] = None,
) -> None:
    """Run this device's agent in the foreground."""
    # Replaced, not imported: the agent's process carries neither Typer nor rich.
    command = [sys.executable, "-m", "edge_runtime.agent", "--config", str(config)]
    os.execv(command[0], command if source is None else [*command, "--source", str(source)])


@app.command()
def status(
    state: Annotated[Path, typer.Option(help="The state_dir of a device.")],
    as_json: Json = False,
) -> None:
    """Say where each slot of a device on this machine stands."""
    import msgspec

    from edge_runtime.bootstrap import read_reports

    reports = [msgspec.to_builtins(report) for report in read_reports(state)]
    if as_json:
        print_json(reports)
    else:
        _print_reports(reports)


def _print_reports(reports: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("slot", "state", "seq", "running", "reason")
    for report in reports:
        running, reason = report.get("running") or {}, report.get("reason") or {}
        what = f"{running['target']} ({running['variant']})" if running else "nothing"
        cells = (report["slot"], report["state"], str(report["seq"]), what, reason.get("detail", ""))
        table.add_row(*map(Text, cells))
    Console().print(table)
