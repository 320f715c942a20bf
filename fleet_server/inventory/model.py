"""What the server knows about devices and slots, and which devices a selector means (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Assignment, Candidate, Policy, Reported, SlotState
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, SlotId, TargetPath, shown
from fleet_server.errors import InvalidRequest

DeviceStanding = Literal["active", "revoked", "decommissioned"]

_KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?\Z")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?\Z")
_TERM: Final = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<absent_key>[^\s=!,()]+)"
    r"|(?P<set_key>[^\s=!,()]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<key>[^\s=!,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!,()]*)"
    r"|(?P<present_key>[^\s=!,()]+))\s*(?:,|\Z)"
)


@dataclass(frozen=True, slots=True)
class Device:
    """One unit, as the server knows it."""

    id: DeviceId
    standing: DeviceStanding
    connection: str
    """Last status heard: `init`, `ready`, `sleeping`, `disconnected`, `lost`; `unknown` before the first."""
    labels: Mapping[str, str]
    enrolled_at: float
    last_seen_at: float | None
    session: str | None
    agent: str | None
    facts: DeviceFacts | None
    capabilities: tuple[str, ...] = ()

    @property
    def selectable(self) -> dict[str, str]:
        """Labels, and the facts a selector may name as if they were labels: `id`, `arch`, `profile`."""
        facts = {} if self.facts is None else {"arch": self.facts.arch, "profile": self.facts.profile or ""}
        return {**self.labels, **{key: value for key, value in facts.items() if value}, "id": self.id}


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot of one device: what it must run, and where it stands."""

    device: DeviceId
    slot: SlotId
    desired: Assignment | None
    reported: Reported | None

    @property
    def highest_seq(self) -> int:
        """The highest sequence number either side knows."""
        return max(self.desired.seq if self.desired else 0, self.reported.seq if self.reported else 0)

    @property
    def is_settled(self) -> bool:
        """The device has confirmed, or finally given up, exactly what is desired."""
        if self.desired is None:
            return True
        if self.reported is None or self.reported.seq < self.desired.seq:
            return False
        return self.reported.state in _ENDS


@dataclass(frozen=True, slots=True)
class SlotProgress:
    """How far one device is with what it must run; cheap to have for a whole rollout."""

    device: DeviceId
    desired_seq: int
    reported_seq: int | None
    state: str | None


_ENDS: Final = frozenset(
    {SlotState.CONFIRMED.value, SlotState.FAILED.value, SlotState.ROLLED_BACK.value, SlotState.IDLE.value}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentDraft:
    """What a slot shall run; sequence number, issue time and signature are added when it is assigned."""

    kind: Literal["model", "runtime", "none"]
    target: TargetPath | None = None
    release: Digest | None = None
    length: int | None = None
    """Bytes of the release index blob."""
    candidates: tuple[Candidate, ...] = ()
    max_trials: int = 1
    parameters: Mapping[str, str | int | float | bool | list[float]] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    rollout: str | None = None
    lifetime_s: float = 7 * 86_400.0
    """From issue to expiry: a device that hears of it later does not start."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Something that happened to a device."""

    id: int
    device: DeviceId
    at: float
    name: str
    """`noun.verb_past`."""
    slot: SlotId | None
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Term:
    """One requirement of a selector."""

    key: str
    operator: Literal["in", "notin", "exists", "absent"]
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet the requirement; as in Kubernetes, `!=` and `notin` accept a missing key."""
        present = self.key in labels
        match self.operator:
            case "in":
                return present and labels[self.key] in self.values
            case "notin":
                return not present or labels[self.key] not in self.values
            case "exists":
                return present
            case "absent":
                return not present


@dataclass(frozen=True, slots=True)
class Selector:
    """Which devices are meant: all terms must hold; no term means every device."""

    terms: tuple[Term, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a device with these labels is meant."""
        return all(term.matches(labels) for term in self.terms)


EVERY_DEVICE: Final = Selector()


def parse_selector(text: str) -> Selector:
    """Read `a=b, c in (d, e), f!=g, h, !i` as Kubernetes does; an empty text selects every device.

    Raises:
        InvalidRequest: it cannot be read; half a selector must never select the whole fleet.
    """
    terms: list[Term] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TERM.match(text, position)
        if match is None or match.end() == position:
            raise InvalidRequest(
                f"read selector {shown(text)}",
                f"at {shown(text[position:][:20])}",
                "write a=b, c in (d,e), f!=g, h or !i",
            )
        terms.append(_term(match))
        position = match.end()
    if text.rstrip().endswith(","):
        raise InvalidRequest(f"read selector {shown(text)}", "it ends with a comma", "remove it or add a term")
    return Selector(tuple(terms))


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Refuse labels that no selector could name. Raises: InvalidRequest."""
    if len(labels) > 64:
        raise InvalidRequest("use these labels", f"there are {len(labels)}", "use 64 or fewer")
    for key, value in labels.items():
        _check(_KEY, key, "label")
        _check(_VALUE, value, "label value")
    return dict(labels)


def _term(match: re.Match[str]) -> Term:
    if match["absent"]:
        return Term(_check(_KEY, match["absent_key"], "label"), "absent")
    if match["set_key"]:
        values = frozenset(_check(_VALUE, value.strip(), "label value") for value in match["values"].split(","))
        return Term(_check(_KEY, match["set_key"], "label"), "in" if match["set_op"] == "in" else "notin", values)
    if match["key"]:
        values = frozenset({_check(_VALUE, match["value"], "label value")})
        return Term(_check(_KEY, match["key"], "label"), "notin" if match["op"] == "!=" else "in", values)
    return Term(_check(_KEY, match["present_key"], "label"), "exists")


def _check(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.match(text):
        raise InvalidRequest(f"use {shown(text)} as a {what}", "use letters, digits and . _ - (up to 63)")
    return text
