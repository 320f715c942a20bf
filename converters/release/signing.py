"""The model team's signature: a release enters the team's TUF role here, with a key that no server holds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from tuf.api.metadata import Metadata, TargetFile, Targets

from converters.errors import BadRecipe, CannotWrite
from edge_runtime.contract.digest import hex_of
from edge_runtime.contract.errors import TrustError
from edge_runtime.contract.ids import ModelName, target_path
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.trust import metadata as tuf
from edge_runtime.trust.keys import PublicKey, SigningKey
from edge_runtime.trust.metadata import TargetInfo

EXPIRES_DAYS: Final = 365


def keygen(path: Path) -> PublicKey:
    """Make a key pair: `<path>.key` (only its owner can read it) and `<path>.pub`; a given suffix is replaced.

    Raises:
        TrustError: one of the files exists or cannot be written.
    """
    private, public = path.with_suffix(".key"), path.with_suffix(".pub")
    if public.exists():
        raise TrustError(f"write public key {public}", "the file exists", "move it away or choose another name")
    key = SigningKey.generate()
    key.save(private)
    key.public.save(public)
    return key.public


def sign_release(
    layout_folder: Path,
    key: SigningKey,
    metadata_path: Path | None,
    current_metadata: bytes | None,
    *,
    now: float,
    expires_days: int = EXPIRES_DAYS,
) -> Path:
    """Add a release to its model's role metadata and sign it; returns the file written.

    Args:
        layout_folder: the release as edge-convert built it; nothing is written into it.
        key: the model team's key.
        metadata_path: where to write; None: `models-<name>.json` beside the layout.
        current_metadata: the role metadata in force (the server's); None: the file at `metadata_path` if there is
            one, else this is the model's first release.
        now: seconds since 1970; the signature expires `expires_days` later.
        expires_days: 1 to 3650.

    Raises:
        ContractError: the layout is not a whole release. CannotWrite: the file cannot be written.
        TrustError: the version was signed with another digest before, or the current metadata is unusable.
    """
    if not 1 <= expires_days <= 3650:
        raise BadRecipe(f"sign for {expires_days} days", "that is not between 1 and 3650", "leave --expires-days out")
    release = LayoutFolder(layout_folder).open()
    model = release.manifest.name
    path = metadata_path or layout_folder.resolve().parent / f"{tuf.role_of(model)}.json"
    if layout_folder.resolve() in path.resolve().parents:
        raise CannotWrite(f"write {path}", "a release folder holds the release and nothing else", "name a file outside")
    current = current_metadata if current_metadata is not None else _read_if_there(path)
    promised = TargetInfo(target_path(model, release.manifest.version), release.digest, release.index.size_bytes)
    role = _role(current, model, now)
    _add(role, promised, model)
    role.expires = tuf.expiry(now, expires_days)
    _write(path, tuf.sign_metadata(Metadata(role), key))
    return path


def _role(current: bytes | None, model: ModelName, now: float) -> Targets:
    """The role to build on, at least one version up."""
    # At least the time: signed on top of a server's older, restored copy it is still above what devices have seen.
    if current is None:
        return Targets(version=max(1, int(now)), targets={})
    what = f"the current metadata of model {model}"
    role = tuf.parse(current, Targets, max_bytes=tuf.TARGETS_MAX_BYTES, what=what).signed
    # Also refuses the metadata of another model, given by mistake.
    tuf.read_model_role(role, model)
    role.version = max(role.version + 1, int(now))
    return role


def _add(role: Targets, promised: TargetInfo, model: ModelName) -> None:
    earlier = tuf.read_model_role(role, model).get(promised.path)
    if earlier is not None and earlier != promised:
        raise TrustError(
            f"sign {promised.path}",
            f"that version is signed already, as {earlier.digest}; this release is {promised.digest}",
            "build it with a new version",
        )
    role.targets[promised.path] = TargetFile(promised.length, {"sha256": hex_of(promised.digest)}, promised.path)


def _read_if_there(path: Path) -> bytes | None:
    try:
        with path.open("rb") as source:
            return source.read(tuf.TARGETS_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotWrite(f"read {path}", error.strerror or str(error), "name another file with --metadata") from error


def _write(path: Path, content: bytes) -> None:
    """Old or new, never torn: this file is the team's record of what it stands behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as target:
                target.write(content)
                target.flush()
                os.fsync(target.fileno())
            Path(staged).chmod(0o644)
            Path(staged).replace(path)
        except OSError:
            Path(staged).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CannotWrite(f"write {path}", error.strerror or str(error), "name another file with --metadata") from error
