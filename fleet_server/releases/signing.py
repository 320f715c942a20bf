"""The fleet's TUF repository: what the server signs by itself, and what only keys kept elsewhere can change.

All state is in the metadata files: an older copy of the database changes nothing that a device would notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import structlog
from tuf.api.metadata import Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edge_runtime.contract.digest import digest_of, hex_of
from edge_runtime.contract.errors import TrustError
from edge_runtime.contract.ids import ModelName, TargetPath, parse_target_path, shown
from edge_runtime.trust import metadata as tuf
from edge_runtime.trust.keys import PublicKey, SigningKey
from edge_runtime.trust.metadata import SignedT, TargetInfo, role_file
from edge_runtime.trust.repository import TrustedRepository, load_repository
from fleet_server.errors import Conflict, NotFound, StartError
from fleet_server.releases.metadata_folder import MetadataFolder, Overlay

ROOT_DAYS: Final = 3 * 365.0
TARGETS_DAYS: Final = 365.0
SNAPSHOT_DAYS: Final = 30.0
TIMESTAMP_DAYS: Final = 7.0
TIMESTAMP_RENEWED_WITH_DAYS_LEFT: Final = 6.0

_DAY_S: Final = 86400.0
_ROOT_KEY: Final = "root.key"
_TARGETS_KEY: Final = "targets.key"
_LISTED_FILE: Final = re.compile(r"([1-9][0-9]*)\.(targets|models-[a-z0-9-]+)\.json\Z")
log = structlog.get_logger("trust")

_NOTICE: Final = """\
These two keys are the root of this fleet's trust: whoever holds them can make every device install anything.

  root.key     changes every other key of the fleet
  targets.key  says which model is signed by whose key

