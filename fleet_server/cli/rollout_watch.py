"""Follows one rollout until it ends: a live picture on a terminal, plain lines in a pipe, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Final, cast

from rich.console import Console
from rich.live import Live

from edge_runtime.contract.errors import TransportError
from fleet_server.cli.output import say
from fleet_server.cli.remote import Json, Remote
from fleet_server.cli.rollout_view import dashboard, device_state, history_line

_WAIT_S: Final = 1.0
_AWAY_S: Final = 60.0
"""How long a server may be away (restarting) before watching gives up."""
_CHROME_LINES: Final = 12
_ENDS: Final = frozenset({"completed", "reverted", "paused", "cancelled"})

Show = Callable[[Json, list[Json]], None]
"""Draws a rollout, given also what happened since it was drawn last."""


def watch(remote: Remote, rollout: str, *, as_json: bool) -> str:
    """Show a rollout until it ends and return the state it ended in.

    Raises:
        NotFound: there is no such rollout. TransportError: the server stayed away.
    """
    if as_json:
        return _follow(remote, rollout, _show_json)
    if not sys.stdout.isatty():
        return _follow(remote, rollout, _plain_lines())
    return _watch_live(remote, rollout)


def _watch_live(remote: Remote, rollout: str) -> str:
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=False) as live:

        def show(found: Json, _news: list[Json]) -> None:
            room = max(3, console.height - _CHROME_LINES - len(cast("list[Json]", found["waves"])))
            live.update(dashboard(found, time.time(), devices=room, history=3), refresh=True)

        return _follow(remote, rollout, show)


def _follow(remote: Remote, rollout: str, show: Show) -> str:
    """Draw whenever something happened, and at least once a second."""
    after, heard_at = 0, time.monotonic()
    wait_s = 0.0
    while True:
        try:
            page = remote.get(f"/api/v1/rollouts/{rollout}/events", {"after": after, "wait_s": wait_s})
            found = remote.get(f"/api/v1/rollouts/{rollout}")
        except TransportError:
            # A server that restarts goes on with its rollouts; so does whoever watches them.
            if time.monotonic() - heard_at > _AWAY_S:
                raise
            time.sleep(_WAIT_S)
            continue
        after, heard_at = cast("int", page["next_cursor"]), time.monotonic()
        show(found, cast("list[Json]", page["items"]))
        wait_s = 0.0 if page["items"] else _WAIT_S
        state, last = str(cast("Json", found["rollout"])["state"]), cast("list[Json]", found["history"])[-1]
        if state in _ENDS and last["id"] == after:
            return state


def _plain_lines() -> Show:
    console = Console(width=10_000, highlight=False, no_color=True, soft_wrap=True)
    states: dict[str, str] = {}

    def show(found: Json, news: list[Json]) -> None:
        for entry in news:
            console.print(history_line(entry))
        for member in cast("list[Json]", found["members"]):
            device, state = str(member["device"]), device_state(member)
            if states.get(device) != state and member["outcome"] == "pending":
                say(f"          {device}: {state}")
            states[device] = state

    return show


def _show_json(_found: Json, news: list[Json]) -> None:
    for entry in news:
        say(json.dumps(entry, ensure_ascii=False))
