"""Every attack on delivery that this project names, played by someone who owns the server, the network or a key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from tuf.api.metadata import DelegatedRole, Delegations

from edge_runtime.contract import reasons
from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import ASSIGNMENT_PAYLOAD_TYPE, SIGNED_TIME_PAYLOAD_TYPE, Assignment, Candidate
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.errors import DigestMismatch, TrustError
from edge_runtime.contract.ids import DeviceId, ModelName, TargetPath
from edge_runtime.trust import dsse
from edge_runtime.trust import metadata as tuf
from edge_runtime.trust.assignment import NotNewer, sign_assignment, sign_time, verify_assignment, verify_time
from edge_runtime.trust.keys import SigningKey
from edge_runtime.trust.repository import TrustedRepository, load_repository
from edge_runtime.trust.trusted_time import TimeFloor
from edge_runtime.trust.verifier import VerifiedRelease, verify_release
from tests.fakes.trust_forge import (
    DAY,
    DEVICE,
    DIGITS,
    INDEX,
    NOW,
    PATH,
    SLOT,
    VARIANT,
    Forge,
    assignment,
    index_bytes,
)


@pytest.fixture
def forge() -> Forge:
    return Forge()


def load(forge: Forge, floors: Mapping[str, int] | None = None, *, now: float = NOW) -> TrustedRepository:
    return load_repository(forge, forge.first_root, now=now, floors=floors or {}, models=(DIGITS,))


def accept(forge: Forge, envelope: str, *, now: float = NOW, highest: int = 0) -> Assignment:
    keys = load(forge).director_keys
    return verify_assignment(envelope, keys=keys, device=DEVICE, now=now, highest_seq={SLOT: highest})


def test_an_honest_release_is_verified_the_whole_way(forge: Forge) -> None:
    repository = load(forge)
    order = accept(forge, sign_assignment(assignment(), forge.director_key))

    release = verify_release(order, repository, INDEX, NOW)

    assert (release.path, release.digest, release.length) == (PATH, digest_of(INDEX), len(INDEX))
    assert [entry.id for entry in release.index.variants] == [VARIANT]


def test_a_release_signed_by_a_foreign_key_is_refused(forge: Forge) -> None:
    forge.model(1, key=SigningKey.generate())

    with pytest.raises(TrustError, match="0 of 1 required keys"):
        load(forge)


def test_a_timestamp_signed_by_a_foreign_key_is_refused(forge: Forge) -> None:
    forge.timestamp(1, key=SigningKey.generate())

    with pytest.raises(TrustError, match="0 of 1 required keys"):
        load(forge)


def test_a_director_alone_cannot_introduce_a_model(forge: Forge) -> None:
    evil = index_bytes("evil")
    order = assignment(release=digest_of(evil), length=len(evil))
    accepted = accept(forge, sign_assignment(order, forge.director_key))

    with pytest.raises(TrustError, match="the model's team signed"):
        verify_release(accepted, load(forge), evil, NOW)


def test_a_release_that_its_team_withdrew_is_refused(forge: Forge) -> None:
    forge.model(2, targets={})
    forge.snapshot(2, models={"models-digits": 2})
    forge.timestamp(2, snapshot=2)

    with pytest.raises(TrustError, match="withdrawn"):
        verify_release(assignment(), load(forge), INDEX, NOW)


def test_a_candidate_that_is_not_in_the_signed_release_is_refused(forge: Forge) -> None:
    order = assignment(candidates=[Candidate(id=VARIANT, digest=digest_of(b"other"))])
    envelope = sign_assignment(order, forge.director_key)

    with pytest.raises(TrustError, match="not in the release"):
        verify_release(accept(forge, envelope), load(forge), INDEX, NOW)


def test_tampered_bytes_of_a_release_are_refused(forge: Forge) -> None:
    with pytest.raises(DigestMismatch):
        verify_release(assignment(), load(forge), INDEX.replace(b"float", b"flaot"), NOW)


def test_older_metadata_than_seen_before_is_refused(forge: Forge) -> None:
    old = dict(forge.files)
    forge.snapshot(2)
    forge.timestamp(2, snapshot=2)
    floors = load(forge).versions

    forge.files = old

    with pytest.raises(TrustError, match="timestamp metadata: version 1 is older than 2"):
        load(forge, floors)


def test_an_older_model_role_under_new_online_signatures_is_refused(forge: Forge) -> None:
    forge.model(2)
    forge.snapshot(2, models={"models-digits": 2})
    forge.timestamp(2, snapshot=2)
    floors = load(forge).versions
    own = {mark: version for mark, version in floors.items() if not mark.startswith("snapshot:")}

    forge.snapshot(3, models={"models-digits": 1})
    forge.timestamp(3, snapshot=3)

    with pytest.raises(TrustError, match=r"takes 'models-digits\.json' back below version 2"):
        load(forge, floors)
    with pytest.raises(TrustError, match="models-digits metadata: version 1 is older than 2"):
        load(forge, own)


def test_a_model_that_the_snapshot_forgets_is_refused_and_keeps_nothing_else_from_being_trusted(forge: Forge) -> None:
    floors = load(forge).versions
    forge.snapshot(2, models={})
    forge.timestamp(2, snapshot=2)

    rest = load_repository(forge, forge.first_root, now=NOW, floors=floors)

    assert rest.director_keys
    with pytest.raises(TrustError, match=r"takes 'models-digits\.json' back below version 1"):
        rest.with_model(ModelName("digits"), forge, now=NOW)
    with pytest.raises(TrustError, match=r"takes 'models-digits\.json' back below version 1"):
        load(forge, rest.versions)


def test_a_snapshot_that_takes_the_targets_back_is_refused_altogether(forge: Forge) -> None:
    floors = {**load(forge).versions}
    floors.update({mark: 2 for mark in floors if mark.startswith("snapshot:targets.json@")})

    with pytest.raises(TrustError, match=r"takes 'targets\.json' back below version 2"):
        load_repository(forge, forge.first_root, now=NOW, floors=floors)


def test_an_older_root_than_seen_before_is_refused(forge: Forge) -> None:
    forge.root(2)
    floors = load(forge).versions
    del forge.files["2.root.json"]

    with pytest.raises(TrustError, match="root: version 1 is older than 2"):
        load(forge, floors)


def test_a_directors_key_put_in_by_the_server_is_refused(forge: Forge) -> None:
    name = next(name for name in forge.files if name.endswith("director-keys.json"))
    forge.files[name] = tuf.write_director_keys([SigningKey.generate().public])

    with pytest.raises(DigestMismatch, match="director's keys"):
        load(forge)


def test_a_frozen_repository_is_refused_once_its_timestamp_expires(forge: Forge) -> None:
    load(forge, now=NOW + 6.9 * DAY)

    with pytest.raises(TrustError, match="expired") as refusal:
        load(forge, now=NOW + 7 * DAY)

    assert refusal.value.code == reasons.EXPIRED


def test_a_model_role_is_not_loaded_under_metadata_that_expired_since(forge: Forge) -> None:
    repository = load_repository(forge, forge.first_root, now=NOW, floors={})

    with pytest.raises(TrustError, match="refresh it first"):
        repository.with_model(DIGITS, forge, now=NOW + 8 * DAY)


def test_metadata_that_expires_after_it_was_loaded_starts_no_installation(forge: Forge) -> None:
    repository = load(forge)

    with pytest.raises(TrustError) as refusal:
        verify_release(assignment(), repository, INDEX, NOW + 8 * DAY)

    assert refusal.value.code == reasons.EXPIRED


def test_roles_of_different_snapshots_cannot_be_mixed(forge: Forge) -> None:
    older = forge.files["1.models-digits.json"]
    forge.model(2)
    forge.snapshot(2, models={"models-digits": 2})
    forge.timestamp(2, snapshot=2)
    forge.files["2.models-digits.json"] = older

    with pytest.raises(TrustError, match="version 1 arrived where 2 was promised"):
        load(forge)


def test_another_genuine_file_of_the_same_version_is_refused_by_its_digest(forge: Forge) -> None:
    forge.snapshot(2, hashed=True)
    forge.timestamp(2, snapshot=2)
    load(forge)

    forge.model(1, targets={"models/digits/9.9": (digest_of(INDEX), len(INDEX))})

    with pytest.raises(DigestMismatch):
        load(forge)


def test_new_online_keys_undo_a_version_driven_sky_high(forge: Forge) -> None:
    forge.snapshot(2**50)
    forge.timestamp(2**50, snapshot=2**50)
    floors = load(forge).versions
    forge.snapshot_key, forge.timestamp_key = SigningKey.generate(), SigningKey.generate()

    forge.snapshot(3)
    forge.timestamp(3, snapshot=3)
    with pytest.raises(TrustError, match="0 of 1 required keys"):
        load(forge, floors)
    forge.root(2)

    assert load(forge, floors).target(PATH).digest == digest_of(INDEX)


def test_new_online_keys_do_not_reopen_rollback_of_what_other_keys_sign(forge: Forge) -> None:
    forge.model(5)
    forge.snapshot(2, models={"models-digits": 5})
    forge.timestamp(2, snapshot=2)
    floors = load(forge).versions
    forge.snapshot_key, forge.timestamp_key = SigningKey.generate(), SigningKey.generate()
    forge.root(2)
    forge.snapshot(1, models={"models-digits": 1})
    forge.timestamp(1)

    with pytest.raises(TrustError, match="models-digits metadata: version 1 is older than 5"):
        load(forge, floors)


def test_a_version_that_no_store_could_keep_is_refused(forge: Forge) -> None:
    forge.timestamp(2**60)

    with pytest.raises(TrustError, match="impossible"):
        load(forge)


def test_empty_local_metadata_does_not_reopen_rollback(forge: Forge) -> None:
    old = dict(forge.files)
    forge.snapshot(4)
    forge.timestamp(4, snapshot=4)
    floors = load(forge).versions

    # A power cut left nothing but empty files, and the server replays what it showed long ago.
    forge.files = {**old, "timestamp.json": b""}
    with pytest.raises(TrustError):
        load(forge, floors)
    forge.files = old
    with pytest.raises(TrustError, match="older than 4"):
        load(forge, floors)


def test_a_root_signed_by_old_and_new_keys_is_followed(forge: Forge) -> None:
    old_key, forge.root_key = forge.root_key, SigningKey.generate()
    forge.root(2, old_key, forge.root_key)
    forge.root(3)

    assert load(forge).root == forge.files["3.root.json"]


@pytest.mark.parametrize("signer", ["old", "new", "foreign"])
def test_a_root_that_lacks_one_of_both_signatures_is_refused(forge: Forge, signer: str) -> None:
    keys = {"old": forge.root_key, "new": SigningKey.generate(), "foreign": SigningKey.generate()}
    forge.root_key = keys["new"]
    forge.root(2, keys[signer])

    with pytest.raises(TrustError, match="root 2 by its"):
        load(forge)


def test_a_root_that_skips_a_version_is_refused(forge: Forge) -> None:
    forge.root(3)
    forge.files["2.root.json"] = forge.files.pop("3.root.json")

    with pytest.raises(TrustError, match="it calls itself version 3"):
        load(forge)


def test_an_expired_root_is_refused(forge: Forge) -> None:
    with pytest.raises(TrustError, match="root") as refusal:
        load(forge, now=NOW + 1001 * DAY)

    assert refusal.value.code == reasons.EXPIRED


def test_a_model_role_cannot_claim_another_models_path(forge: Forge) -> None:
    forge.model(1, targets={"models/faces/1.0": (digest_of(INDEX), len(INDEX))})

    with pytest.raises(TrustError, match="belongs to model faces"):
        load(forge)


def test_a_models_path_is_looked_up_in_its_own_role_only(forge: Forge) -> None:
    with pytest.raises(TrustError, match="not loaded"):
        load(forge).target(TargetPath("models/faces/1.0"))
    with pytest.raises(TrustError, match="no key is authorised"):
        load(forge).with_model(ModelName("faces"), forge, now=NOW)


def test_a_role_delegated_more_than_its_models_paths_is_refused(forge: Forge) -> None:
    role = DelegatedRole("models-digits", [forge.team_key.public.key_id], 1, True, ["models/*/*"])
    forge.targets(1, roles={"models-digits": role})

    with pytest.raises(TrustError, match="not delegated exactly"):
        load(forge)


def test_a_model_role_cannot_delegate_further(forge: Forge) -> None:
    team = forge.team_key.public
    twice = {"models-faces": tuf.delegation_to(ModelName("faces"), [team.key_id])}
    forge.model(1, delegations=Delegations({team.key_id: tuf.tuf_key(team)}, twice))

    with pytest.raises(TrustError, match="delegates further"):
        load(forge)


@pytest.mark.parametrize(
    ("name", "cap"),
    [
        ("2.root.json", tuf.ROOT_MAX_BYTES),
        ("timestamp.json", tuf.TIMESTAMP_MAX_BYTES),
        ("1.snapshot.json", tuf.SNAPSHOT_MAX_BYTES),
        ("1.targets.json", tuf.TARGETS_MAX_BYTES),
        ("1.models-digits.json", tuf.TARGETS_MAX_BYTES),
    ],
)
def test_endless_metadata_is_cut_off_before_it_is_read(forge: Forge, name: str, cap: int) -> None:
    forge.files[name] = forge.files.get(name, b"{}") + b" " * cap

    with pytest.raises(TrustError, match="more than"):
        load(forge)

    assert dict(forge.asked)[name] == cap


def test_a_source_is_asked_for_no_more_than_the_role_before_promised(forge: Forge) -> None:
    forge.snapshot(2, hashed=True)
    forge.timestamp(2, snapshot=2)

    load(forge)

    assert dict(forge.asked)["1.models-digits.json"] == len(forge.files["1.models-digits.json"])


def test_another_devices_assignment_is_refused(forge: Forge) -> None:
    envelope = sign_assignment(assignment(device=DeviceId("cam-2")), forge.director_key)

    with pytest.raises(TrustError, match="it is for device 'cam-2'"):
        accept(forge, envelope)


@pytest.mark.parametrize("highest", [7, 8])
def test_a_replayed_assignment_is_refused(forge: Forge, highest: int) -> None:
    envelope = sign_assignment(assignment(seq=7), forge.director_key)

    with pytest.raises(NotNewer):
        accept(forge, envelope, highest=highest)


def test_a_higher_number_may_name_an_older_model(forge: Forge) -> None:
    assert accept(forge, sign_assignment(assignment(seq=9), forge.director_key), highest=8).target == PATH


def test_an_expired_assignment_is_refused(forge: Forge) -> None:
    envelope = sign_assignment(assignment(expires=NOW + DAY), forge.director_key)

    with pytest.raises(TrustError) as refusal:
        accept(forge, envelope, now=NOW + DAY)

    assert refusal.value.code == reasons.EXPIRED


def test_a_tampered_assignment_is_refused(forge: Forge) -> None:
    honest = sign_assignment(assignment(seq=7), forge.director_key)
    forged = dsse.sign(encode(assignment(seq=8)), ASSIGNMENT_PAYLOAD_TYPE, SigningKey.generate())
    mixed = (
        honest[: honest.index('"signatures"')].replace(honest.split('"')[3], forged.split('"')[3])
        + honest[honest.index('"signatures"') :]
    )

    with pytest.raises(TrustError, match="none of the trusted keys"):
        accept(forge, mixed)


def test_an_assignment_of_a_foreign_director_is_refused(forge: Forge) -> None:
    with pytest.raises(TrustError, match="none of the trusted keys"):
        accept(forge, sign_assignment(assignment(), SigningKey.generate()))


def test_a_signature_over_a_time_is_not_good_for_an_assignment(forge: Forge) -> None:
    as_time = dsse.sign(encode(assignment()), SIGNED_TIME_PAYLOAD_TYPE, forge.director_key)

    with pytest.raises(TrustError, match=r"not application/vnd\.edgefleet\.assignment"):
        accept(forge, as_time)
    with pytest.raises(TrustError, match="none of the trusted keys"):
        accept(forge, as_time.replace(SIGNED_TIME_PAYLOAD_TYPE, ASSIGNMENT_PAYLOAD_TYPE))


def test_a_replayed_time_is_refused(forge: Forge) -> None:
    keys = {forge.director_key.public.key_id: forge.director_key.public}
    envelope = sign_time(DEVICE, "n-1", NOW, forge.director_key)

    assert verify_time(envelope, keys=keys, device=DEVICE, nonce="n-1") == NOW
    with pytest.raises(TrustError, match="another question"):
        verify_time(envelope, keys=keys, device=DEVICE, nonce="n-2")
    with pytest.raises(TrustError, match="for device"):
        verify_time(envelope, keys=keys, device=DeviceId("cam-2"), nonce="n-1")


def test_a_clock_at_1970_accepts_no_frozen_repository(forge: Forge) -> None:
    floor = TimeFloor(build_s=NOW - 100 * DAY, floor_s=NOW + 8 * DAY)

    with pytest.raises(TrustError, match="expired"):
        load(forge, now=floor.now(system_s=0.0))


def test_a_clock_at_2050_stops_no_installation(forge: Forge) -> None:
    floor = TimeFloor(build_s=NOW - 100 * DAY, floor_s=NOW)

    repository = load(forge, now=floor.now(system_s=2_524_608_000.0))

    assert repository.target(PATH).length == len(INDEX)


def test_only_the_verifier_makes_a_verified_release(forge: Forge) -> None:
    genuine = verify_release(assignment(), load(forge), INDEX, NOW)

    with pytest.raises(TypeError):
        VerifiedRelease(genuine.assignment, genuine.path, genuine.digest, genuine.length, genuine.index, object())
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(genuine, digest=digest_of(b"evil"))


def test_a_device_that_slept_through_rotations_walks_all_of_them(forge: Forge) -> None:
    for version in range(2, 12):
        old_key, forge.root_key = forge.root_key, SigningKey.generate()
        forge.root(version, old_key, forge.root_key)

    assert load(forge).versions["root"] == 11
