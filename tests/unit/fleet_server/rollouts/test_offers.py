"""What a device is offered on the way forward and on the way back."""


from msgspec import structs

from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.variant_choice import OfferedVariant
from fleet_server.rollouts.model import RolloutId, RolloutPlan
from fleet_server.rollouts.offers import back_draft, class_of, forward_draft, offer
from tests.fakes import documents
from tests.fakes.fleet import SLOT, PlayedFleet

FLOAT, INT8 = digest_of(b"float"), digest_of(b"int8")
VARIANTS = (
    OfferedVariant(FLOAT, documents.variant_manifest()),
    OfferedVariant(INT8, documents.variant_manifest("ort-int8", "int8")),
)
PLAN = RolloutPlan(
    model=documents.MODEL, version=documents.VERSION, release=documents.RELEASE, slot=SLOT, selector="", waves=(),
    deadline_s=30 * 86_400.0,
)  # fmt: skip


def order(winner: Digest | None = None, latency_ms: float | None = None) -> list[tuple[str, str]]:
    variants = (structs.replace(VARIANTS[0], latency_ms=latency_ms), VARIANTS[1])
    found = offer(variants, documents.facts(), winner, 3)
    return [(suggestion.variant, suggestion.because) for suggestion in found.suggestions]


def test_the_winner_of_a_class_comes_first_and_alone_is_tried() -> None:
    assert order(winner=FLOAT)[0] == ("ort-fp32", "it won on a device of this class")
    assert offer(VARIANTS, documents.facts(), FLOAT, 3).max_trials == 1


def test_a_winner_that_does_not_fit_this_device_leaves_it_its_trials() -> None:
    assert offer(VARIANTS, documents.facts(), digest_of(b"for another engine"), 3).max_trials == 3


def test_what_was_measured_comes_before_guesses() -> None:
    assert order(latency_ms=1.5)[0] == ("ort-fp32", "1.5 ms was measured on this class")


def test_an_accelerator_is_named() -> None:
    target = structs.replace(documents.variant_manifest().target, accelerator="cuda:sm_87")
    manifest = documents.variant_manifest(target=target)
    facts = documents.facts(accelerators=["cuda:sm_87"])

    found = offer((OfferedVariant(FLOAT, manifest),), facts, None, 3)

    assert found.suggestions[0].because == "it uses the device's cuda:sm_87"


def test_classes_differ_by_engines_and_not_by_disk() -> None:
    facts = documents.facts()

    assert class_of(facts) == class_of(documents.facts(disk_free_bytes=1))
    assert class_of(facts) != class_of(documents.facts(engines=[]))


def test_an_assignment_outlives_its_deadline(fleet: PlayedFleet) -> None:
    with fleet.database.reading() as session:
        release = fleet.releases.detail(fleet.releases.get(session, documents.MODEL, documents.VERSION))
    offered = offer(release.offered, documents.facts(), None, 3)

    draft = forward_draft(RolloutId("r-1"), PLAN, release, offered)

    assert draft.lifetime_s == PLAN.deadline_s


def test_a_variant_that_is_gone_from_its_release_opens_the_whole_release(fleet: PlayedFleet) -> None:
    with fleet.database.reading() as session:
        release = fleet.releases.detail(fleet.releases.get(session, documents.MODEL, documents.VERSION))

    draft = back_draft(RolloutId("r-1"), PLAN, documents.running(), release)

    assert len(draft.candidates) == 2
    assert draft.max_trials == PLAN.max_trials
