"""Releases: complete, consistent, signed by their own team, and served verbatim."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from converters.release.signing import sign_release
from edge_runtime.contract import device_api
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import ModelName, Version
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.trust.keys import SigningKey
from fleet_server.errors import Conflict
from fleet_server.identity.model import Role
from tests.fakes import documents
from tests.fakes.server import LocalFleet

MODEL = ModelName(documents.release_manifest().name)


@dataclass(frozen=True)
class Team:
    """An ML team: its key, and where it keeps its metadata."""

    fleet: LocalFleet
    folder: Path
    key: SigningKey
    model: ModelName = MODEL

    def build(self, version: str, **changes: object) -> Path:
        layout = self.folder / f"{self.model}-{version}-{len(list(self.folder.iterdir()))}"
        documents.write_release(layout, version, **changes)
        return layout

    def sign(self, layout: Path, key: SigningKey | None = None, *, afresh: bool = False) -> str:
        current = None if afresh else self.fleet.context.repository.model_metadata(self.model)
        target = self.folder / "models.json"
        target.unlink(missing_ok=True)
        now = time.time() + (60 if afresh else 0)  # its version, which is above everything signed before
        return sign_release(layout, key or self.key, target, current, now=now).read_text()

    def upload(self, layout: Path) -> None:
        for blob in LayoutFolder(layout).blobs():
            content = LayoutFolder(layout).path_of(blob.digest).read_bytes()
            path = f"/api/v1/releases/blobs/{blob.digest}"
            answer = self.fleet.people.put(path, content=content, headers=self.headers)
            assert answer.status_code == 201

    def push(self, layout: Path, metadata: str, *withdraws: str):  # type: ignore[no-untyped-def]
        version, index = LayoutFolder(layout).read_index()
        body = {"model": self.model, "version": version, "release_digest": index.digest, "metadata": metadata}
        body |= {"withdraws": list(withdraws)}
        return self.fleet.people.post("/api/v1/releases", json=body, headers=self.headers)

    @property
    def headers(self) -> dict[str, str]:
        return self.fleet.key(Role.RELEASER)


@pytest.fixture(scope="module")
def team(fleet: LocalFleet, tmp_path_factory: pytest.TempPathFactory) -> Team:
    key = SigningKey.generate()
    repository = fleet.context.repository
    repository.authorise(MODEL, key.public, repository.offline, time.time())
    return Team(fleet, tmp_path_factory.mktemp("team"), key)


def test_a_signed_complete_release_is_accepted_and_pushing_it_again_changes_nothing(team: Team) -> None:
    layout = team.build("1.0.0")
    team.upload(layout)
    metadata = team.sign(layout)

    first, second = team.push(layout, metadata), team.push(layout, metadata)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    detail = team.fleet.people.get(f"/api/v1/releases/{MODEL}/1.0.0", headers=team.headers).json()
    assert [variant["id"] for variant in detail["variants"]] == ["ort-fp32", "ort-int8"]


def test_a_release_signed_by_a_foreign_key_is_refused(team: Team) -> None:
    layout = team.build("1.1.0")
    team.upload(layout)

    answer = team.push(layout, team.sign(layout, SigningKey.generate()))

    assert answer.status_code == 422
    assert team.fleet.people.get(f"/api/v1/releases/{MODEL}/1.1.0", headers=team.headers).status_code == 404


def test_a_release_is_refused_while_any_blob_is_missing_even_one_that_only_devices_read(team: Team) -> None:
    layout = team.build("1.2.0")
    team.upload(layout)
    metadata = team.sign(layout)
    team.fleet.context.releases.blobs.path_of(digest_of(b"# digits\n")).unlink()

    incomplete = team.push(layout, metadata)
    team.upload(layout)

    assert (incomplete.status_code, incomplete.json()["code"]) == (422, "contract")
    assert team.push(layout, metadata).status_code == 201


def test_metadata_that_names_another_digest_is_refused(team: Team) -> None:
    layout, other = team.build("1.3.0"), team.build("1.3.0", task="another")
    team.upload(other)

    answer = team.push(other, team.sign(layout))

    assert answer.status_code == 422
    assert "does not list this digest" in answer.json()["detail"]


def test_a_version_pushed_again_with_another_digest_is_a_conflict(team: Team) -> None:
    layout = team.build("2.0.0")
    team.upload(layout)
    assert team.push(layout, team.sign(layout)).status_code == 201
    other = team.build("2.0.0", task="another")
    team.upload(other)

    assert team.push(other, "{}").status_code == 409


def test_bytes_that_are_not_their_digest_are_refused_and_leave_nothing(team: Team) -> None:
    digest = digest_of(b"promised")

    answer = team.fleet.people.put(f"/api/v1/releases/blobs/{digest}", content=b"other", headers=team.headers)

    assert answer.status_code == 422
    assert team.fleet.people.head(f"/api/v1/releases/blobs/{digest}", headers=team.headers).status_code == 404
    assert list((team.fleet.context.settings.data_dir / "releases" / "stage").iterdir()) == []


def test_devices_pull_blobs_from_any_byte_on_and_only_those_of_accepted_releases(team: Team) -> None:
    layout = team.build("3.0.0")
    team.upload(layout)
    assert team.push(layout, team.sign(layout)).status_code == 201
    _, index = LayoutFolder(layout).read_index()
    whole = LayoutFolder(layout).path_of(index.digest).read_bytes()
    device = team.fleet.device(team.fleet.enrol("puller-1"))
    path, tag = device_api.manifest_path(MODEL, index.digest), f'"{index.digest}"'

    rest = device.get(path, headers={"Range": "bytes=100-", "If-Range": tag})
    stale = device.get(path, headers={"Range": "bytes=100-", "If-Range": '"sha256:other"'})
    team.fleet.people.put(f"/api/v1/releases/blobs/{digest_of(b'loose')}", content=b"loose", headers=team.headers)

    assert (rest.status_code, rest.content, rest.headers["etag"]) == (206, whole[100:], tag)
    assert (stale.status_code, stale.content) == (200, whole)
    assert device.get(device_api.blob_path(MODEL, digest_of(b"loose"))).status_code == 404


def test_devices_get_the_metadata_and_nothing_else_of_that_folder(team: Team) -> None:
    device = team.fleet.device(team.fleet.enrol("puller-2"))

    assert device.get(device_api.tuf_path("timestamp.json")).status_code == 200
    for name in ("..%2fkeys%2fdirector.key", "director.key", "99.root.json"):
        assert device.get(device_api.tuf_path(name)).status_code == 404


def test_metadata_that_was_not_signed_on_top_of_the_servers_withdraws_nothing_unsaid(
    fleet: LocalFleet, tmp_path: Path
) -> None:
    team = Team(fleet, tmp_path, SigningKey.generate(), ModelName("owls"))
    fleet.context.repository.authorise(team.model, team.key.public, fleet.context.repository.offline, time.time())
    first, second = team.build("1.0.0", name="owls"), team.build("1.1.0", name="owls")
    team.upload(first)
    team.upload(second)
    assert team.push(first, team.sign(first)).status_code == 201
    afresh = team.sign(second, afresh=True)

    refused, meant = team.push(second, afresh), team.push(second, afresh, "1.0.0")

    assert refused.status_code == 409
    assert "it no longer lists 1.0.0, which devices would then refuse" in refused.json()["detail"]
    assert meant.status_code == 201
    with (
        fleet.context.database.reading() as session,
        pytest.raises(Conflict, match=r"cannot offer release 'owls' '1\.0\.0': its team has withdrawn it"),
    ):
        fleet.context.releases.offered(session, team.model, Version("1.0.0"))
    listed = fleet.people.get("/api/v1/releases", params={"model": "owls"}, headers=team.headers).json()["items"]
    assert {one["version"]: one["withdrawn"] for one in listed} == {"1.0.0": True, "1.1.0": False}
