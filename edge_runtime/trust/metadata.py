"""TUF metadata as this project uses it: role and file names, size caps, typed reading, signing.

TUF specification 1.0 (theupdateframework.github.io/specification); consistent snapshots, one delegated role per model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final, TypeVar

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Metadata, Role, Root, Signed, Snapshot, Targets, Timestamp

from edge_runtime.contract import reasons
from edge_runtime.contract.codec import Document, decode, encode
from edge_runtime.contract.digest import Digest, hex_of, parse_digest
from edge_runtime.contract.errors import ContractError, TrustError
from edge_runtime.contract.ids import ModelName, TargetPath, parse_model_name, parse_target_path, shown
from edge_runtime.trust.keys import PublicKey, SigningKey

TIMESTAMP_FILE: Final = "timestamp.json"
DIRECTOR_KEYS_PATH: Final = "director/keys.json"
"""TUF target: the public keys that may sign assignments and time."""

ROOT_MAX_BYTES: Final = 512 * 1024
TIMESTAMP_MAX_BYTES: Final = 16 * 1024
SNAPSHOT_MAX_BYTES: Final = 2 * 1024 * 1024
TARGETS_MAX_BYTES: Final = 5 * 1024 * 1024
DIRECTOR_KEYS_MAX_BYTES: Final = 64 * 1024

VERSION_MAX: Final = 2**53
"""Largest metadata version that a 64-bit store and every JSON reader keep exactly."""

_ROLE_PREFIX: Final = "models-"
_FILE_NAME: Final = re.compile(
    r"(?:[1-9][0-9]{0,15}\.(?:root|snapshot|targets|models-[a-z0-9][a-z0-9-]{0,62})\.json"
    r"|timestamp\.json|[0-9a-f]{64}\.director-keys\.json)\Z"
)

SignedT = TypeVar("SignedT", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What a role promises about one target."""

    path: TargetPath
    digest: Digest
    length: int
    """Bytes."""


class _DirectorKeys(Document, frozen=True, kw_only=True):
    schema: str
    keys: dict[str, str]
    """PEM by key id."""


def role_of(model: ModelName) -> str:
    """The delegated role of a model: `models-<name>`."""
    return f"{_ROLE_PREFIX}{parse_model_name(model)}"


def role_file(role: str, version: int) -> str:
    """File name of a versioned role (`2.root.json`); consistent snapshots keep all versions side by side."""
    return f"{version}.{role}.json"


def director_keys_file(digest: Digest) -> str:
    """File name under which the director's public keys are served; flat, unlike TUF's `director/<hash>.keys.json`."""
    return f"{hex_of(digest)}.director-keys.json"


def is_metadata_file(name: str) -> bool:
    """Whether a name (from a URL) is one that a repository can hold; never one that leaves its folder."""
    return _FILE_NAME.match(name) is not None


def parse(content: bytes, kind: type[SignedT], *, max_bytes: int, what: str) -> Metadata[SignedT]:
    """Read one metadata file of a known kind; its signatures are not checked here.

    Raises:
        TrustError: too large, not TUF metadata, of another kind, or with an impossible version.
    """
    if len(content) > max_bytes:
        raise TrustError(f"read {what}", f"{len(content)} bytes exceed the limit of {max_bytes}")
    try:
        metadata: Metadata[SignedT] = Metadata.from_bytes(content)
    except RepositoryError as error:
        raise TrustError(f"read {what}", "it is not TUF metadata", "fetch it again from a sound source") from error
    signed: Signed = metadata.signed
    if not isinstance(signed, kind):
        raise TrustError(f"read {what}", f"it is {signed.type} metadata, not {kind.type}")
    # JSON true is an int to Python; and a version beyond 2**53 would not survive the caller's store.
    if type(signed.version) is not int or signed.version > VERSION_MAX:
        raise TrustError(f"read {what}", f"version {shown(signed.version)} is impossible")
    return metadata


def signers_of(metadata: Metadata[SignedT], role: str, delegator: Root | Targets, *, what: str) -> frozenset[str]:
    """The key ids whose valid signatures satisfy a role's threshold.

    Raises:
        TrustError: too few of the role's keys signed it.
    """
    try:
        result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise TrustError(f"trust {what}", f"nobody is authorised to sign {role}") from error
    # One key under two ids must not count twice towards a threshold.
    signers = len({str(key.keyval.get("public")) for key in result.signed.values()})
    if not result.verified or signers < result.threshold:
        raise TrustError(
            f"trust {what}",
            f"{signers} of {result.threshold} required keys signed it",
            "have it signed by a key that the fleet authorises",
        )
    return frozenset(result.signed)


