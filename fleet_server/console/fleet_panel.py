"""The fleet on the console: counts, what is running, every device, and the newest lines of the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleet_server.console.parts import Rows, Section, ago, badge, block, cell, command, icon, table, text
from fleet_server.console.snapshot import DeviceRow, FleetCounts, Snapshot
from fleet_server.console.words import mark, milliseconds, percent
from fleet_server.identity.model import AuditEntry

_DEVICES_SHOWN: Final = 200
_RELEASES_SHOWN: Final = 5
_COLUMNS: Final = (
    "Device",
    "Connection",
    "Running",
    "State",
    "Accuracy",
    "Latency p95",
    "Last seen",
)


class CountsPanel:
    """Cards with the fleet's numbers."""

    def __init__(self) -> None:
        self._section: Section[FleetCounts] = Section(_build_counts, "cards")

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot's numbers."""
        self._section.show(snapshot.counts)


class DevicesPanel:
    """A table of devices."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        with block("panel"):
            with block("panel-head"):
                text("Devices", "panel-title")
                self._note = text("", "muted")
            self._empty: Section[bool] = Section(_build_no_devices)
            self._table = block()
            with self._table:
                self._rows: Rows[str, DeviceRow] = Rows(self._build_row, table(_COLUMNS, "devices"), tag="tr")

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot's devices."""
        found = snapshot.devices
        self._empty.show(not found)
        self._table.set_visibility(bool(found))
        self._rows.show([(row.key, row) for row in found[:_DEVICES_SHOWN]])
        hidden = len(found) - _DEVICES_SHOWN
        more = f"the first {_DEVICES_SHOWN}; {hidden} more: edge-fleet devices list" if hidden > 0 else ""
        self._note.set_text(more or "accuracy and latency of the last 15 min")

    def _build_row(self, row: DeviceRow) -> None:
        now = self._clock()
        with cell("Device", "strong"):
            text(row.device if row.slot is None else f"{row.device} / {row.slot}", "mono")
            if row.labels:
                text(row.labels, "muted small")
        with cell("Connection"):
            badge(mark(row.connection if row.standing == "active" else row.standing))
        with cell("Running"):
            text(row.running or "nothing yet", "" if row.running else "muted")
            if row.variant:
                text(row.variant, "muted small mono")
        with cell("State", "wide"):
            badge(mark(row.state))
            if row.reason:
                text(row.reason, "small")
            if row.detail:
                text(row.detail, "muted small clamp").props["title"] = row.detail
        with cell("Accuracy", "number"):
            text("–" if row.accuracy is None else percent(row.accuracy))
            if row.samples:
                text(f"of {row.samples:,} labelled".replace(",", " "), "muted small")
        with cell("Latency p95", "number"):
            text("–" if row.latency_p95_ms is None else milliseconds(row.latency_p95_ms))
            if row.requests:
                text(f"{row.requests:,} requests".replace(",", " "), "muted small")
        with cell("Last seen"):
            ago(row.last_seen_at, now)


class AuditPanel:
    """The newest entries of the audit log."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        with block("panel"):
            with block("panel-head"):
                text("Audit log", "panel-title")
                text("all of it: edge-fleet audit", "muted")
            self._rows: Rows[int, AuditEntry] = Rows(self._build_row, block("audit"), tag="div", classes="audit-row")

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot's entries."""
        self._rows.show([(entry.id, entry) for entry in snapshot.audit])

    def _build_row(self, entry: AuditEntry) -> None:
        ago(entry.at, self._clock(), "muted")
        text(entry.who, "strong")
        text(entry.action, "mono")
        text(entry.subject, "muted mono")


def _build_counts(counts: FleetCounts) -> None:
    _card("devices_other", "Devices", counts.devices, "calm")
    _card("link", "Ready", counts.ready, "good" if counts.ready else "calm")
    _card("link_off", "Away", counts.away, "wait" if counts.away else "calm")
    _card("check_circle", "Confirmed", counts.confirmed, "good" if counts.confirmed else "calm")
    _card("error", "Failing", counts.failing, "bad" if counts.failing else "calm")
    with block("card releases"):
        text("Running releases", "card-label")
        if not counts.by_release:
            text("none yet", "muted")
        for name, number in counts.by_release[:_RELEASES_SHOWN]:
            with block("share"):
                text(name, "share-name")
                with block("share-track"):
                    block("share-fill").style(f"width:{100 * number / counts.by_release[0][1]:.1f}%")
                text(str(number), "share-count")
        if len(counts.by_release) > _RELEASES_SHOWN:
            text(f"and {len(counts.by_release) - _RELEASES_SHOWN} more", "muted small")


def _card(sign: str, label: str, number: int, tone: str) -> None:
    with block(f"card tone-{tone}"):
        with block("card-label"):
            icon(sign)
            text(label)
        text(str(number), "card-number")


def _build_no_devices(is_empty: bool) -> None:  # noqa: FBT001 (a section shows one value)
    if is_empty:
        with block("empty"):
            text("No device has enrolled yet.", "strong")
            text("Make an enrolment document, give it to one device, and start its agent:")
            command("edge-fleet devices claim --device cam-1 -o enrolment.json")
            command("edge-runtime agent --config device.toml")
