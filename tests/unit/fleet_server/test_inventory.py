"""Desired and reported state: sequence numbers, sessions, revisions, bells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.contract.device_state import Birth, Reported, Running, SlotSummary, Status
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import DeviceId, SlotId, VariantId
from fleet_server.db import Database, Session
from fleet_server.errors import Conflict, InvalidRequest
from fleet_server.inventory.model import AssignmentDraft, parse_selector
from fleet_server.inventory.service import Inventory
from tests.fakes import documents

NOW = 1_800_000_000.0
CAM, SLOT = DeviceId("cam-1"), SlotId("main")
RELEASE = digest_of(b"release")


class Bells:
    def __init__(self) -> None:
        self.rung: list[tuple[str, str, int]] = []

    def ring(self, device: DeviceId, slot: SlotId, seq: int) -> None:
        self.rung.append((device, slot, seq))


@pytest.fixture
def bells() -> Bells:
    return Bells()


@pytest.fixture
def inventory(bells: Bells) -> Inventory:
    return Inventory(bells)


@pytest.fixture
def database(tmp_path: Path, inventory: Inventory) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    opened.upgrade()
    with opened.session() as session:
        inventory.register(session, CAM, labels={"site": "bonn"}, facts=None, now=NOW)
    yield opened
    opened.close()


def draft(**changes: object) -> AssignmentDraft:
    return AssignmentDraft(kind="none", **changes)  # type: ignore[arg-type]


def report(seq: int, revision: int, state: str = "confirmed", running: Running | None = None) -> Reported:
    return Reported(device=CAM, slot=SLOT, revision=revision, seq=seq, state=state, at=NOW, running=running)


def birth(session: str, slots: dict[SlotId, SlotSummary] | None = None, **changes: object) -> Birth:
    return Birth(device=CAM, session=session, agent="1", facts=documents.facts(), slots=slots or {}, **changes)  # type: ignore[arg-type]


def seq_after(database: Database, inventory: Inventory) -> int:
    with database.session() as session:
        return inventory.assign(session, CAM, SLOT, draft(), NOW)


def assign_and_fail(database: Database, inventory: Inventory) -> None:
    with database.session() as session:
        inventory.assign(session, CAM, SLOT, draft(), NOW)
        raise RuntimeError("the transaction fails")


def connection(session: Session, inventory: Inventory) -> str:
    return inventory.device(session, CAM).connection


def test_the_next_number_is_above_what_server_and_device_know(database: Database, inventory: Inventory) -> None:
    assert [seq_after(database, inventory), seq_after(database, inventory)] == [1, 2]

    with database.session() as session:
        inventory.apply_reported(session, report(seq=40, revision=1), NOW)

    assert seq_after(database, inventory) == 41


def test_a_bell_rings_after_the_commit_and_never_without_one(
    database: Database, inventory: Inventory, bells: Bells
) -> None:
    with pytest.raises(RuntimeError):
        assign_and_fail(database, inventory)
    assert bells.rung == []

    seq_after(database, inventory)

    assert bells.rung == [(CAM, SLOT, 1)]


def test_a_birth_rings_again_for_what_is_not_settled_and_only_for_that(
    database: Database, inventory: Inventory, bells: Bells
) -> None:
    seq_after(database, inventory)
    with database.session() as session:
        inventory.apply_birth(session, birth("s1"), NOW)
    assert bells.rung[1:] == [(CAM, SLOT, 1)]

    with database.session() as session:
        inventory.apply_reported(session, report(seq=1, revision=1), NOW)
        inventory.apply_birth(session, birth("s2"), NOW)

    assert len(bells.rung) == 2


def test_an_expired_assignment_is_neither_rung_for_nor_handed_out(
    database: Database, inventory: Inventory, bells: Bells
) -> None:
    with database.session() as session:
        inventory.assign(session, CAM, SLOT, draft(lifetime_s=10.0), NOW)
    bells.rung.clear()

    with database.session() as session:
        inventory.apply_birth(session, birth("s1"), NOW + 11)

        assert inventory.assignments_for(session, CAM, NOW + 11) == []
    assert bells.rung == []


def test_the_newest_revision_wins_whatever_order_reports_arrive_in(database: Database, inventory: Inventory) -> None:
    with database.session() as session:
        assert inventory.apply_reported(session, report(1, revision=5, state="confirmed"), NOW)
        assert not inventory.apply_reported(session, report(1, revision=4, state="fetching"), NOW)

        reported = inventory.slot(session, CAM, SLOT).reported
    assert reported is not None
    assert reported.state == "confirmed"


def test_the_will_of_an_older_session_is_ignored(database: Database, inventory: Inventory) -> None:
    with database.session() as session:
        inventory.apply_birth(session, birth("old"), NOW)
        inventory.apply_birth(session, birth("new"), NOW)
        inventory.apply_status(session, Status(device=CAM, state="lost", session="old"), NOW)
        assert connection(session, inventory) == "ready"

        inventory.apply_status(session, Status(device=CAM, state="lost", session="new"), NOW)
        assert connection(session, inventory) == "lost"


def test_a_restored_server_adopts_what_devices_know_and_orders_nothing_older(
    database: Database, inventory: Inventory
) -> None:
    seq_after(database, inventory)
    running = Running(seq=9, release=RELEASE, variant=VariantId("f"), variant_digest=RELEASE)
    with database.session() as session:
        slots = {SLOT: SlotSummary(seq=9, state="confirmed", revision=70, running=running)}
        inventory.apply_birth(session, birth("s1", slots), NOW)

        view = inventory.slot(session, CAM, SLOT)
        assert inventory.assignments_for(session, CAM, NOW) == []
    assert view.desired is not None
    assert (view.desired.seq, view.desired.release) == (9, RELEASE)
    assert seq_after(database, inventory) == 10


def test_a_wiped_device_is_heard_again_and_its_numbers_stay_above_the_old_ones(
    database: Database, inventory: Inventory
) -> None:
    with database.session() as session:
        inventory.apply_reported(session, report(seq=40, revision=900), NOW)
        inventory.register(session, CAM, labels={}, facts=None, now=NOW)

        assert inventory.apply_reported(session, report(seq=0, revision=1, state="idle"), NOW)
    assert seq_after(database, inventory) == 41


def test_numbers_no_honest_device_counts_to_are_refused(database: Database, inventory: Inventory) -> None:
    with database.session() as session, pytest.raises(ContractError):
        inventory.apply_reported(session, report(seq=2**63, revision=1), NOW)


def test_nothing_is_assigned_to_a_revoked_device(database: Database, inventory: Inventory) -> None:
    with database.session() as session:
        inventory.revoke(session, CAM, NOW)
    with pytest.raises(Conflict):
        seq_after(database, inventory)


def test_a_device_cannot_overwrite_a_label_that_the_operator_gave(database: Database, inventory: Inventory) -> None:
    with database.session() as session:
        inventory.apply_birth(session, birth("s1", labels={"site": "mars", "ring": "canary"}), NOW)

        assert dict(inventory.device(session, CAM).labels) == {"site": "bonn", "ring": "canary"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("site=bonn", True),
        ("site==bonn, ring != canary", True),
        ("site in (bonn, kiel), ring", False),
        ("!ring", True),
        ("site notin (bonn)", False),
        ("other notin (x)", True),
        ("id=cam-1", True),
    ],
)
def test_selectors_read_as_in_kubernetes(database: Database, inventory: Inventory, text: str, matches: bool) -> None:
    with database.session() as session:
        found = inventory.devices(session, parse_selector(text))

    assert bool(found) is matches


@pytest.mark.parametrize("text", ["a=b,", ",", "a b", "a=b c", "a in b", "a in (b", "=x", "a=b,,c=d", "a=!"])
def test_half_a_selector_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_selector(text)
