"""The TUF client workflow over bytes: from a trusted root to what each model's team has signed.

`now` and the version floors are arguments; nothing is believed because it lies in a local file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import MetaFile, Root, Snapshot, Targets, Timestamp

from edge_runtime.contract import reasons
from edge_runtime.contract.digest import check_bytes, parse_digest
from edge_runtime.contract.errors import ContractError, DigestMismatch, TrustError
from edge_runtime.contract.ids import ModelName, TargetPath, parse_target_path, shown
from edge_runtime.trust import metadata as tuf
from edge_runtime.trust.floors import floor_of, names_with, raised
from edge_runtime.trust.keys import PublicKey
from edge_runtime.trust.metadata import SignedT, TargetInfo

ROTATIONS_MAX: Final = 256
"""Root versions a device that slept may walk through in one go."""

_ROOT: Final = "root"
_LISTED: Final = "snapshot:"
_TARGETS_FILE: Final = f"{Targets.type}.json"
_CAPS: Final = {
    Timestamp.type: tuf.TIMESTAMP_MAX_BYTES,
    Snapshot.type: tuf.SNAPSHOT_MAX_BYTES,
    Targets.type: tuf.TARGETS_MAX_BYTES,
}


class MetadataSource(Protocol):
    """Where metadata comes from (the server, a folder on a stick); nothing it returns is trusted."""

    def fetch(self, file_name: str, max_bytes: int) -> bytes | None:
        """At most `max_bytes` of a file, or None when there is none. Raises: TransportError when out of reach."""


@dataclass(frozen=True, slots=True)
class TrustedRepository:
    """What the signatures prove: made by `load_repository`, extended by `with_model`."""

    root: bytes
    """The newest root; the caller keeps it and starts from it next time."""
    versions: Mapping[str, int]
    """Version floors to store durably and to hand in next time; the keys mean nothing to the caller."""
    director_keys: Mapping[str, PublicKey]
    """Who may sign assignments and time, by key id."""
    expires: float
    """When the first of the roles behind this expires (seconds since 1970)."""
    _snapshot: Snapshot
    _targets: Targets
    _models: Mapping[ModelName, Mapping[TargetPath, TargetInfo]]
    _behind: Mapping[str, int]
    """Models' files that the snapshot forgets or takes back, with the version seen before."""

    def target(self, path: TargetPath) -> TargetInfo:
        """What the model's role promises about a target.

        Raises:
            TrustError: the role does not list it, or has not been loaded.
        """
        try:
            model, _ = parse_target_path(path)
        except ContractError as error:
            raise TrustError(f"trust target {shown(path)}", error.because) from error
        if model not in self._models:
            raise TrustError(f"trust target {path}", f"the metadata of model {model} is not loaded")
        if path not in self._models[model]:
            raise TrustError(
                f"trust target {path}", "the model's team has not signed it, or has withdrawn it", "sign and push it"
            )
        return self._models[model][path]

    def with_model(self, model: ModelName, source: MetadataSource, *, now: float) -> TrustedRepository:
        """The same repository with one model's role loaded. Raises: TrustError, TransportError."""
        if self.expires <= now:
            raise TrustError(
                f"trust model {model}", "the metadata above it has expired", "refresh it first", code=reasons.EXPIRED
            )
        role = tuf.role_of(model)
        tuf.delegation_of(self._targets, model)
        if (floor := self._behind.get(f"{role}.json")) is not None:
            raise _taken_back(f"{role}.json", floor)
        walk = _Walk(source, now, dict(self.versions), self.expires)
        signed, _ = walk.load(Targets, role, self._targets, _listed(self._snapshot, role))
        targets = MappingProxyType(dict(tuf.read_model_role(signed, model)))
        return dataclasses.replace(
            self,
            versions=MappingProxyType(walk.floors),
            expires=walk.expires,
            _models=MappingProxyType({**self._models, model: targets}),
        )


