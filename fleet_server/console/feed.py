"""One snapshot a second for all open pages together, and none while nobody looks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from fleet_server.console.snapshot import Snapshot

PERIOD_S: Final = 1.0
_GONE_S: Final = 5.0
"""A page that has not looked for this long is closed."""
_SHARE: Final = 3.0
"""A large fleet's snapshot takes long: pause at least this many times as long, so that the server keeps its time."""

log = structlog.get_logger("console")

Work = Callable[[frozenset[str]], Snapshot]
Threads = Callable[[Work, frozenset[str]], Awaitable[Snapshot]]


class Feed:
    """The newest snapshot, kept fresh for as long as somebody looks; lives on one event loop."""

    def __init__(
        self,
        take: Work,
        *,
        in_thread: Threads,
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._take = take
        self._in_thread = in_thread
        self._clock = clock
        self._pause = pause
        self._looks: dict[str, tuple[float, str | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._latest: Snapshot | None = None

    def look(self, page: str, rollout: str | None) -> Snapshot | None:
        """The newest snapshot for a page that shows this rollout (None: the default one); None before the first."""
        self._looks[page] = (self._clock(), rollout)
        if self._task is None or self._task.done():
            # What was taken for the last person who looked may be hours old.
            self._latest = None
            self._task = asyncio.create_task(self._run())
        return self._latest

    async def _run(self) -> None:
        while self._forget_the_gone():
            began = self._clock()
            wanted = frozenset(rollout for _, rollout in self._looks.values() if rollout is not None)
            try:
                self._latest = await self._in_thread(self._take, wanted)
            except Exception:
                # Pages show how old their picture is; the next one may succeed.
                log.exception("snapshot.failed")
            took = self._clock() - began
            await self._pause(max(PERIOD_S, _SHARE * took))

    def _forget_the_gone(self) -> bool:
        now = self._clock()
        self._looks = {page: look for page, look in self._looks.items() if now - look[0] < _GONE_S}
        return bool(self._looks)
