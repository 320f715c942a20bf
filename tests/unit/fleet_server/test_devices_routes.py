"""The devices' listener: who may ask what."""

from __future__ import annotations

import time

import msgspec
import pytest

from edge_runtime.contract import device_api
from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_state import Birth, DirectorAnswer, EnrolmentRequest, IdentityGrant, RenewalRequest
from edge_runtime.contract.ids import DeviceId
from edge_runtime.trust.assignment import verify_assignment, verify_time
from fleet_server.app import create_devices_app
from fleet_server.db import raw_connection
from fleet_server.identity import audit
from fleet_server.inventory.model import AssignmentDraft
from tests.fakes import documents
from tests.fakes.server import DeviceKey, LocalFleet, every_route

NONCE = "0123456789abcdef"


def enrolment(claim: str, device: str, key: DeviceKey | None = None, cn: str | None = None) -> bytes:
    request = (key or DeviceKey()).request(cn or device)
    return encode(EnrolmentRequest(claim=claim, device=DeviceId(device), csr_pem=request))


def test_no_route_but_enrolment_answers_without_a_certificate(fleet: LocalFleet) -> None:
    stranger = fleet.device(None)
    routes = list(every_route(create_devices_app(fleet.context).routes))
    assert len(routes) >= 9

    for route in routes:
        path = route.path.replace("{model}", "digits").replace("{digest}", "sha256:" + "0" * 64)
        for method in route.methods or ():
            answer = stranger.request(method, path.replace("{file_name}", "1.root.json"))
            if route.path == device_api.ENROL:
                assert answer.status_code == 422
            else:
                assert answer.status_code == 401, f"{method} {route.path}"
                assert method == "HEAD" or answer.json()["code"] == "unauthenticated"


def test_paths_that_do_not_exist_tell_a_stranger_nothing(fleet: LocalFleet) -> None:
    assert fleet.device(None).get("/no/such/path").status_code == 401


def test_a_claim_works_once_and_the_message_says_so(fleet: LocalFleet) -> None:
    claim = fleet.invite().claim
    stranger = fleet.device(None)

    first = stranger.post(device_api.ENROL, content=enrolment(claim, "once-1"))
    second = stranger.post(device_api.ENROL, content=enrolment(claim, "once-2"))

    assert first.status_code == 200
    assert second.status_code == 403
    assert "the claim was used already" in second.json()["detail"]