def load_repository(
    source: MetadataSource,
    trusted_root: bytes,
    *,
    now: float,
    floors: Mapping[str, int],
    models: Iterable[ModelName] = (),
) -> TrustedRepository:
    """Follow the chain of signatures (TUF specification 1.0, section 5).

    1. Walk the roots: each signed by its predecessor's keys and its own, each exactly one version on.
    2. The last root is not below its floor and has not expired.
    3. Timestamp, 4. snapshot, 5. targets: capped, of the length, hash and version that the role before
    promised, signed by a threshold, not below its floor, not expired; the snapshot does not take the targets back,
    and a model that it forgets or takes back is refused alone, as soon as it is loaded (ADR 0007).
    6. The director's keys: a target of the targets role. 7. Each model's role, as `with_model`.

    Args:
        source: where to fetch from.
        trusted_root: root metadata from enrolment, or the newest that `TrustedRepository.root` gave.
        now: trusted time, seconds since 1970.
        floors: `TrustedRepository.versions` of the last success; empty on a new device.
        models: models whose roles are loaded as well.

    Raises:
        TrustError: a step fails; code `expired` when only time is wrong. TransportError: the source is out of reach.
    """
    root_bytes, root = _walk_roots(source, trusted_root)
    if root.version < floors.get(_ROOT, 0):
        raise TrustError("trust the root", f"version {root.version} is older than {floors[_ROOT]}, seen before")
    tuf.require_fresh(root, now, what="the root")
    walk = _Walk(source, now, {**floors, _ROOT: root.version}, root.expires.timestamp())
    timestamp, _ = walk.load(Timestamp, Timestamp.type, root, None)
    snapshot, snapshot_signers = walk.load(Snapshot, Snapshot.type, root, timestamp.snapshot_meta)
    behind = walk.check_listing(snapshot, root, snapshot_signers)
    targets, _ = walk.load(Targets, Targets.type, root, _listed(snapshot, Targets.type))
    repository = TrustedRepository(
        root=root_bytes,
        versions=MappingProxyType(walk.floors),
        director_keys=MappingProxyType(_director_keys(source, targets)),
        expires=walk.expires,
        _snapshot=snapshot,
        _targets=targets,
        _models=MappingProxyType({}),
        _behind=MappingProxyType(behind),
    )
    for model in models:
        repository = repository.with_model(model, source, now=now)
    return repository


def _walk_roots(source: MetadataSource, trusted_root: bytes) -> tuple[bytes, Root]:
    current = tuf.parse(trusted_root, Root, max_bytes=tuf.ROOT_MAX_BYTES, what="the trusted root")
    tuf.signers_of(current, _ROOT, current.signed, what="the trusted root")
    content = trusted_root
    for _ in range(ROTATIONS_MAX):
        version = current.signed.version + 1
        offered = _fetch(source, tuf.role_file(_ROOT, version), tuf.ROOT_MAX_BYTES)
        if offered is None:
            return content, current.signed
        what = f"root {version}"
        successor = tuf.parse(offered, Root, max_bytes=tuf.ROOT_MAX_BYTES, what=what)
        if successor.signed.version != version:
            raise TrustError(f"trust {what}", f"it calls itself version {successor.signed.version}")
        tuf.signers_of(successor, _ROOT, current.signed, what=f"{what} by its predecessor's keys")
        tuf.signers_of(successor, _ROOT, successor.signed, what=f"{what} by its own keys")
        content, current = offered, successor
    raise TrustError("trust the root", f"more than {ROTATIONS_MAX} rotations follow", "enrol the device again")


