"""How a rollout looks on a terminal: waves as bars with their verdicts, devices with their states."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet_server.cli.remote import Json

_BAR_CELLS: Final = 24
_COLOURS: Final[Mapping[str, str]] = {
    "running": "cyan", "completed": "green", "confirmed": "green", "pass": "green", "passed": "green",
    "paused": "yellow", "reverting": "yellow", "open": "cyan", "soaking": "cyan", "activated": "cyan",
    "failed": "red", "rolled_back": "red", "fail": "red", "reverted": "magenta", "silent": "red", "stuck": "red",
}  # fmt: skip
_GOING_ON: Final = frozenset({"running", "paused"})
_BAR: Final = (("confirmed", "█", "green"), ("failed", "█", "red"), ("rolled_back", "█", "red"), ("silent", "▒", "red"))


def dashboard(found: Json, now: float, *, devices: int, history: int = 0) -> RenderableType:
    """The whole rollout as one picture; at most so many devices and so many lines of history."""
    rollout = cast("Json", found["rollout"])
    waves = _waves(cast("list[Json]", found["waves"]), str(rollout["state"]))
    parts: list[RenderableType] = [_head(rollout, now), waves]
    members = sorted(cast("list[Json]", found["members"]), key=_interest)
    if members:
        parts += [Text(), _devices(members[:devices], now)]
    if len(members) > devices:
        parts.append(Text(f"… and {len(members) - devices} more", style="dim"))
    if lines := [history_line(entry) for entry in cast("list[Json]", found["history"])[-history:] if history]:
        parts += [Text(), *lines]
    return Group(*parts)


def print_whole(found: Json) -> None:
    """A rollout once, with all of its history."""
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False)
    now = datetime.now().astimezone().timestamp()
    console.print(dashboard(found, now, devices=200, history=1000))


def history_line(entry: Json) -> Text:
    """One line of history: when, and what."""
    at = datetime.fromtimestamp(cast("float", entry["at"])).astimezone().strftime("%H:%M:%S")
    name = str(entry["name"])
    colour = _COLOURS.get(name.partition(".")[2], "")
    # Text, not markup: what devices say of themselves must not colour or hide anything.
    return Text.assemble((f"{at}  ", "dim"), (str(entry["sentence"]), colour))


def device_state(member: Json) -> str:
    """What to call the state of a member: its way back, its outcome, or how far it is."""
    if member["revert_seq"] is not None:
        back = str(member["revert_outcome"])
        return {"confirmed": "back", "pending": f"going back ({member['state'] or 'told'})"}.get(back, "stuck")
    if member["outcome"] != "pending":
        return str(member["outcome"])
    return str(member["state"] or "assigned")


def _head(rollout: Json, now: float) -> Text:
    state = str(rollout["state"])
    age_s = max(0, int(now - cast("float", rollout["created_at"])))
    head = Text.assemble(
        (str(rollout["name"]), "bold"),
        f"  {rollout['id']}  ",
        (state.upper(), f"bold {_COLOURS.get(state, '')}".strip()),
        (f"  {age_s // 60}:{age_s % 60:02d}  {rollout['selector'] or 'all devices'}", "dim"),
    )
    if rollout["unsafe_gate_off"]:
        head.append("  GATE SWITCHED OFF", "bold red")
    return head.append(f"\n{rollout['sentence']}\n")


def _waves(waves: list[Json], state: str) -> Table:
    planned = "waits for the wave before it" if state in _GOING_ON else "never opened"
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for wave in waves:
        label = Text(f"wave {wave['wave']} ({wave['size']})")
        if wave["state"] == "planned":
            table.add_row(label, Text("·" * _BAR_CELLS, "dim"), Text(), Text(planned, "dim"))
            continue
        counted = cast("int", wave["reached"]) - cast("int", wave["superseded"])
        colour = _COLOURS.get(str(wave["verdict"]), "")
        table.add_row(
            label, _bar(wave, counted), Text(f"{wave['confirmed']}/{counted}"), Text(str(wave["sentence"]), colour)
        )
    return table


def _bar(wave: Json, counted: int) -> Text:
    bar, drawn, so_far = Text(), 0, 0
    for key, cell, colour in _BAR:
        so_far += cast("int", wave[key])
        until = _BAR_CELLS * so_far // max(counted, 1)
        bar.append(cell * (until - drawn), colour)
        drawn = until
    return bar.append("░" * (_BAR_CELLS - drawn), "dim")


def _devices(members: list[Json], now: float) -> Table:
    table = Table(
        "device", "wave", "state", "variant", "ran before", "why", box=None, pad_edge=False, header_style="dim"
    )
    for member in members:
        state = device_state(member)
        table.add_row(
            Text(str(member["device"])),
            Text(str(member["wave"])),
            Text(state, _COLOURS.get(state, "")),
            Text(str(member["variant"] or "-")),
            Text(str(member["previous"] or "nothing").removeprefix("models/")),
            Text(_why(member, now)),
        )
    return table


def _why(member: Json, now: float) -> str:
    if member["reason"] is not None:
        return f"{member['reason']}: {member['detail']}" if member["detail"] else str(member["reason"])
    left_s = cast("float", member["deadline_at"]) - now
    if member["outcome"] == "pending" and member["revert_seq"] is None:
        if left_s <= 0:
            return "silent past its deadline"
        away = {"ready": "", "unknown": "never heard of; "}.get(str(member["connection"]), "away; ")
        return f"{away}{left_s:.0f} s left"
    return ""


def _interest(member: Json) -> tuple[int, int, str]:
    """What went wrong first, then what moves, then what is done."""
    order = {"failed": 0, "rolled_back": 0, "pending": 1, "confirmed": 2}
    return order.get(str(member["outcome"]), 3), cast("int", member["wave"]), str(member["device"])
