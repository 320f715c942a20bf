"""Whatever is offered, lost, cut or superseded: a slot ends confirmed, or failed or rolled back with the old one
answering; nothing unproven ever answers; the highest sequence number never goes down."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.contract.device_state import SlotState
from edge_runtime.contract.digest import digest_of_file, hex_of
from edge_runtime.update.states import Confirmed
from tests.fakes.documents import SLOT
from tests.fakes.update_world import FakeRelease, PowerCut, Quality, World

QUALITIES = st.sampled_from(
    [
        Quality(),
        Quality(p50_ms=3.0),
        Quality(failing=frozenset({"own", "float"})),
        Quality(failing=frozenset({"truth"})),
        Quality(p95_ms=99.0),
        Quality(opens=False),
        Quality(error_share=1.0),
        Quality(kills_agent=True),
    ]
)
RELEASES = st.lists(st.lists(QUALITIES, min_size=1, max_size=2), min_size=2, max_size=3)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 2)),
        st.tuples(st.just("empty"), st.just(0)),
        st.tuples(st.just("replay"), st.integers(0, 3)),
        st.tuples(st.just("step"), st.integers(1, 12)),
        st.tuples(st.just("cut_power"), st.integers(1, 25)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("network"), st.integers(0, 1)),
        st.tuples(st.just("break_download"), st.integers(0, 60)),
        st.tuples(st.just("pass_time"), st.integers(1, 2000)),
    ),
    max_size=12,
)


class Witness:
    """Plays actions on a world and watches what must never be."""

    def __init__(self, world: World, releases: list[FakeRelease]) -> None:
        self.world = world
        self.releases = releases
        self.seq = 0
        self.highest = 0
        self.last_confirmed: str | None = None
        """Variant digest that answered at the last confirmation; None before it, and when nothing shall run."""

    def play(self, action: str, number: int) -> None:
        world = self.world
        try:
            if action in {"offer", "empty"}:
                self.seq += 1
                release = self.releases[number % len(self.releases)] if action == "offer" else None
                world.offer(world.assignment(self.seq, release))
            elif action == "replay":
                world.offer(world.assignment(max(0, self.seq - number), self.releases[0]))
            elif action == "step":
                self.step(number)
            elif action == "cut_power":
                world.fuse.left = number
            elif action == "restart":
                world.machine.close()
                self.boot()
            elif action == "network":
                world.online = bool(number)
            elif action == "break_download":
                world.cut_after_bytes = number
            elif action == "pass_time":
                world.now += number
        except PowerCut:
            self.boot()
        self.look()

    def boot(self) -> None:
        self.world.boot_until_up()
        self.look()

    def step(self, count: int) -> None:
        for _ in range(count):
            outcome = self.world.machine.step(self.world.now)
            self.look()
            if outcome.rest_until is not None:
                self.world.now = max(self.world.now, outcome.rest_until)

    def settle(self) -> None:
        """Let everything work again, and wait."""
        self.world.fuse.left = None
        self.world.online = True
        self.world.cut_after_bytes = None
        for _ in range(400):
            try:
                outcome = self.world.machine.step(self.world.now)
            except PowerCut:
                self.boot()
                continue
            self.look()
            if outcome.rest_until is not None:
                self.world.now = max(self.world.now, outcome.rest_until)
            elif not outcome.acted:
                return
        raise AssertionError("it never comes to rest")

    def look(self) -> None:
        record = self.world.home.journal.read(SLOT)
        assert record.highest_seq >= self.highest, "the highest sequence number went down"
        self.highest = record.highest_seq
        if isinstance(record.status, Confirmed):
            self.last_confirmed = self.world.answering
        assert self.last_confirmed is None or self.world.answering is not None, "the slot went dark"
        for variant in self.world.live.answered:
            quality = self.world.qualities[variant]
            assert not quality.failing, "a model answered that had failed its golden set"
            assert quality.p95_ms < 50, "a model answered that had missed its latency bound"


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(RELEASES, ACTIONS)
def test_a_slot_ends_confirmed_or_with_the_old_release_answering(
    releases: list[list[Quality]], actions: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.boot()
        published = [world.publish(str(number), *qualities) for number, qualities in enumerate(releases)]
        witness = Witness(world, published)

        for action, number in actions:
            witness.play(action, number)
        witness.settle()

        record = world.home.journal.read(SLOT)
        assert record.pending is None or record.state in {SlotState.FAILED, SlotState.ROLLED_BACK}
        assert world.is_settled()
        assert world.answering == witness.last_confirmed
        report = world.machine.reported()
        assert (report.running.variant_digest if report.running else None) == witness.last_confirmed
        assert report.seq == witness.highest
        for path in (Path(folder) / "state" / "objects").iterdir():
            assert hex_of(digest_of_file(path)[0]) == path.name
        world.close()
