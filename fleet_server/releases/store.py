"""Rows of accepted releases and of the blobs that belong to them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlmodel import Field, SQLModel, col, select

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import ModelName, Version
from fleet_server.db import Session
from fleet_server.releases.model import Release, StoredBlob


class ReleaseRow(SQLModel, table=True):
    """One accepted release."""

    __tablename__ = "release"

    model: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    digest: str = Field(index=True)
    length: int
    pushed_at: float
    pushed_by: str


class ReleaseBlobRow(SQLModel, table=True):
    """A blob that devices may pull under a model's name."""

    __tablename__ = "release_blob"

    model: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    size_bytes: int
    media_type: str


def find_release(session: Session, model: ModelName, version: Version) -> Release | None:
    """One release by name."""
    row = session.get(ReleaseRow, (model, version))
    return None if row is None else _release(row)


def find_by_digest(session: Session, digest: Digest) -> Release | None:
    """One release by digest."""
    row = session.exec(select(ReleaseRow).where(ReleaseRow.digest == digest)).first()
    return None if row is None else _release(row)


def list_releases(session: Session, model: ModelName | None, *, limit: int) -> list[Release]:
    """Releases, newest first."""
    query = select(ReleaseRow)
    if model is not None:
        query = query.where(ReleaseRow.model == model)
    rows = session.exec(query.order_by(col(ReleaseRow.pushed_at).desc(), col(ReleaseRow.version).desc()).limit(limit))
    return [_release(row) for row in rows]


def add_release(session: Session, release: Release, blobs: Iterable[StoredBlob]) -> None:
    """Remember a release and what belongs to it; repeating it changes nothing."""
    session.merge(
        ReleaseRow(
            model=release.model,
            version=release.version,
            digest=release.digest,
            length=release.length,
            pushed_at=release.pushed_at,
            pushed_by=release.pushed_by,
        )
    )
    for blob in {blob.digest: blob for blob in blobs}.values():
        session.merge(
            ReleaseBlobRow(
                model=release.model, digest=blob.digest, size_bytes=blob.size_bytes, media_type=blob.media_type
            )
        )


def find_blob(session: Session, model: ModelName, digest: Digest) -> StoredBlob | None:
    """A blob that belongs to an accepted release of a model."""
    row = session.get(ReleaseBlobRow, (model, digest))
    return None if row is None else StoredBlob(Digest(row.digest), row.size_bytes, row.media_type)


def _release(row: ReleaseRow) -> Release:
    return Release(
        ModelName(row.model), Version(row.version), Digest(row.digest), row.length, row.pushed_at, row.pushed_by
    )
