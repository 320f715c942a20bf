"""Makes any chain of trust metadata, honest or not, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import Assignment, Candidate
from edge_runtime.contract.digest import Digest, digest_of, hex_of
from edge_runtime.contract.ids import DeviceId, ModelName, SlotId, TargetPath, VariantId
from edge_runtime.contract.layout import OCI_INDEX, OCI_MANIFEST, VARIANT_ID
from edge_runtime.trust import metadata as tuf
from edge_runtime.trust.keys import SigningKey

NOW = 1_800_000_000.0
DAY = 86400.0
DEVICE = DeviceId("cam-1")
SLOT = SlotId("main")
DIGITS = ModelName("digits")
PATH = TargetPath("models/digits/1.0")
VARIANT = VariantId("float")
VARIANT_DIGEST = digest_of(b"variant")


def index_bytes(mark: str = "1.0") -> bytes:
    """A release index blob with one variant."""
    manifests = [
        {"mediaType": OCI_MANIFEST, "digest": digest_of(mark.encode()), "size": 3},
        {"mediaType": OCI_MANIFEST, "digest": VARIANT_DIGEST, "size": 7, "annotations": {VARIANT_ID: VARIANT}},
    ]
    return encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})


INDEX = index_bytes()


def assignment(**changes: object) -> Assignment:
    """A director's order to run release 1.0, with some fields changed."""
    fields: dict[str, object] = {
        "device": DEVICE,
        "slot": SLOT,
        "kind": "model",
        "seq": 7,
        "issued": NOW,
        "expires": NOW + 30 * DAY,
        "target": PATH,
        "release": digest_of(INDEX),
        "length": len(INDEX),
        "candidates": [Candidate(id=VARIANT, digest=VARIANT_DIGEST)],
    }
    return Assignment(**{**fields, **changes})  # type: ignore[arg-type]


@dataclass
class Forge:
    """Keys of a fleet and the files its server shows; every file can be forged again with other content or keys."""

    root_key: SigningKey = field(default_factory=SigningKey.generate)
    targets_key: SigningKey = field(default_factory=SigningKey.generate)
    snapshot_key: SigningKey = field(default_factory=SigningKey.generate)
    timestamp_key: SigningKey = field(default_factory=SigningKey.generate)
    director_key: SigningKey = field(default_factory=SigningKey.generate)
    team_key: SigningKey = field(default_factory=SigningKey.generate)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root(1)
        self.targets(1)
        self.model(1)
        self.snapshot(1)
        self.timestamp(1)

    def fetch(self, file_name: str, max_bytes: int) -> bytes | None:
        """What a server would send; it does not keep to the cap."""
        self.asked.append((file_name, max_bytes))
        return self.files.get(file_name)

    @property
    def first_root(self) -> bytes:
        return self.files["1.root.json"]

    def root(self, version: int, *signers: SigningKey, days: float = 1000) -> None:
        root = Root(version=version, expires=tuf.expiry(NOW, days), consistent_snapshot=True)
        for role, key in (
            ("root", self.root_key),
            ("targets", self.targets_key),
            ("snapshot", self.snapshot_key),
            ("timestamp", self.timestamp_key),
        ):
            root.add_key(tuf.tuf_key(key.public), role)
        self.files[f"{version}.root.json"] = tuf.sign_metadata(Metadata(root), *(signers or (self.root_key,)))

    def targets(self, version: int, roles: dict[str, DelegatedRole] | None = None) -> None:
        keys_file = tuf.write_director_keys([self.director_key.public])
        digest = digest_of(keys_file)
        self.files[tuf.director_keys_file(digest)] = keys_file
        team = self.team_key.public
        delegations = Delegations(
            {team.key_id: tuf.tuf_key(team)},
            roles if roles is not None else {"models-digits": tuf.delegation_to(DIGITS, [team.key_id])},
        )
        entry = TargetFile(len(keys_file), {"sha256": hex_of(digest)}, tuf.DIRECTOR_KEYS_PATH)
        targets = Targets(
            version=version,
            expires=tuf.expiry(NOW, 300),
            targets={tuf.DIRECTOR_KEYS_PATH: entry},
            delegations=delegations,
        )
        self.files[f"{version}.targets.json"] = tuf.sign_metadata(Metadata(targets), self.targets_key)

    def model(
        self,
        version: int,
        targets: dict[str, tuple[Digest, int]] | None = None,
        *,
        key: SigningKey | None = None,
        role: str = "models-digits",
        delegations: Delegations | None = None,
    ) -> bytes:
        listed = {PATH: (digest_of(INDEX), len(INDEX))} if targets is None else targets
        signed = Targets(
            version=version,
            expires=tuf.expiry(NOW, 200),
            targets={
                path: TargetFile(size, {"sha256": hex_of(digest)}, path) for path, (digest, size) in listed.items()
            },
            delegations=delegations,
        )
        content = tuf.sign_metadata(Metadata(signed), key or self.team_key)
        self.files[f"{version}.{role}.json"] = content
        return content

    def snapshot(
        self, version: int, *, targets: int = 1, models: dict[str, int] | None = None, hashed: bool = False
    ) -> None:
        roles = {"targets": targets, **({"models-digits": 1} if models is None else models)}
        meta = {
            f"{role}.json": self._meta(f"{number}.{role}.json", number) if hashed else MetaFile(number)
            for role, number in roles.items()
        }
        snapshot = Snapshot(version=version, expires=tuf.expiry(NOW, 30), meta=meta)
        self.files[f"{version}.snapshot.json"] = tuf.sign_metadata(Metadata(snapshot), self.snapshot_key)

    def timestamp(self, version: int, *, snapshot: int = 1, days: float = 7, key: SigningKey | None = None) -> None:
        timestamp = Timestamp(version=version, expires=tuf.expiry(NOW, days), snapshot_meta=MetaFile(snapshot))
        self.files["timestamp.json"] = tuf.sign_metadata(Metadata(timestamp), key or self.timestamp_key)

    def _meta(self, name: str, version: int) -> MetaFile:
        content = self.files[name]
        return MetaFile(version, len(content), {"sha256": hex_of(digest_of(content))})
