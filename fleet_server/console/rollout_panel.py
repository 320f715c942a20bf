"""One rollout on the console: where it stands and why, wave by wave, device by device, and what happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edge_runtime.contract.reasons import explain
from fleet_server.console.parts import Rows, Section, ago, badge, block, cell, command, icon, left, table, text
from fleet_server.console.words import Mark, mark, member_mark, release_name, span
from fleet_server.rollouts.gates import device_count
from fleet_server.rollouts.model import RolloutState
from fleet_server.rollouts.views import HistoryView, MemberView, RolloutDetailView, RolloutView, WaveView

_MEMBERS_SHOWN: Final = 200
_HISTORY_SHOWN: Final = 40
_COLUMNS: Final = ("Device", "Wave", "Outcome", "Variant", "Why")
_SEGMENTS: Final = (
    ("confirmed", "confirmed", "check_circle"),
    ("failed", "refused", "error"),
    ("rolled_back", "rolled back", "undo"),
    ("silent", "silent", "notifications_off"),
    ("undecided", "undecided", "hourglass_top"),
)
_TONES: Final[Mapping[str, str]] = {
    "confirmed": "good", "went_back": "good", "wave_passed": "good", "completed": "good",
    "failed": "bad", "rolled_back": "bad", "stuck": "bad", "not_reverted": "bad", "reverted": "bad",
    "revert_begun": "bad", "paused": "wait", "cancelled": "wait", "superseded": "wait",
}  # fmt: skip


class RolloutPanel:
    """The sections of one rollout."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._head: Section[RolloutView] = Section(self._build_head)
        with block("rollout-grid"):
            with block("rollout-main"):
                self._waves: Section[tuple[tuple[WaveView, ...], RolloutView]] = Section(self._build_waves, "waves")
                self._table = block()
                with self._table:
                    self._members: Rows[str, tuple[MemberView, Mark]] = Rows(
                        self._build_member, table(_COLUMNS, "members"), tag="tr"
                    )
                self._more = text("", "muted small")
            with block("rollout-side"):
                text("What happened", "side-title")
                self._history: Rows[int, HistoryView] = Rows(
                    self._build_entry, block("timeline"), tag="div", classes="timeline-entry"
                )

    def show(self, detail: RolloutDetailView) -> None:
        """Show a rollout as it stands."""
        now = self._clock()
        self._head.show(detail.rollout)
        self._waves.show((tuple(detail.waves), detail.rollout))
        self._table.set_visibility(bool(detail.members))
        members = sorted(detail.members, key=_interest)
        self._members.show([(one.device, (one, member_mark(one, now))) for one in members[:_MEMBERS_SHOWN]])
        reached = sum(wave.reached for wave in detail.waves)
        hidden = reached - min(len(members), _MEMBERS_SHOWN)
        self._more.set_text(f"and {hidden} more: edge-fleet rollouts show {detail.rollout.id}" if hidden > 0 else "")
        self._history.show([(one.id, one) for one in reversed(detail.history[-_HISTORY_SHOWN:])])

    def _build_head(self, rollout: RolloutView) -> None:
        with block("rollout-head"):
            badge(mark(rollout.state), "big")
            text(rollout.sentence, "sentence")
        with block("facts"):
            _fact("release", f"{rollout.model} {rollout.version}")
            _fact("to", rollout.selector or "every device")
            _fact("slot", rollout.slot)
            _fact("gate", f"at most {100 * rollout.max_failed_ratio:g} % of a wave may fail")
            _fact("soak", span(rollout.soak_s))
            _fact("deadline", f"{span(rollout.deadline_s)} per device")
            _fact("when a wave fails", "all go back" if rollout.on_failure == "revert_all" else "it pauses")
            with block("fact"):
                text("started", "fact-name")
                ago(rollout.created_at, self._clock())
                text(f"by {rollout.created_by}")
        if rollout.unsafe_gate_off:
            with block("banner tone-bad"):
                icon("warning")
                text("The gate is switched off: verdicts are computed, shown and ignored.")

    def _build_waves(self, shown: tuple[tuple[WaveView, ...], RolloutView]) -> None:
        waves, rollout = shown
        for wave in waves:
            with block(f"wave wave-{wave.state}"):
                with block("wave-head"):
                    text(f"Wave {wave.wave}", "wave-name")
                    text(_size(wave.size, rollout.matched_at_start), "muted")
                    if wave.verdict is not None:
                        badge(mark(wave.verdict), "push")
                    else:
                        badge(mark("planned"), "push")
                if wave.state == "planned":
                    text(_planned(rollout.state), "muted small")
                    continue
                _build_bar(wave)
                text(wave.sentence or "", "wave-sentence")

    def _build_member(self, shown: tuple[MemberView, Mark]) -> None:
        member, found = shown
        with cell("Device", "strong"):
            text(member.device, "mono")
            text(f"before: {release_name(member.previous) or 'nothing'}", "muted small nowrap")
        with cell("Wave"):
            text(str(member.wave))
        with cell("Outcome"):
            badge(found)
        with cell("Variant"):
            text(member.variant or "–", "mono small")
        with cell("Why", "wide"):
            if member.reason is not None:
                text(explain(member.reason), "small")
                if member.detail:
                    text(member.detail, "muted small clamp").props["title"] = member.detail
            elif member.outcome == "pending" and member.revert_seq is None:
                if member.connection != "ready":
                    text(f"{mark(member.connection).word}; ", "small")
                left(member.deadline_at, self._clock(), "small")
            elif member.decided_at is not None:
                ago(member.decided_at, self._clock(), "muted small")

    def _build_entry(self, entry: HistoryView) -> None:
        block(f"dot tone-{_tone(entry.name)}")
        with block("timeline-text"):
            text(entry.sentence)
            with block("timeline-meta"):
                ago(entry.at, self._clock())
                text(entry.who)


