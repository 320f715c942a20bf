"""The server's TUF repository and the team's signing, from bootstrap to a device that trusts the release."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from converters.errors import BadRecipe, CannotWrite
from converters.release.signing import keygen, sign_release
from edge_runtime.contract import reasons
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.errors import ContractError, TrustError
from edge_runtime.contract.ids import ModelName, TargetPath
from edge_runtime.trust.keys import PublicKey, SigningKey
from edge_runtime.trust.repository import TrustedRepository, load_repository
from fleet_server.errors import Conflict, NotFound
from fleet_server.releases.signing import TufRepository
from tests.fakes.documents import write_release
from tests.fakes.trust_forge import DAY, NOW

DIGITS = ModelName("digits")


class _Device:
    """A device over the files that the server would serve; keeps root and floors as the agent does."""

    def __init__(self, server: TufRepository) -> None:
        self._server = server
        self._root = server.root()
        self._floors: Mapping[str, int] = {}

    def fetch(self, file_name: str, max_bytes: int) -> bytes | None:
        try:
            return self._server.metadata(file_name)
        except NotFound:
            return None

    def refresh(self, now: float, *models: ModelName) -> TrustedRepository:
        repository = load_repository(self, self._root, now=now, floors=self._floors, models=models)
        self._root, self._floors = repository.root, repository.versions
        return repository


@pytest.fixture
def server(tmp_path: Path) -> TufRepository:
    repository = TufRepository(tmp_path / "data")
    repository.bootstrap(NOW)
    return repository


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    keygen(tmp_path / "model")
    return SigningKey.load(tmp_path / "model.key")


def sign(tmp_path: Path, key: SigningKey, version: str = "1.0.0", *, now: float = NOW) -> tuple[Digest, bytes]:
    digest = write_release(tmp_path / version, version)
    return digest, sign_release(tmp_path / version, key, None, None, now=now).read_bytes()


def forget_local_record(tmp_path: Path) -> None:
    (tmp_path / "models-digits.json").unlink()


def test_a_signed_release_reaches_a_device(tmp_path: Path, server: TufRepository, key: SigningKey) -> None:
    device = _Device(server)
    device.refresh(NOW)
    server.authorise(DIGITS, key.public, server.offline, NOW)
    digest, metadata = sign(tmp_path, key)

    accepted = server.accept_role(DIGITS, metadata, NOW)

    repository = device.refresh(NOW, DIGITS)
    target = repository.target(TargetPath("models/digits/1.0.0"))
    assert target.digest == digest
    assert accepted[target.path] == target
    assert server.model_metadata(DIGITS) == metadata
    assert list(repository.director_keys.values()) == [server.director_key.public]


def test_nothing_online_can_change_root_or_targets(server: TufRepository, tmp_path: Path) -> None:
    online = {SigningKey.load(path).public.key_id for path in (tmp_path / "data" / "keys").iterdir()}
    offline = {SigningKey.load(path).public.key_id for path in server.offline.glob("*.key")}

    assert len(online) == 3
    assert len(offline) == 2
    assert not online & offline
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in server.offline.glob("*.key"))


def test_the_server_works_without_its_offline_keys(tmp_path: Path, server: TufRepository, key: SigningKey) -> None:
    server.authorise(DIGITS, key.public, server.offline, NOW)
    server.offline.rename(tmp_path / "stick")

    again = TufRepository(tmp_path / "data")
    again.bootstrap(NOW)
    again.accept_role(DIGITS, sign(tmp_path, key)[1], NOW)
    assert again.refresh_if_due(NOW + 2 * DAY)

    assert not list(again.offline.iterdir())
    with pytest.raises(TrustError, match="cannot read signing key"):
        again.authorise(ModelName("faces"), key.public, again.offline, NOW)


def test_an_unauthorised_or_foreign_key_is_refused(tmp_path: Path, server: TufRepository, key: SigningKey) -> None:
    _, metadata = sign(tmp_path, key)

    with pytest.raises(TrustError, match="no key is authorised for it"):
        server.accept_role(DIGITS, metadata, NOW)
    server.authorise(DIGITS, SigningKey.generate().public, server.offline, NOW)
    with pytest.raises(TrustError, match="0 of 1 required keys"):
        server.accept_role(DIGITS, metadata, NOW)

    assert server.model_metadata(DIGITS) is None


def test_an_offline_key_of_another_fleet_changes_nothing(
    tmp_path: Path, server: TufRepository, key: SigningKey
) -> None:
    other = TufRepository(tmp_path / "other")
    other.bootstrap(NOW)
    before = server.metadata("timestamp.json")

    with pytest.raises(TrustError, match="targets metadata: 0 of 1 required keys"):
        server.authorise(DIGITS, key.public, other.offline, NOW)

    assert server.metadata("timestamp.json") == before


def test_a_version_pushed_again_with_another_digest_is_a_conflict(
    tmp_path: Path, server: TufRepository, key: SigningKey
) -> None:
    server.authorise(DIGITS, key.public, server.offline, NOW)
    server.accept_role(DIGITS, sign(tmp_path, key)[1], NOW)
    forget_local_record(tmp_path)
    write_release(tmp_path / "other", "1.0.0", task="other")
    for _ in range(2):
        changed = sign_release_without_record(tmp_path, key)

    with pytest.raises(Conflict, match="it was published as"):
        server.accept_role(DIGITS, changed, NOW)


def sign_release_without_record(tmp_path: Path, key: SigningKey) -> bytes:
    """Sign the other build of 1.0.0; the second time on top of the first, so that its version is above the server's."""
    return sign_release(tmp_path / "other", key, tmp_path / "elsewhere.json", None, now=NOW).read_bytes()