class _Walk:
    """One pass down the chain of roles: gathers floors and the earliest expiry as it goes."""

    __slots__ = ("_now", "_source", "expires", "floors")

    def __init__(self, source: MetadataSource, now: float, floors: dict[str, int], expires: float) -> None:
        self._source = source
        self._now = now
        self.floors = floors
        self.expires = expires

    def load(
        self, kind: type[SignedT], role: str, delegator: Root | Targets, meta: MetaFile | None
    ) -> tuple[SignedT, frozenset[str]]:
        """Fetch and check one role, and say who signed it; `meta`: what the role before promised (None: timestamp)."""
        what = f"the {role} metadata"
        content = self._content(role, meta, what)
        metadata = tuf.parse(content, kind, max_bytes=_CAPS[kind.type], what=what)
        signers = tuf.signers_of(metadata, role, delegator, what=what)
        signed = metadata.signed
        if meta is not None and signed.version != meta.version:
            raise TrustError(f"trust {what}", f"version {signed.version} arrived where {meta.version} was promised")
        floor = floor_of(self.floors, role, delegator.get_delegated_role(role))
        if signed.version < floor:
            raise TrustError(f"trust {what}", f"version {signed.version} is older than {floor}, seen before")
        tuf.require_fresh(signed, self._now, what=what)
        self.floors = raised(self.floors, role, signed.version, signers)
        self.expires = min(self.expires, signed.expires.timestamp())
        return signed, signers

    def check_listing(self, snapshot: Snapshot, root: Root, signers: frozenset[str]) -> dict[str, int]:
        """The models' files that a snapshot forgets or lists older than before, with the version seen before.

        A server that was restored from a copy has forgotten what teams pushed since, and only they can sign it again:
        one model must not keep the others, nor the director's keys, from being trusted.

        Raises:
            TrustError: it takes back what everything rests on.
        """
        delegation = root.get_delegated_role(Snapshot.type)
        listed = {_LISTED + name: meta.version for name, meta in snapshot.meta.items()}
        behind: dict[str, int] = {}
        for name in sorted(names_with(self.floors, _LISTED) | set(listed)):
            floor = floor_of(self.floors, name, delegation)
            if listed.get(name, 0) < floor:
                behind[name.removeprefix(_LISTED)] = floor
        if (floor_of_targets := behind.get(_TARGETS_FILE)) is not None:
            raise _taken_back(_TARGETS_FILE, floor_of_targets)
        for name, version in listed.items():
            self.floors = raised(self.floors, name, version, signers)
        return behind

    def _content(self, role: str, meta: MetaFile | None, what: str) -> bytes:
        cap = _CAPS.get(role, tuf.TARGETS_MAX_BYTES)
        if meta is None:
            return _fetched(self._source, tuf.TIMESTAMP_FILE, cap, what)
        if meta.length is not None:
            cap = min(cap, meta.length)
        content = _fetched(self._source, tuf.role_file(role, meta.version), cap, what)
        try:
            meta.verify_length_and_hashes(content)
        except RepositoryError as error:
            raise DigestMismatch(f"trust {what}", "its bytes are not the promised ones", "fetch it again") from error
        return content


def _taken_back(file_name: str, floor: int) -> TrustError:
    return TrustError(
        "trust the snapshot metadata",
        f"it takes {shown(file_name)} back below version {floor}",
        "the server may have been restored from an older copy: push what was signed last again",
    )


def _listed(snapshot: Snapshot, role: str) -> MetaFile:
    meta = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise TrustError(f"trust the {role} metadata", "the snapshot does not list it", "sign and push a release first")
    return meta


def _director_keys(source: MetadataSource, targets: Targets) -> dict[str, PublicKey]:
    target = targets.targets.get(tuf.DIRECTOR_KEYS_PATH)
    if target is None:
        raise TrustError("trust the director", "the targets metadata names no keys for it", "bootstrap the server anew")
    try:
        digest = parse_digest("sha256:" + target.hashes.get("sha256", ""))
    except ContractError as error:
        raise TrustError("trust the director", error.because) from error
    cap = min(target.length, tuf.DIRECTOR_KEYS_MAX_BYTES)
    content = _fetched(source, tuf.director_keys_file(digest), cap, "the director's keys")
    check_bytes(content, digest, target.length, "the director's keys")
    return tuf.read_director_keys(content)


def _fetched(source: MetadataSource, file_name: str, max_bytes: int, what: str) -> bytes:
    content = _fetch(source, file_name, max_bytes)
    if content is None:
        raise TrustError(f"trust {what}", f"{file_name} is missing", "check that the server's trust folder is whole")
    return content


def _fetch(source: MetadataSource, file_name: str, max_bytes: int) -> bytes | None:
    """Ask for at most the cap, and do not believe that the source kept to it."""
    content = source.fetch(file_name, max_bytes)
    if content is not None and len(content) > max_bytes:
        raise TrustError(f"read {file_name}", f"more than {max_bytes} bytes arrived")
    return content