def build_no_rollout(is_empty: bool) -> None:  # noqa: FBT001 (a section shows one value)
    """What to do when nothing was ever rolled out."""
    if is_empty:
        with block("empty"):
            text("Nothing has been rolled out yet.", "strong")
            text("Push a signed release, then send it out in waves:")
            command("edge-fleet releases push digits-1.0.0")
            command("edge-fleet rollouts create --release digits:1.0.0 --waves 1,50%,100% --on-failure revert_all")


def _build_bar(wave: WaveView) -> None:
    counts = {key: int(getattr(wave, key)) for key, _, _ in _SEGMENTS}
    total = max(1, sum(counts.values()))
    shown = [(key, word, sign) for key, word, sign in _SEGMENTS if counts[key]]
    bar = block("bar")
    bar.props["role"] = "img"
    bar.props["aria-label"] = ", ".join(f"{counts[key]} {word}" for key, word, _ in shown) or "no device"
    with bar:
        for key, _, _ in shown:
            block(f"segment segment-{key}").style(f"width:{100 * counts[key] / total:.2f}%")
    with block("legend"):
        for key, word, sign in shown:
            with block(f"legend-entry legend-{key}"):
                icon(sign)
                text(f"{counts[key]} {word}")
        if wave.superseded:
            text(f"{wave.superseded} assigned elsewhere", "muted")


def _fact(name: str, value: str) -> None:
    with block("fact"):
        text(name, "fact-name")
        text(value)


def _size(size: str, matched: int) -> str:
    if size.endswith("%"):
        return f"up to {size.removesuffix('%')} % of {device_count(matched)}"
    return f"up to {device_count(int(size))}"


def _planned(state: str) -> str:
    going_on = state in {RolloutState.RUNNING.value, RolloutState.PAUSED.value}
    return "waits for the wave before it" if going_on else "never opened"


def _tone(name: str) -> str:
    verb = name.partition(".")[2]
    return _TONES.get(verb, "busy")


def _interest(member: MemberView) -> tuple[int, int, str]:
    """What went wrong first, then what moves, then what is done."""
    order = {"failed": 0, "rolled_back": 0, "pending": 1, "confirmed": 2}
    return order.get(member.outcome, 3), member.wave, member.device
