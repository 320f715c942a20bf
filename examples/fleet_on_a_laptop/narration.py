"""What the demo says: plain lines that read well on a terminal and in a log."""

from __future__ import annotations

import sys
import time

_BOLD, _GREEN, _RED, _DIM, _PLAIN = "\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m"


class Narrator:
    """Prints acts, facts and outcomes with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._colour = sys.stdout.isatty()

    def act(self, number: int, title: str) -> None:
        """A new act begins."""
        self._print(f"\n{self._paint(_BOLD, f'{number}  {title}')}")

    def say(self, text: str) -> None:
        """Something happened."""
        self._line(" ", text)

    def proved(self, text: str) -> None:
        """Something that was promised really happened."""
        self._line(self._paint(_GREEN, "✓"), text)

    def failed(self, text: str) -> None:
        """Something that was promised did not happen."""
        self._line(self._paint(_RED, "✗"), text)

    def block(self, text: str) -> None:
        """Another program's output, as it is."""
        for line in text.rstrip().splitlines():
            self._print(f"           {line}")

    def _line(self, mark: str, text: str) -> None:
        elapsed_s = time.monotonic() - self._started
        self._print(f"{self._paint(_DIM, f'{elapsed_s:6.1f} s')} {mark} {text}")

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text

    def _print(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
