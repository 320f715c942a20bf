"""Shows what a build does: what runs, how far it is and for how long, what is done, what the cache had already."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from converters.caching.stages import StageEvent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_MARKS: Final = {"done": ("✓", "green"), "cached": ("↺", "cyan"), "failed": ("✗", "red")}
_WIDTH: Final = 44
_EVERY_S: Final = 10.0
"""Between two lines about one count, where there is no terminal."""


class StageView:
    """A listener of stages; a context manager, because it hides the cursor while stages run."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = console
        self._running: dict[str, float] = {}
        self._counts: dict[str, str] = {}
        self._said: dict[str, float] = {}
        """When a line about a stage's count was last written where there is no terminal."""
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, get_renderable=self.rows, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def start(self) -> None:
        """Begin to draw, if there is a terminal; elsewhere each stage that ends is a line."""
        if self._console.is_terminal:
            self._live.start()

    def __call__(self, event: StageEvent) -> None:
        """Take note of a stage."""
        from rich.text import Text

        if event.state == "running":
            if event.title not in self._running:
                self._running[event.title] = time.monotonic()
            if event.done is not msgspec.UNSET:
                self._count(event.title, f"{event.done}/{event.of}")
            return
        self._running.pop(event.title, None)
        self._counts.pop(event.title, None)
        took = "from the cache" if event.state == "cached" else f"{event.took_s:.1f} s"
        if not self._console.is_terminal:
            self._write(f"{event.state}: {event.title}" + ("" if event.state == "cached" else f", {took}"))
            return
        mark, style = _MARKS[event.state]
        # Text, not str: a folder called "[red]" is no markup.
        self._console.print(Text.assemble((f"{mark} ", style), f"{event.title:<{_WIDTH}} ", (took, "dim")))

    def _count(self, title: str, count: str) -> None:
        self._counts[title] = count
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said.get(title, -_EVERY_S) >= _EVERY_S:
            self._said[title] = now
            self._write(f"{title}: {count}")

    def _write(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def rows(self) -> RenderableType:
        """What runs now: a line each, with its count and its time."""
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 1))
        for title, since in tuple(self._running.items()):
            count = f"{self._counts[title]}  " if title in self._counts else ""
            took = Text(f"{count}{time.monotonic() - since:.0f} s", style="dim")
            rows.add_row(self._spinner, Text(f"{title:<{_WIDTH}}"), took)
        return rows
