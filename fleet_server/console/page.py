"""The console's one page: built per visitor, refreshed from the shared snapshot, steering through the services."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Final

from nicegui import run, ui
from starlette.requests import Request

from edge_runtime.contract.errors import EdgeError
from fleet_server.console.door import Door
from fleet_server.console.feed import PERIOD_S, Feed
from fleet_server.console.fleet_panel import AuditPanel, CountsPanel, DevicesPanel
from fleet_server.console.gate import LOGOUT, session_token
from fleet_server.console.login import ICON, STYLE
from fleet_server.console.parts import Section, badge, block, icon, text
from fleet_server.console.rollout_panel import RolloutPanel, build_no_rollout
from fleet_server.console.snapshot import ConsolePorts, Snapshot, default_rollout
from fleet_server.console.steering import EXPLAINED, STEERS, Action, possible, steer
from fleet_server.console.words import Mark, mark, span
from fleet_server.errors import Unauthenticated
from fleet_server.identity.model import Principal
from fleet_server.rollouts.views import RolloutView

_STALE_S: Final = 15.0
# Ages are counted in the browser, against the server's clock: a page of a thousand devices then costs nothing a second.
_SCRIPT: Final = """
<script>
(() => {
  const offset = %d - Date.now();
  const span = s => s < 100 ? `${s} s` : s < 6000 ? `${Math.floor(s / 60)} min`
    : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  const put = (element, words) => { if (element.textContent !== words) element.textContent = words; };
  setInterval(() => {
    const now = (Date.now() + offset) / 1000;
    for (const element of document.querySelectorAll("[data-ago]")) {
      const s = Math.floor(now - Number(element.dataset.ago));
      put(element, s < 1 ? "just now" : span(s) + " ago");
    }
    for (const element of document.querySelectorAll("[data-left]")) {
      const s = Math.ceil(Number(element.dataset.left) - now);
      put(element, s > 0 ? span(s) + " left" : span(-s) + " over");
    }
  }, 1000);
  // A session that has ended takes the socket along, and then nobody can tell the page to leave.
  setInterval(async () => {
    if (!window.socket || window.socket.connected) return;
    try {
      if ((await fetch(location.pathname, { method: "HEAD", cache: "no-store" })).status === 401) location.reload();
    } catch { /* the server is away: it is asked again */ }
  }, 2000);
})();
</script>
"""


def add_page(ports: ConsolePorts, door: Door, feed: Feed) -> None:
    """Register the page with NiceGUI."""

    @ui.page("/", title="edgefleet console", favicon=ICON)
    async def console(request: Request) -> None:
        token = session_token(request.headers)
        principal = await run.io_bound(door.who, token)
        if principal is not None:
            _Page(ports, door, feed, token, principal).build()


class _Page:
    """What one visitor has open."""

    def __init__(self, ports: ConsolePorts, door: Door, feed: Feed, token: str | None, principal: Principal) -> None:
        self._ports = ports
        self._door = door
        self._feed = feed
        self._token = token
        self._principal = principal
        self._id = secrets.token_hex(8)
        self._chosen: str | None = None
        """The rollout that the visitor picked; None follows the fleet."""
        self._seen: Snapshot | None = None
        self._is_over = False

    def build(self) -> None:
        """Lay the page out; it fills with the first snapshot."""
        ui.add_head_html(f"<style>{STYLE}</style>")
        ui.add_head_html(_SCRIPT % int(self._ports.clock() * 1000))
        self._build_header()
        with block("page", "main") as self._body:
            self._stale: Section[str] = Section(_build_stale)
            self._counts = CountsPanel()
            with block("panel"):
                with block("panel-head"):
                    text("Rollout", "panel-title")
                    self._select = ui.select({}, on_change=self._choose).props("dense outlined options-dense")
                    self._select.classes("rollout-select")
                    self._buttons: Section[tuple[str, str, int]] = Section(self._build_buttons, "buttons")
                self._no_rollout: Section[bool] = Section(build_no_rollout)
                with block() as self._rollout_place:
                    self._rollout = RolloutPanel(self._ports.clock)
            self._devices = DevicesPanel(self._ports.clock)
            self._audit = AuditPanel(self._ports.clock)
        self._build_dialog()
        self._timer = ui.timer(PERIOD_S / 2, self._tick)

    def _build_header(self) -> None:
        with block("top", "header"):
            with block("brand"):
                block("brand-mark").props("aria-hidden=true")
                text("edgefleet", "brand-name")
            self._broker: Section[bool] = Section(self._build_broker)
            block("push")
            with block("who"):
                icon("person")
                text(self._principal.name, "who-name")
                text(self._principal.role.value, "role")
            with (
                block(tag="form").props(f"method=post action={LOGOUT}"),
                block("logout", "button").props("type=submit"),
            ):
                text("Log out")

    def _build_dialog(self) -> None:
        with ui.dialog() as self._dialog, ui.card().classes("dialog"):
            self._question = text("", "dialog-title")
            self._consequence = text("", "dialog-text")
            with block("dialog-buttons"):
                ui.button("Back", on_click=lambda: self._dialog.submit(False), color=None).props("flat no-caps")
                self._confirm = ui.button("", color=None, on_click=lambda: self._dialog.submit(True))
                self._confirm.props("unelevated no-caps").classes("act")

    def _tick(self) -> None:
        snapshot = self._feed.look(self._id, self._chosen)
        if snapshot is None:
            return
        if self._door.still(self._token, snapshot.principals) is None:
            self._end()
            return
        age_s = self._ports.clock() - snapshot.at
        self._stale.show(f"what you see is {span(age_s)} old" if age_s > _STALE_S else "")
        if snapshot is not self._seen:
            self._seen = snapshot
            self._show(snapshot)

    def _show(self, snapshot: Snapshot) -> None:
        self._broker.show(snapshot.is_broker_connected)
        self._counts.show(snapshot)
        self._devices.show(snapshot)
        self._audit.show(snapshot)
        shown = self._chosen if self._chosen in snapshot.details else default_rollout(snapshot.rollouts)
        detail = None if shown is None else snapshot.details.get(shown)
        self._no_rollout.show(not snapshot.rollouts)
        self._rollout_place.set_visibility(detail is not None)
        self._select.set_visibility(bool(snapshot.rollouts))
        options = {one.id: _option(one) for one in snapshot.rollouts}
        if (self._select.options, self._select.value) != (options, shown):
            self._select.set_options(options, value=shown)
        if detail is not None:
            rollout = detail.rollout
            reached = sum(wave.reached for wave in detail.waves)
            self._buttons.show((rollout.id, rollout.state, reached))
            self._rollout.show(detail)

    def _choose(self) -> None:
        """The visitor picks a rollout; picking the one the fleet shows anyway keeps following it."""
        chosen = self._select.value
        if self._seen is not None and isinstance(chosen, str):
            self._chosen = None if chosen == default_rollout(self._seen.rollouts) else chosen
            self._feed.look(self._id, self._chosen)

    def _build_broker(self, is_connected: bool) -> None:  # noqa: FBT001 (a section shows one value)
        word = f"broker connected ({self._ports.broker})" if is_connected else "broker away"
        badge(Mark("hub" if is_connected else "link_off", word, "good" if is_connected else "bad"))

    def _build_buttons(self, shown: tuple[str, str, int]) -> None:
        rollout, state, reached = shown
        if not self._principal.role.includes(STEERS):
            text("view only: pausing and reverting need the role operator", "muted small")
            return
        for action in possible(state):
            offered = EXPLAINED[action]
            ask = partial(self._ask, action, rollout, reached)
            # Without a colour of Quasar's, whose classes would win over the style sheet's.
            button = ui.button(offered.label, icon=offered.icon, color=None, on_click=ask)
            button.props("outline no-caps dense").classes(f"action action-{action.value}")

    async def _ask(self, action: Action, rollout: str, reached: int) -> None:
        offered = EXPLAINED[action]
        self._question.set_text(f"{offered.label} rollout {rollout}?")
        self._consequence.set_text(f"{offered.consequence} Reached so far: {reached}.")
        self._confirm.set_text(f"{offered.label} it")
        if await self._dialog is not True:
            return
        try:
            await run.io_bound(steer, self._ports, self._door, self._token, action, rollout)
        except Unauthenticated:
            self._end()
        except EdgeError as error:
            ui.notify(str(error), type="negative", multi_line=True)
        else:
            ui.notify(f"{offered.label}: done, in the name of {self._principal.name}", type="positive")

    def _end(self) -> None:
        """The session is over: show nothing more and go to the form."""
        if not self._is_over:
            self._is_over = True
            self._timer.cancel()
            self._body.clear()
            # The gate sends a page without a session to the form; an address would get the console's path before it.
            ui.navigate.reload()


def _option(rollout: RolloutView) -> str:
    return f"{rollout.name} · {mark(rollout.state).word} · {rollout.id}"


def _build_stale(words: str) -> None:
    if words:
        with block("banner tone-wait"):
            icon("schedule")
            text(words)