def require_fresh(signed: Signed, now: float, *, what: str) -> None:
    """Refuse metadata that has expired at the trusted time. Raises: TrustError with code `expired`."""
    if signed.expires.timestamp() <= now:
        raise TrustError(
            f"trust {what}",
            f"it expired at {signed.expires:%Y-%m-%d %H:%M} UTC",
            "ask the server for newer metadata, or check the clock",
            code=reasons.EXPIRED,
        )


def expiry(now: float, days: float) -> datetime:
    """The moment some days after `now`, as TUF metadata writes it."""
    return datetime.fromtimestamp(int(now + days * 86400), tz=timezone.utc)


def tuf_key(key: PublicKey) -> SSlibKey:
    """A public key as TUF metadata carries it; its key id is the same."""
    return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.raw.hex()})


def sign_metadata(metadata: Metadata[SignedT], *keys: SigningKey) -> bytes:
    """Sign with these keys, dropping earlier signatures, and return the file's bytes."""
    metadata.signatures.clear()
    for key in keys:
        metadata.sign(CryptoSigner(key.private_key, tuf_key(key.public)), append=True)
    return metadata.to_bytes()


def delegation_to(model: ModelName, key_ids: Iterable[str]) -> DelegatedRole:
    """The only form of delegation that devices accept: one model, its own paths, terminating."""
    return DelegatedRole(
        role_of(model),
        keyids=sorted(key_ids),
        threshold=1,
        terminating=True,
        paths=[f"models/{parse_model_name(model)}/*"],
    )


def delegation_of(targets: Targets, model: ModelName) -> Role:
    """The delegation that the top-level targets role makes for a model.

    Raises:
        TrustError: there is none, or it reaches beyond `models/<name>/*`.
    """
    role = role_of(model)
    roles = targets.delegations.roles if targets.delegations is not None else None
    delegation = (roles or {}).get(role)
    if delegation is None:
        raise TrustError(
            f"trust model {model}", "no key is authorised for it", f"run edge-fleet keys authorise {model} <model.pub>"
        )
    if delegation.paths != [f"models/{model}/*"] or not delegation.terminating:
        raise TrustError(f"trust model {model}", f"role {role} is not delegated exactly models/{model}/*")
    return delegation


def read_model_role(signed: Targets, model: ModelName) -> Mapping[TargetPath, TargetInfo]:
    """The targets of a model's role, each checked.

    Raises:
        TrustError: it claims another path, delegates further, or has no usable SHA-256.
    """
    what = f"trust the metadata of model {model}"
    # One parent per role: a role reached over two delegators would be checked against whichever came first.
    if signed.delegations is not None:
        raise TrustError(what, "it delegates further, which only the fleet's own targets role may")
    found: dict[TargetPath, TargetInfo] = {}
    for path, target in signed.targets.items():
        try:
            owner, _ = parse_target_path(path)
            digest = parse_digest("sha256:" + target.hashes.get("sha256", ""))
        except ContractError as error:
            raise TrustError(what, f"target {shown(path)} is unusable ({error.because})") from error
        if owner != model:
            raise TrustError(what, f"it claims {shown(path)}, which belongs to model {owner}")
        found[TargetPath(path)] = TargetInfo(TargetPath(path), digest, target.length)
    return found


def write_director_keys(keys: list[PublicKey]) -> bytes:
    """The content of the target `director/keys.json`."""
    return encode(_DirectorKeys(schema="1.0", keys={key.key_id: key.to_pem() for key in keys}))


def read_director_keys(content: bytes) -> dict[str, PublicKey]:
    """The director's public keys by key id. Raises: TrustError when a key is not the one its id names."""
    try:
        document = decode(content, _DirectorKeys, max_bytes=DIRECTOR_KEYS_MAX_BYTES)
    except ContractError as error:
        raise TrustError("read the director's keys", error.because) from error
    keys = {key_id: PublicKey.from_pem(pem, what="a director's key") for key_id, pem in document.keys.items()}
    for key_id, key in keys.items():
        if key.key_id != key_id:
            raise TrustError("read the director's keys", f"key {shown(key_id)} is another key than its id says")
    return keys
