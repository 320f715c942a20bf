"""Shows on a terminal what a build does: what runs and for how long, what is done, what the cache had already."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from converters.caching.stages import StageEvent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_MARKS: Final = {"done": ("✓", "green"), "cached": ("↺", "cyan"), "failed": ("✗", "red")}


class StageView:
    """A listener of stages; a context manager, because it hides the cursor while stages run."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = console
        self._running: dict[str, float] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, get_renderable=self._rows, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def start(self) -> None:
        """Begin to draw, if there is a terminal."""
        if self._console.is_terminal:
            self._live.start()

    def __call__(self, event: StageEvent) -> None:
        """Take note of a stage."""
        from rich.text import Text

        if event.state == "running":
            self._running[event.title] = time.monotonic()
            return
        self._running.pop(event.title, None)
        if not self._console.is_terminal:
            return
        mark, style = _MARKS[event.state]
        took = "from the cache" if event.state == "cached" else f"{event.took_s:.1f} s"
        # Text, not str: a folder called "[red]" is no markup.
        self._console.print(Text.assemble((f"{mark} ", style), f"{event.title:<40} ", (took, "dim")))

    def _rows(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 1))
        for title, since in tuple(self._running.items()):
            rows.add_row(self._spinner, Text(f"{title:<40}"), Text(f"{time.monotonic() - since:.0f} s", style="dim"))
        return rows