def test_metadata_that_is_not_newer_is_a_conflict_but_the_same_bytes_are_not(
    tmp_path: Path, server: TufRepository, key: SigningKey
) -> None:
    server.authorise(DIGITS, key.public, server.offline, NOW)
    _, first = sign(tmp_path, key)
    server.accept_role(DIGITS, first, NOW)
    timestamp = server.metadata("timestamp.json")
    server.accept_role(DIGITS, first, NOW)
    assert server.metadata("timestamp.json") == timestamp

    forget_local_record(tmp_path)
    with pytest.raises(Conflict, match="is not above 1"):
        server.accept_role(DIGITS, sign(tmp_path, key, "2.0.0")[1], NOW)


def test_expired_metadata_is_refused_at_the_door(tmp_path: Path, server: TufRepository, key: SigningKey) -> None:
    server.authorise(DIGITS, key.public, server.offline, NOW)
    _, metadata = sign(tmp_path, key, now=NOW - 400 * DAY)

    with pytest.raises(TrustError) as refusal:
        server.accept_role(DIGITS, metadata, NOW)

    assert refusal.value.code == reasons.EXPIRED


def test_the_timestamp_is_signed_anew_once_a_day(server: TufRepository) -> None:
    device = _Device(server)

    assert not server.refresh_if_due(NOW + 0.5 * DAY)
    assert server.refresh_if_due(NOW + 1.1 * DAY)
    device.refresh(NOW + 8 * DAY)
    with pytest.raises(TrustError, match="expired"):
        device.refresh(NOW + 9 * DAY)
    assert server.refresh_if_due(NOW + 60 * DAY)
    device.refresh(NOW + 60 * DAY)


def test_a_trust_folder_restored_from_a_backup_continues_above_what_devices_saw(
    tmp_path: Path, server: TufRepository
) -> None:
    device = _Device(server)
    backup = {path: path.read_bytes() for path in (tmp_path / "data" / "tuf").glob("*.json")}
    for hour in range(1, 4):
        server.refresh_if_due(NOW + hour * 2 * DAY)
    device.refresh(NOW + 6 * DAY)

    for path in (tmp_path / "data" / "tuf").glob("*.json"):
        path.unlink()
    for path, content in backup.items():
        path.write_bytes(content)
    server.refresh_if_due(NOW + 7 * DAY)

    device.refresh(NOW + 7 * DAY)


def restored(data: Path, backup: Mapping[Path, bytes], now: float) -> TufRepository:
    """The server started again on an older copy of its trust folder."""
    for path in (data / "tuf").glob("*.json"):
        path.unlink()
    for path, content in backup.items():
        path.write_bytes(content)
    again = TufRepository(data)
    again.begin_anew(now)
    return again


@pytest.mark.parametrize("signs_anew", [False, True])
def test_what_a_restored_server_forgot_holds_up_one_model_until_its_team_pushes_again(
    tmp_path: Path, server: TufRepository, key: SigningKey, signs_anew: bool
) -> None:
    server.authorise(DIGITS, key.public, server.offline, NOW)
    server.accept_role(DIGITS, sign(tmp_path, key)[1], NOW)
    device = _Device(server)
    backup = {path: path.read_bytes() for path in (tmp_path / "data" / "tuf").glob("*.json")}
    for version in ("2.0.0", "3.0.0"):
        latest = sign(tmp_path, key, version, now=NOW + 60)
        server.accept_role(DIGITS, latest[1], NOW + 60)
        device.refresh(NOW + 60, DIGITS)

    again = restored(tmp_path / "data", backup, NOW + 120)

    device.refresh(NOW + 120)
    with pytest.raises(TrustError, match=r"takes 'models-digits\.json' back"):
        device.refresh(NOW + 120, DIGITS)
    if signs_anew:
        (tmp_path / "models-digits.json").write_bytes(again.model_metadata(DIGITS) or b"")
        latest = sign(tmp_path, key, "4.0.0", now=NOW + 180)
    again.accept_role(DIGITS, latest[1], NOW + 180)
    path = TargetPath(f"models/digits/{'4' if signs_anew else '3'}.0.0")
    assert device.refresh(NOW + 180, DIGITS).target(path).digest == latest[0]