def test_an_enrolment_whose_answer_got_lost_may_be_repeated_with_the_same_key(fleet: LocalFleet) -> None:
    claim, key = fleet.invite().claim, DeviceKey()
    stranger = fleet.device(None)

    answers = [stranger.post(device_api.ENROL, content=enrolment(claim, "again-1", key)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize(
    ("prepare", "device", "code"),
    [
        (lambda fleet: "wrong", "new-1", "claim_unknown"),
        (lambda fleet: fleet.invite("bound-1").claim, "new-2", "claim_other_device"),
        (lambda fleet: fleet.invite(ttl_s=1e-6).claim, "new-3", "claim_expired"),
    ],
)
def test_a_claim_that_does_not_fit_is_refused(fleet: LocalFleet, prepare, device: str, code: str) -> None:  # type: ignore[no-untyped-def]
    answer = fleet.device(None).post(device_api.ENROL, content=enrolment(prepare(fleet), device))

    assert (answer.status_code, answer.json()["code"]) == (403, code)


def test_a_request_for_another_name_is_refused_and_keeps_the_claim_unused(fleet: LocalFleet) -> None:
    claim = fleet.invite().claim
    stranger = fleet.device(None)

    foreign = stranger.post(device_api.ENROL, content=enrolment(claim, "own-1", cn="victim"))
    honest = stranger.post(device_api.ENROL, content=enrolment(claim, "own-1"))

    assert foreign.status_code == 422
    assert "another name" in foreign.json()["detail"]
    assert honest.status_code == 200


def test_an_unbound_claim_cannot_take_over_a_device_that_exists(fleet: LocalFleet) -> None:
    fleet.enrol("existing-1")

    answer = fleet.device(None).post(device_api.ENROL, content=enrolment(fleet.invite().claim, "existing-1"))

    assert (answer.status_code, answer.json()["code"]) == (403, "claim_not_bound")


def test_nobody_becomes_the_server_itself(fleet: LocalFleet) -> None:
    answer = fleet.device(None).post(device_api.ENROL, content=enrolment(fleet.invite().claim, "fleet-server"))

    assert answer.status_code == 409


def test_a_replaced_device_keeps_its_name_and_the_old_unit_is_refused(fleet: LocalFleet) -> None:
    old = fleet.device(fleet.enrol("replaced-1"))
    new = fleet.device(fleet.enrol("replaced-1"))

    assert new.get(device_api.ASSIGNMENTS, params={"nonce": NONCE}).status_code == 200
    assert old.get(device_api.ASSIGNMENTS, params={"nonce": NONCE}).status_code == 401


def test_one_devices_certificate_cannot_speak_for_another(fleet: LocalFleet) -> None:
    intruder = fleet.device(fleet.enrol("intruder-1"))
    fleet.enrol("victim-1")
    birth = documents.documents()["birth"]
    forged = encode(msgspec.structs.replace(birth, device=DeviceId("victim-1")))

    answer = intruder.post(device_api.BIRTH, content=forged)

    assert answer.status_code == 422
    assert "another device" in answer.json()["detail"]


def test_a_revoked_device_is_refused_on_its_next_request(fleet: LocalFleet) -> None:
    device = fleet.device(fleet.enrol("revoked-1"))
    assert device.get(device_api.ASSIGNMENTS, params={"nonce": NONCE}).status_code == 200

    fleet.context.reception.revoke(DeviceId("revoked-1"), by="test", now=time.time(), decommission=False)

    refused = device.get(device_api.ASSIGNMENTS, params={"nonce": NONCE})
    assert refused.status_code == 401
    assert "revoked" in refused.json()["detail"]


def test_a_certificate_this_server_did_not_issue_is_refused(fleet: LocalFleet, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from tests.fakes.pki import make_ca

    foreign = make_ca(tmp_path).issue("victim-2")
    fleet.enrol("victim-2")

    answer = fleet.device(foreign.cert_file.read_text()).get(device_api.ASSIGNMENTS, params={"nonce": NONCE})

    assert answer.status_code == 401


def test_a_device_that_slept_may_renew_and_do_nothing_else(fleet: LocalFleet) -> None:
    name, key = DeviceId("sleeper-1"), DeviceKey()
    long_ago = time.time() - 60 * 86_400
    request = EnrolmentRequest(claim=fleet.invite(name).claim, device=name, csr_pem=key.request(name))
    slept = fleet.device(fleet.context.reception.enrol(request, long_ago).certificate_pem)

    refused = slept.get(device_api.ASSIGNMENTS, params={"nonce": NONCE})
    renewed = slept.post(device_api.RENEW, content=encode(RenewalRequest(csr_pem=key.request(name))))

    assert (refused.status_code, renewed.status_code) == (401, 200)
    fresh = fleet.device(decode(renewed.content, IdentityGrant).certificate_pem)
    assert fresh.get(device_api.ASSIGNMENTS, params={"nonce": NONCE}).status_code == 200


def test_a_device_gets_its_own_assignments_signed_by_a_key_that_the_metadata_names(fleet: LocalFleet) -> None:
    name = DeviceId("assigned-1")
    device = fleet.device(fleet.enrol(name))
    example = documents.assignment()
    draft = AssignmentDraft(
        kind="model", target=example.target, release=example.release, length=100, candidates=tuple(example.candidates)
    )
    with fleet.context.database.session() as session:
        seq = fleet.context.inventory.assign(session, name, example.slot, draft, time.time())

    answer = decode(device.get(device_api.ASSIGNMENTS, params={"nonce": NONCE}).content, DirectorAnswer)

    keys = fleet.context.repository.trusted(time.time()).director_keys
    now = verify_time(answer.time, keys=keys, device=name, nonce=NONCE)
    (envelope,) = answer.assignments
    found = verify_assignment(envelope, keys=keys, device=name, now=now, highest_seq={})
    assert (found.seq, found.release) == (seq, example.release)


def test_a_question_without_a_usable_nonce_is_refused(fleet: LocalFleet) -> None:
    device = fleet.device(fleet.enrol("nonce-1"))

    assert device.get(device_api.ASSIGNMENTS, params={"nonce": "x"}).status_code == 422


def test_the_openapi_schema_of_the_devices_api_describes_its_documents(fleet: LocalFleet) -> None:
    schema = create_devices_app(fleet.context).openapi()

    body = schema["paths"][device_api.ENROL]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].rsplit("/", 1)[-1] in schema["components"]["schemas"]


def forget(fleet: LocalFleet, device: str, *tables: str) -> None:
    """What a database restored from a copy made before the device enrolled does not know."""
    columns = {"certificate": "device", "device": "id"}
    with fleet.context.database.session() as session:
        for table in tables:
            raw_connection(session).execute(f"DELETE FROM {table} WHERE {columns[table]} = ?", (device,))


def ask(fleet: LocalFleet, certificate_pem: str) -> int:
    return fleet.device(certificate_pem).get(device_api.ASSIGNMENTS, params={"nonce": NONCE}).status_code


def test_a_device_that_a_restored_database_has_forgotten_is_recalled_by_its_certificate(fleet: LocalFleet) -> None:
    name = DeviceId("forgotten-1")
    certificate = fleet.enrol(name)
    forget(fleet, name, "certificate", "device")

    assert ask(fleet, certificate) == 200
    born = Birth(device=name, session="s1", agent="test", facts=documents.facts(), slots={})
    assert fleet.device(certificate).post(device_api.BIRTH, content=encode(born)).is_success

    with fleet.context.database.reading() as session:
        found = fleet.context.inventory.device(session, name)
        told = audit.entries(session, action="device.recalled", subject=name)
    assert (found.standing, found.connection, found.session) == ("active", "ready", "s1")
    assert len(told) == 1


def test_a_forgotten_certificate_stays_out_when_a_newer_one_is_in_use_or_the_device_was_revoked(
    fleet: LocalFleet,
) -> None:
    replaced, revoked = fleet.enrol("twice-1"), fleet.enrol("outlaw-1")
    forget(fleet, "twice-1", "certificate")
    assert ask(fleet, fleet.enrol("twice-1")) == 200
    forget(fleet, "outlaw-1", "certificate")
    fleet.enrol("outlaw-1")
    fleet.context.reception.revoke(DeviceId("outlaw-1"), by="test", now=time.time(), decommission=False)

    assert (ask(fleet, replaced), ask(fleet, revoked)) == (401, 401)


def test_the_servers_own_certificates_are_no_devices(fleet: LocalFleet) -> None:
    folder = fleet.context.authority.folder

    answers = [ask(fleet, path.read_text()) for path in (folder / "server.crt", *folder.glob("*.client.crt"))]

    assert answers == [401, 401]
