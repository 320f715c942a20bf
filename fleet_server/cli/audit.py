"""`edge-fleet audit`: who did what to what, and whether the log is intact."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer

from fleet_server.cli.output import say, show_json, show_table
from fleet_server.cli.remote import JsonOption, KeyOption, Remote, ServerOption

app = typer.Typer()


@app.command()
def audit(
    subject: Annotated[str | None, typer.Option(help="Only this subject.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the audit log, newest first, and check its chain."""
    with Remote(server, api_key) as remote:
        query: dict[str, str | int] = {"limit": limit}
        if subject is not None:
            query["subject"] = subject
        page, verdict = remote.get("/api/v1/audit", query), remote.get("/api/v1/audit/verdict")
    if as_json:
        show_json({**page, "verdict": verdict})
        return
    entries = page["items"]
    assert isinstance(entries, list)
    rows = [[_when(entry["at"]), entry["who"], entry["action"], entry["subject"], entry["detail"]] for entry in entries]
    show_table(("when", "who", "action", "subject", "detail"), rows)
    say("chain intact" if verdict["intact"] else f"CHAIN BROKEN at entry {verdict['broken_at']}")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
