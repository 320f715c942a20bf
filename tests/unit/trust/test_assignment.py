import pytest

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import ASSIGNMENT_PAYLOAD_TYPE, Assignment, Candidate, Policy
from edge_runtime.contract.errors import ContractError, TrustError, UnsupportedFeature
from edge_runtime.trust import dsse
from edge_runtime.trust.assignment import sign_assignment, verify_assignment
from edge_runtime.trust.keys import SigningKey
from edge_runtime.trust.repository import load_repository
from edge_runtime.trust.verifier import verify_release
from tests.fakes.trust_forge import DEVICE, INDEX, NOW, SLOT, VARIANT, VARIANT_DIGEST, Forge, assignment

NO_RELEASE = {"kind": "none", "target": None, "release": None, "length": None, "candidates": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 0},
        {"seq": 2**53 + 1},
        {"slot": "../etc"},
        {"issued": NOW, "expires": NOW},
        {"issued": -1.0},
        {"policy": Policy(soak_s=-1.0)},
        {"max_trials": 0},
        {"target": None},
        {"target": "faces/1"},
        {"release": "md5:1"},
        {"length": 0},
        {"length": 2**40},
        {"candidates": [Candidate(id=VARIANT, digest=VARIANT_DIGEST)] * 2},
        {**NO_RELEASE, "length": 5},
    ],
)
def test_an_assignment_that_contradicts_itself_is_neither_signed_nor_accepted(changes: dict[str, object]) -> None:
    order, key = assignment(**changes), SigningKey.generate()
    keys = {key.public.key_id: key.public}
    envelope = dsse.sign(encode(order), ASSIGNMENT_PAYLOAD_TYPE, key)

    with pytest.raises(ContractError):
        sign_assignment(order, key)
    with pytest.raises(TrustError):
        verify_assignment(envelope, keys=keys, device=DEVICE, now=NOW - 1, highest_seq={SLOT: -1})


def test_an_assignment_to_run_nothing_is_accepted_but_verifies_no_release() -> None:
    forge = Forge()
    empty = assignment(**NO_RELEASE)

    accepted = _round_trip(empty, forge.director_key)

    assert accepted == empty
    with pytest.raises(TrustError, match="names no release"):
        verify_release(accepted, load_repository(forge, forge.first_root, now=NOW, floors={}), INDEX, NOW)


def test_a_new_runtime_is_refused_as_a_feature_this_agent_lacks() -> None:
    forge = Forge()
    accepted = _round_trip(assignment(kind="runtime"), forge.director_key)

    with pytest.raises(UnsupportedFeature):
        verify_release(accepted, load_repository(forge, forge.first_root, now=NOW, floors={}), INDEX, NOW)


def test_sequence_numbers_of_slots_are_independent() -> None:
    key = SigningKey.generate()
    keys = {key.public.key_id: key.public}
    envelope = sign_assignment(assignment(seq=1), key)

    accepted = verify_assignment(envelope, keys=keys, device=DEVICE, now=NOW, highest_seq={"other": 9})  # type: ignore[dict-item]

    assert accepted.seq == 1


def _round_trip(order: Assignment, key: SigningKey) -> Assignment:
    envelope = sign_assignment(order, key)
    return verify_assignment(envelope, keys={key.public.key_id: key.public}, device=DEVICE, now=NOW, highest_seq={})
