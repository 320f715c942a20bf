"""How the console says things: a sign, a word and a tone for each state, ages and numbers with their units (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final, Literal

from fleet_server.rollouts.views import MemberView

Tone = Literal["good", "bad", "busy", "wait", "calm"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A state as people see it: never by its colour alone."""

    icon: str
    word: str
    tone: Tone


_MARKS: Final[Mapping[str, Mark]] = {
    # rollouts
    "running": Mark("play_circle", "running", "busy"),
    "paused": Mark("pause_circle", "paused", "wait"),
    "reverting": Mark("undo", "going back", "wait"),
    "completed": Mark("check_circle", "completed", "good"),
    "reverted": Mark("history", "reverted", "bad"),
    "cancelled": Mark("cancel", "cancelled", "calm"),
    # verdicts and waves
    "pass": Mark("check_circle", "pass", "good"),
    "fail": Mark("error", "fail", "bad"),
    "inconclusive": Mark("hourglass_top", "undecided", "busy"),
    "planned": Mark("radio_button_unchecked", "planned", "calm"),
    # outcomes and slots
    "confirmed": Mark("check_circle", "confirmed", "good"),
    "failed": Mark("error", "refused", "bad"),
    "rolled_back": Mark("undo", "rolled back", "bad"),
    "superseded": Mark("call_split", "assigned elsewhere", "calm"),
    "silent": Mark("notifications_off", "silent", "bad"),
    "idle": Mark("radio_button_unchecked", "idle", "calm"),
    "going back": Mark("undo", "going back", "wait"),
    "back": Mark("history", "back on the old release", "good"),
    "stuck": Mark("error", "could not go back", "bad"),
    "assigned": Mark("outgoing_mail", "assigned", "busy"),
    # connections
    "ready": Mark("link", "ready", "good"),
    "init": Mark("hourglass_top", "starting", "busy"),
    "sleeping": Mark("bedtime", "sleeping", "calm"),
    "disconnected": Mark("link_off", "disconnected", "wait"),
    "lost": Mark("link_off", "lost", "bad"),
    "unknown": Mark("help", "not heard of yet", "calm"),
    "revoked": Mark("block", "revoked", "bad"),
    "decommissioned": Mark("block", "decommissioned", "calm"),
}
_STEPS: Final = frozenset(
    {"offered", "admitted", "fetching", "verified", "built", "trialled", "shadowing", "activated", "soaking"}
)


def mark(state: str | None) -> Mark:
    """Sign, word and tone of a state; one that is newer than this software is named as it is."""
    if state is None:
        return Mark("remove", "nothing reported", "calm")
    if state in _STEPS:
        return Mark("sync", state, "busy")
    return _MARKS.get(state, Mark("help", state, "calm"))


def member_mark(member: MemberView, now: float) -> Mark:
    """What became of a device in a rollout: its way back, its outcome, or how far it is."""
    if member.revert_seq is not None:
        return mark({"confirmed": "back", "pending": "going back"}.get(member.revert_outcome or "", "stuck"))
    if member.outcome != "pending":
        return mark(member.outcome)
    if now > member.deadline_at:
        return mark("silent")
    return mark(member.state or "assigned")


def age(seconds: float) -> str:
    """How long ago."""
    return "just now" if seconds < 1 else f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A stretch of time, in the unit people would use."""
    whole = max(0, int(seconds))
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h"
    return f"{whole // 86_400} d"


def utc(at: float) -> str:
    """A moment in full."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def percent(share: float) -> str:
    """A share with one digit; never rounded up to everything."""
    return f"{share * 100:.0f} %" if share in {0.0, 1.0} else f"{min(share * 100, 99.9):.1f} %"


def milliseconds(value: float) -> str:
    """A latency with two or three digits that mean something."""
    if value < 10:
        return f"{value:.2f} ms"
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def release_name(target: str | None) -> str | None:
    """A target path as people say it: model and version; a bare digest is cut short."""
    if target is None:
        return None
    return " ".join(target.removeprefix("models/").split("/", 1)) if "/" in target else target[:19]