The server wrote them once and does not read them again. Move this folder to offline media, keep two copies, and
bring one back only for `edge-fleet keys …`, which takes its path (--offline-dir).
"""


class TufRepository:
    """The repository under one data folder: metadata in `tuf/`, online keys in `keys/`, offline keys in `offline/`.

    Safe to use from several threads and processes: every change holds a file lock and is published by one rename.
    """

    def __init__(self, data: Path) -> None:
        self._folder = MetadataFolder(data / "tuf")
        self._keys = data / "keys"
        self.offline = data / "offline"

    @property
    def is_bootstrapped(self) -> bool:
        """Whether there is anything to serve."""
        return self._folder.is_published

    @property
    def director_key(self) -> SigningKey:
        """The key that signs assignments and time. Raises: TrustError."""
        return SigningKey.load(self._keys / "director.key")

    def bootstrap(self, now: float) -> None:
        """Make all keys and the first metadata; does nothing to a repository that is complete.

        Raises:
            StartError: the folders cannot be written. TrustError: what is there does not fit together.
        """
        try:
            self._folder.create()
            for folder in (self._keys, self.offline):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._folder.locked():
                if not self.is_bootstrapped:
                    self._bootstrap(now)
        except OSError as error:
            raise StartError("set up the trust repository", error.strerror or str(error)) from error

    def root(self) -> bytes:
        """The newest root, which enrolment hands to devices. Raises: NotFound."""
        return self._folder.read(role_file(Root.type, max(self._folder.versions(Root.type))))

    def metadata(self, file_name: str) -> bytes:
        """One file to serve to devices. Raises: NotFound, also for any name that is no metadata file."""
        return self._folder.read(file_name)

    def model_metadata(self, model: ModelName) -> bytes | None:
        """The role metadata in force for a model, or None before its first release."""
        meta = self._snapshot().meta.get(f"{tuf.role_of(model)}.json")
        return None if meta is None else self._folder.read(role_file(tuf.role_of(model), meta.version))

    def trusted(self, now: float, *models: ModelName) -> TrustedRepository:
        """What a device that holds the newest root would trust at `now`. Raises: TrustError."""
        return load_repository(self._folder, self.root(), now=now, floors={}, models=models)

    def in_force(self, model: ModelName) -> Mapping[TargetPath, TargetInfo]:
        """Everything that a model's team stands behind now, by path; empty before its first release."""
        content = self.model_metadata(model)
        if content is None:
            return {}
        known = tuf.parse(content, Targets, max_bytes=tuf.TARGETS_MAX_BYTES, what=f"the metadata of model {model}")
        return tuf.read_model_role(known.signed, model)

    def accept_role(
        self, model: ModelName, content: bytes, now: float, *, withdraws: AbstractSet[TargetPath] = frozenset()
    ) -> Mapping[TargetPath, TargetInfo]:
        """Publish the metadata that a model's team has signed; the same bytes again change nothing.

        Args:
            model: whose metadata it is.
            content: the signed metadata.
            now: seconds since 1970.
            withdraws: what it may leave out although it is in force.

        Returns:
            All targets the team now stands behind, by path.

        Raises:
            TrustError: not signed by an authorised key, expired, or reaching beyond the model's own paths.
            Conflict: its version is not above the one in force, a version of the model changed its digest, or is gone.
        """
        with self._folder.locked():
            role = tuf.role_of(model)
            what = f"the metadata of model {model}"
            targets = self._targets()
            tuf.delegation_of(targets, model)
            offered = tuf.parse(content, Targets, max_bytes=tuf.TARGETS_MAX_BYTES, what=what)
            tuf.signers_of(offered, role, targets, what=what)
            found = tuf.read_model_role(offered.signed, model)
            if content == self.model_metadata(model):
                return found
            self._refuse_rewriting(model, offered.signed.version, found)
            self._refuse_withdrawal(model, found, withdraws)
            self._publish({role_file(role, offered.signed.version): content}, now, models=(model,))
            return found

    def authorise(self, model: ModelName, key: PublicKey, offline_dir: Path, now: float) -> None:
        """Let one more key sign a model's releases; needs the offline targets key.

        Raises:
            TrustError: the offline key cannot be read, or is not this fleet's.
        """

        def add(targets: Targets) -> None:
            known = targets.delegations or Delegations({}, {})
            roles = known.roles if known.roles is not None else {}
            role = tuf.role_of(model)
            keyids = {*(roles[role].keyids if role in roles else ()), key.key_id}
            keys = {**known.keys, key.key_id: tuf.tuf_key(key)}
            targets.delegations = Delegations(keys, {**roles, role: tuf.delegation_to(model, keyids)})

        self._resign_targets(add, offline_dir, now)

    def revoke(self, model: ModelName, key_id: str, offline_dir: Path, now: float) -> None:
        """Take a key from a model; what it signed counts no longer until another key signs it anew.

        Raises:
            NotFound: the model has no such key. TrustError: as `authorise`. Conflict: it is the model's only key.
        """

        def remove(targets: Targets) -> None:
            roles = targets.delegations.roles if targets.delegations is not None else None
            delegation = (roles or {}).get(tuf.role_of(model))
            if delegation is None or key_id not in delegation.keyids:
                raise NotFound(f"revoke key {shown(key_id)}", f"model {model} has no such key")
            if len(delegation.keyids) == 1:
                raise Conflict(
                    f"revoke key {key_id}", f"it is the only key of model {model}", "authorise another first"
                )
            targets.revoke_key(key_id, tuf.role_of(model))

        self._resign_targets(remove, offline_dir, now)

    def rotate_online_keys(self, offline_dir: Path, now: float) -> None:
        """Replace the snapshot and timestamp keys by new ones in a new root; needs the offline root key.

        Raises:
            TrustError: the offline key cannot be read, or is not this fleet's.
        """
        key = SigningKey.load(offline_dir / _ROOT_KEY)
        with self._folder.locked():
            root: Metadata[Root] = Metadata.from_bytes(self.root())
            for role in (Snapshot.type, Timestamp.type):
                for key_id in list(root.signed.roles[role].keyids):
                    root.signed.revoke_key(key_id, role)
                root.signed.add_key(tuf.tuf_key(self._new_online_key(role)), role)
            root.signed.version += 1
            root.signed.expires = tuf.expiry(now, ROOT_DAYS)
            name = role_file(Root.type, root.signed.version)
            self._publish({name: tuf.sign_metadata(root, key)}, now)

    def begin_anew(self, now: float) -> None:
        """Sign timestamp and snapshot once more, so that a folder put back from a copy is above what devices saw.

        Nothing tells a server that it was restored, so every start does it.
        """
        with self._folder.locked():
            try:
                self._publish({}, now)
            except TrustError as error:
                # It still has to run for those who can repair it, and for devices that need nothing new.
                log.warning("metadata.not_renewed", reason=str(error))

    def refresh_if_due(self, now: float) -> bool:
        """Sign timestamp and snapshot anew when they age (daily is enough); says whether it did.

        Raises:
            TrustError: what only offline keys can renew has expired.
        """
        with self._folder.locked():
            timestamp = self._timestamp()
            current_keys = set(self._root().roles[Timestamp.type].keyids)
            days_left = (timestamp.signed.expires.timestamp() - now) / _DAY_S
            # Other keys: a rotation was cut short between the new root and the first timestamp under it.
            if days_left > TIMESTAMP_RENEWED_WITH_DAYS_LEFT and current_keys & set(timestamp.signatures):
                return False
            self._publish({}, now)
            return True

    def _bootstrap(self, now: float) -> None:
        root_key = _key_at(self.offline / _ROOT_KEY)
        targets_key = _key_at(self.offline / _TARGETS_KEY)
        (self.offline / "README.txt").write_text(_NOTICE, encoding="utf-8")
        director = _key_at(self._keys / "director.key").public
        root = Root(version=1, expires=tuf.expiry(now, ROOT_DAYS), consistent_snapshot=True)
        root.add_key(tuf.tuf_key(root_key.public), Root.type)
        root.add_key(tuf.tuf_key(targets_key.public), Targets.type)
        for role in (Snapshot.type, Timestamp.type):
            root.add_key(tuf.tuf_key(self._new_online_key(role)), role)
        keys_file = tuf.write_director_keys([director])
        digest = digest_of(keys_file)
        target = TargetFile(len(keys_file), {"sha256": hex_of(digest)}, tuf.DIRECTOR_KEYS_PATH)
        targets = Targets(
            version=1,
            expires=tuf.expiry(now, TARGETS_DAYS),
            targets={tuf.DIRECTOR_KEYS_PATH: target},
            delegations=Delegations({}, {}),
        )
        files = {
            role_file(Root.type, 1): tuf.sign_metadata(Metadata(root), root_key),
            role_file(Targets.type, 1): tuf.sign_metadata(Metadata(targets), targets_key),
            tuf.director_keys_file(digest): keys_file,
        }
        self._publish(files, now)

    def _resign_targets(self, change: Callable[[Targets], None], offline_dir: Path, now: float) -> None:
        key = SigningKey.load(offline_dir / _TARGETS_KEY)
        with self._folder.locked():
            targets = Metadata(self._targets())
            change(targets.signed)
            targets.signed.version = self._next_version(targets.signed.version, now)
            targets.signed.expires = tuf.expiry(now, TARGETS_DAYS)
            name = role_file(Targets.type, targets.signed.version)
            self._publish({name: tuf.sign_metadata(targets, key)}, now)

    def _refuse_rewriting(self, model: ModelName, version: int, found: Mapping[TargetPath, TargetInfo]) -> None:
        """A version once published keeps its digest for ever, also when it was withdrawn in between."""
        role = tuf.role_of(model)
        meta = self._snapshot().meta.get(f"{role}.json")
        if meta is None:
            return
        if version <= meta.version:
            raise Conflict(
                f"publish the metadata of model {model}",
                f"its version {version} is not above {meta.version}, which is in force",
                "sign again on top of the server's (edge-convert sign --server)",
            )
        for past in self._folder.versions(role):
            if past > meta.version:
                continue  # left by a publication that was cut short; nobody has seen it
            content = self._folder.read(role_file(role, past))
            earlier = tuf.parse(content, Targets, max_bytes=tuf.TARGETS_MAX_BYTES, what=f"version {past} of {role}")
            for path, info in tuf.read_model_role(earlier.signed, model).items():
                if path in found and found[path] != info:
                    raise Conflict(
                        f"publish {path}", f"it was published as {info.digest}", "give the new release a new version"
                    )

    def _refuse_withdrawal(
        self, model: ModelName, found: Mapping[TargetPath, TargetInfo], withdraws: AbstractSet[TargetPath]
    ) -> None:
        """Metadata that was not signed on top of what is in force would take other versions away, unseen."""
        if lost := sorted(self.in_force(model).keys() - found.keys() - withdraws):
            versions = ", ".join(parse_target_path(path)[1] for path in lost)
            raise Conflict(
                f"publish the metadata of model {model}",
                f"it no longer lists {versions}, which devices would then refuse",
                "sign on top of the server's (edge-convert sign --server), or say what shall go (--withdraw VERSION)",
            )

    def _publish(self, files: Mapping[str, bytes], now: float, models: tuple[ModelName, ...] = ()) -> None:
        """Put new files under a new snapshot and timestamp, check all with the device's verifier, then show it."""
        staged = dict(files)
        root_bytes = next((files[name] for name in files if name.endswith(f".{Root.type}.json")), None) or self.root()
        root = tuf.parse(root_bytes, Root, max_bytes=tuf.ROOT_MAX_BYTES, what="the root").signed
        snapshot = self._next_snapshot(files, now)
        staged[role_file(Snapshot.type, snapshot.version)] = self._sign_online(snapshot, root)
        timestamp = Timestamp(
            version=self._next_version(self._timestamp().signed.version if self.is_bootstrapped else 0, now),
            expires=tuf.expiry(now, TIMESTAMP_DAYS),
            snapshot_meta=_meta(snapshot.version, staged[role_file(Snapshot.type, snapshot.version)]),
        )
        staged[tuf.TIMESTAMP_FILE] = self._sign_online(timestamp, root)
        self._check(Overlay(staged, self._folder), root_bytes, now, models)
        self._folder.publish(staged)

    def _check(self, staged: Overlay, root_bytes: bytes, now: float, models: tuple[ModelName, ...]) -> None:
        """What devices accepted so far (time 0: whatever has expired since) must let them accept this."""
        if not self.is_bootstrapped:
            load_repository(staged, root_bytes, now=now, floors={})
            return
        try:
            floors = self.trusted(0.0).versions
        except TrustError:
            # A rotation was cut short before its first timestamp; this very change completes it.
            floors = {}
        load_repository(staged, self.root(), now=now, floors=floors, models=models)

    def _next_snapshot(self, files: Mapping[str, bytes], now: float) -> Snapshot:
        if self.is_bootstrapped:
            snapshot = self._snapshot()
        else:
            snapshot = Snapshot(version=1, expires=tuf.expiry(now, SNAPSHOT_DAYS), meta={})
        snapshot.version = self._next_version(snapshot.version, now)
        snapshot.expires = tuf.expiry(now, SNAPSHOT_DAYS)
        for name, content in files.items():
            if match := _LISTED_FILE.match(name):
                snapshot.meta[f"{match[2]}.json"] = _meta(int(match[1]), content)
        return snapshot

    @staticmethod
    def _next_version(previous: int, now: float) -> int:
        # At least the time: a whole folder restored from a backup continues above what devices have seen.
        return max(previous + 1, int(now))

    def _sign_online(self, signed: SignedT, root: Root) -> bytes:
        for key_id in root.roles[signed.type].keyids:
            path = self._online_path(signed.type, key_id)
            if path.exists():
                return tuf.sign_metadata(Metadata(signed), SigningKey.load(path))
        raise TrustError(
            f"sign the {signed.type} metadata", f"its key is not in {self._keys}", "restore the folder from a backup"
        )

    def _new_online_key(self, role: str) -> PublicKey:
        key = SigningKey.generate()
        key.save(self._online_path(role, key.public.key_id))
        return key.public

    def _online_path(self, role: str, key_id: str) -> Path:
        # Named by key, so that an interrupted rotation finds both the old and the new one.
        return self._keys / f"{role}-{key_id[:16]}.key"

    def _root(self) -> Root:
        return tuf.parse(self.root(), Root, max_bytes=tuf.ROOT_MAX_BYTES, what="the root").signed

    def _timestamp(self) -> Metadata[Timestamp]:
        content = self._folder.read(tuf.TIMESTAMP_FILE)
        return tuf.parse(content, Timestamp, max_bytes=tuf.TIMESTAMP_MAX_BYTES, what="the timestamp")

    def _snapshot(self) -> Snapshot:
        name = role_file(Snapshot.type, self._timestamp().signed.snapshot_meta.version)
        return tuf.parse(
            self._folder.read(name), Snapshot, max_bytes=tuf.SNAPSHOT_MAX_BYTES, what="the snapshot"
        ).signed

    def _targets(self) -> Targets:
        name = role_file(Targets.type, self._snapshot().meta[f"{Targets.type}.json"].version)
        return tuf.parse(self._folder.read(name), Targets, max_bytes=tuf.TARGETS_MAX_BYTES, what="the targets").signed


def _key_at(path: Path) -> SigningKey:
    """The key in a file, made on first use: a bootstrap that was cut short continues with what it has."""
    if not path.exists():
        SigningKey.generate().save(path)
    return SigningKey.load(path)


def _meta(version: int, content: bytes) -> MetaFile:
    return MetaFile(version, len(content), {"sha256": hex_of(digest_of(content))})