def test_a_device_follows_a_rotation_of_the_online_keys(tmp_path: Path, server: TufRepository, key: SigningKey) -> None:
    server.authorise(DIGITS, key.public, server.offline, NOW)
    digest, metadata = sign(tmp_path, key)
    server.accept_role(DIGITS, metadata, NOW)
    device = _Device(server)
    device.refresh(NOW, DIGITS)

    server.rotate_online_keys(server.offline, NOW + DAY)

    target = device.refresh(NOW + DAY, DIGITS).target(TargetPath("models/digits/1.0.0"))
    assert target.digest == digest


def test_a_rotation_cut_short_after_its_root_is_completed(tmp_path: Path, server: TufRepository) -> None:
    before = server.metadata("timestamp.json")
    server.rotate_online_keys(server.offline, NOW + 60)
    (tmp_path / "data" / "tuf" / "timestamp.json").write_bytes(before)

    assert server.refresh_if_due(NOW + 61)

    assert server.trusted(NOW + 61).versions["root"] == 2


def test_a_revoked_key_signs_no_more(tmp_path: Path, server: TufRepository, key: SigningKey) -> None:
    server.authorise(DIGITS, key.public, server.offline, NOW)
    successor = SigningKey.generate()
    with pytest.raises(Conflict, match="only key"):
        server.revoke(DIGITS, key.public.key_id, server.offline, NOW)
    server.authorise(DIGITS, successor.public, server.offline, NOW)
    server.accept_role(DIGITS, sign(tmp_path, key)[1], NOW)

    server.revoke(DIGITS, key.public.key_id, server.offline, NOW)

    with pytest.raises(TrustError, match="0 of 1 required keys"):
        server.trusted(NOW, DIGITS)
    server.accept_role(DIGITS, sign(tmp_path, successor, "1.1.0")[1], NOW)
    assert server.trusted(NOW, DIGITS).target(TargetPath("models/digits/1.0.0")).length > 0
    with pytest.raises(NotFound):
        server.revoke(DIGITS, key.public.key_id, server.offline, NOW)


@pytest.mark.parametrize(
    "name", ["../keys/director.key", "1.root.json/..", "", ".lock", "timestamp.json\n", "9.root.json"]
)
def test_only_metadata_files_are_served(server: TufRepository, name: str) -> None:
    with pytest.raises(NotFound):
        server.metadata(name)


def test_a_bootstrap_cut_short_is_completed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = TufRepository(data)
    first.bootstrap(NOW)
    (data / "tuf" / "timestamp.json").unlink()

    again = TufRepository(data)
    again.bootstrap(NOW + 5)

    assert again.trusted(NOW + 5).director_keys.keys() == {again.director_key.public.key_id}


def test_signing_leaves_the_layout_untouched_and_raises_the_version(tmp_path: Path, key: SigningKey) -> None:
    write_release(tmp_path / "r1", "1.0.0")
    files = sorted(tmp_path.joinpath("r1").rglob("*"))

    first = sign_release(tmp_path / "r1", key, None, None, now=NOW)
    one = first.read_bytes()
    write_release(tmp_path / "r2", "2.0.0")
    two = sign_release(tmp_path / "r2", key, None, one, now=NOW).read_bytes()

    assert first == tmp_path / "models-digits.json"
    assert sorted(tmp_path.joinpath("r1").rglob("*")) == files
    # At least the time, and always above what it is signed on top of.
    assert f'"version":{int(NOW)}'.encode() in one
    assert f'"version":{int(NOW) + 1}'.encode() in two
    assert b"models/digits/1.0.0" in two
    assert b"models/digits/2.0.0" in two


def test_a_signed_version_cannot_be_signed_with_another_digest(tmp_path: Path, key: SigningKey) -> None:
    sign(tmp_path, key)
    write_release(tmp_path / "other", "1.0.0", task="other")

    with pytest.raises(TrustError, match="that version is signed already"):
        sign_release(tmp_path / "other", key, None, None, now=NOW)


def test_what_cannot_be_signed_is_refused_with_a_reason(tmp_path: Path, key: SigningKey) -> None:
    write_release(tmp_path / "r1", "1.0.0")
    (tmp_path / "empty.json").write_bytes(b"")

    with pytest.raises(ContractError, match=r"there is no such folder"):
        sign_release(tmp_path / "nowhere", key, None, None, now=NOW)
    with pytest.raises(TrustError, match="it is not TUF metadata"):
        sign_release(tmp_path / "r1", key, tmp_path / "empty.json", None, now=NOW)
    with pytest.raises(CannotWrite, match="nothing else"):
        sign_release(tmp_path / "r1", key, tmp_path / "r1" / "m.json", None, now=NOW)
    with pytest.raises(BadRecipe):
        sign_release(tmp_path / "r1", key, None, None, now=NOW, expires_days=0)


def test_keygen_refuses_to_overwrite_either_half(tmp_path: Path) -> None:
    public = keygen(tmp_path / "model.key")
    assert PublicKey.load(tmp_path / "model.pub") == public

    with pytest.raises(TrustError, match="the file exists"):
        keygen(tmp_path / "model")
    (tmp_path / "model.pub").unlink()
    with pytest.raises(TrustError, match="the file exists"):
        keygen(tmp_path / "model")
    assert digest_of((tmp_path / "model.key").read_bytes())
    assert not (tmp_path / "model.pub").exists()
