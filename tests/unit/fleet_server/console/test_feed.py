"""One snapshot for all who look, and none for nobody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fleet_server.console.feed import Feed, Work
from fleet_server.console.snapshot import FleetCounts, Snapshot
from tests.fakes.console import Clock


@dataclass
class Theatre:
    """A feed whose pauses end when the test says so."""

    clock: Clock = field(default_factory=Clock)
    wanted: list[frozenset[str]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    takes_s: float = 0.0
    breaks: bool = False

    def __post_init__(self) -> None:
        self.go_on = asyncio.Event()
        self.feed = Feed(self.take, in_thread=self.in_thread, clock=self.clock, pause=self.pause)

    def take(self, wanted: frozenset[str]) -> Snapshot:
        self.wanted.append(wanted)
        self.clock.now += self.takes_s
        if self.breaks:
            raise OSError("the database is away")
        return Snapshot(self.clock.now, True, FleetCounts(0, 0, 0, 0, ()), (), (), {}, ())

    async def in_thread(self, work: Work, wanted: frozenset[str]) -> Snapshot:
        return work(wanted)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds
        await self.go_on.wait()
        self.go_on.clear()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def next_round(self) -> None:
        self.go_on.set()
        await self.settle()


def test_many_viewers_share_one_snapshot() -> None:
    async def play() -> None:
        theatre = Theatre()
        for second in range(1, 4):
            for page in range(50):
                theatre.feed.look(f"page-{page}", f"r-{page % 2}" if page < 4 else None)
            await theatre.settle()
            assert len(theatre.wanted) == second
            shown = {id(theatre.feed.look(f"page-{page}", None)) for page in range(4, 50)}
            assert len(shown) == 1
            theatre.go_on.set()
        assert theatre.wanted[0] == {"r-0", "r-1"}

    asyncio.run(play())


def test_nothing_is_made_while_nobody_looks() -> None:
    async def play() -> None:
        theatre = Theatre()
        await theatre.settle()
        assert theatre.wanted == []

        theatre.feed.look("page", None)
        await theatre.settle()
        made = theatre.feed.look("page", None)
        assert made is not None
        for _ in range(20):
            await theatre.next_round()
        assert len(theatre.wanted) < 10

        # Whoever comes back sees nothing rather than yesterday.
        assert theatre.feed.look("page", None) is None
        await theatre.settle()
        assert theatre.feed.look("page", None) is not None

    asyncio.run(play())


def test_a_large_fleets_snapshot_leaves_the_server_most_of_its_time() -> None:
    async def play() -> None:
        theatre = Theatre(takes_s=2.0)
        theatre.feed.look("page", None)
        await theatre.settle()
        assert theatre.pauses == [6.0]

    asyncio.run(play())


def test_a_snapshot_that_fails_leaves_the_last_one_and_is_tried_again() -> None:
    async def play() -> None:
        theatre = Theatre()
        theatre.feed.look("page", None)
        await theatre.settle()
        good = theatre.feed.look("page", None)
        theatre.breaks = True
        await theatre.next_round()
        assert theatre.feed.look("page", None) is good
        theatre.breaks = False
        await theatre.next_round()
        assert theatre.feed.look("page", None) is not good

    asyncio.run(play())
