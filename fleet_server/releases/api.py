"""Release routes: push and list for people; OCI pull and TUF metadata for devices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from edge_runtime.contract import device_api
from edge_runtime.contract.digest import Digest, parse_digest
from edge_runtime.contract.ids import ModelName, parse_model_name, parse_version
from edge_runtime.contract.layout import OCI_INDEX, OCI_MANIFEST
from fleet_server.db import Database
from fleet_server.errors import NotFound
from fleet_server.identity.access import Releaser, Viewer
from fleet_server.identity.peer_certificate import Peer
from fleet_server.problems import responses
from fleet_server.releases.blobs import Upload
from fleet_server.releases.model import Push, Release, ReleaseDetail
from fleet_server.releases.service import Releases
from fleet_server.releases.signing import TufRepository

people = APIRouter(prefix="/api/v1", tags=["releases"], responses=responses(401, 403))
devices = APIRouter(tags=["device"], responses=responses(401, 404))

_IMMUTABLE = "max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class ReleasePorts:
    """What these routes need."""

    database: Database
    releases: Releases
    repository: TufRepository


def _ports(request: Request) -> ReleasePorts:
    return cast("ReleasePorts", request.app.state.releases)


Ports = Annotated[ReleasePorts, Depends(_ports)]


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """One release."""

    model: str
    version: str
    digest: str
    target: str
    length: int
    pushed_at: float
    pushed_by: str
    withdrawn: bool
    """Whether its team no longer lists it: devices refuse to install it, and no rollout can name it."""


@dataclass(frozen=True, slots=True)
class ReleaseList:
    """Releases, newest first."""

    items: list[ReleaseView]


@dataclass(frozen=True, slots=True)
class VariantView:
    """One variant: what it is built for, and what the converter measured."""

    id: str
    digest: str
    target: dict[str, object]
    size_bytes: int
    evidence: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class ReleaseDetailView:
    """A release with variants, evidence, and the defences that were switched off when it was built."""

    release: ReleaseView
    task: str
    licence: str
    waivers: list[dict[str, object]]
    variants: list[VariantView]
    refused: dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class BlobStored:
    """An uploaded blob."""

    digest: str
    size_bytes: int


class PushRequest(BaseModel):
    """A release whose blobs are uploaded."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "model": "digits",
                "version": "1.0.0",
                "release_digest": "sha256:" + "0" * 64,
                "metadata": '{"signatures":[…],"signed":{"_type":"targets",…}}',
            }
        },
    )

    model: str
    version: str
    release_digest: str
    metadata: str
    """The model's TUF role metadata, signed by its team, as text."""
    withdraws: list[str] = []
    """Versions that this metadata no longer lists on purpose: devices will refuse them from now on."""


@people.head("/releases/blobs/{digest}", responses=responses(404))
def has_blob(_who: Releaser, ports: Ports, digest: str) -> Response:
    """Whether a blob is here already: then it need not be sent again."""
    size_bytes = ports.releases.blobs.size_of(parse_digest(digest))
    if size_bytes is None:
        raise NotFound("show the blob", "it is not stored here", "upload it with PUT")
    return Response(headers={"X-Blob-Size": str(size_bytes)})


@people.put("/releases/blobs/{digest}", status_code=201, responses=responses(413, 422, 507))
async def put_blob(_who: Releaser, ports: Ports, digest: str, request: Request) -> BlobStored:
    """Upload one blob; it is checked against its digest before it counts."""
    wanted = parse_digest(digest)
    with ports.releases.blobs.upload(wanted) as upload:
        await _receive(request, upload)
        size_bytes = await run_in_threadpool(upload.finish)
    return BlobStored(wanted, size_bytes)


@people.post("/releases", status_code=201, responses=responses(409, 422))
def push_release(who: Releaser, ports: Ports, wanted: PushRequest) -> ReleaseView:
    """Offer an uploaded release; everything a device would check is checked first."""
    push = Push(
        parse_model_name(wanted.model),
        parse_version(wanted.version),
        parse_digest(wanted.release_digest),
        wanted.metadata.encode(),
        frozenset(parse_version(version) for version in wanted.withdraws),
    )
    return _views(ports.releases, [ports.releases.accept(push, by=who.name, now=time.time())])[0]


@people.get("/releases")
def list_releases(
    _who: Viewer, ports: Ports, model: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> ReleaseList:
    """Releases, newest first."""
    with ports.database.reading() as session:
        chosen = None if model is None else parse_model_name(model)
        return ReleaseList(_views(ports.releases, ports.releases.list(session, chosen, limit=limit)))


@people.get("/releases/{model}/{version}", responses=responses(404))
def show_release(_who: Viewer, ports: Ports, model: str, version: str) -> ReleaseDetailView:
    """One release with variants, evidence and waivers."""
    with ports.database.reading() as session:
        release = ports.releases.get(session, parse_model_name(model), parse_version(version))
    return _detail_view(ports.releases.detail(release), _views(ports.releases, [release])[0])


@people.get("/trust/models/{model}", responses=responses(404))
def show_model_metadata(_who: Viewer, ports: Ports, model: str) -> Response:
    """The model's role metadata in force, on top of which the next release is signed."""
    return Response(ports.releases.model_metadata(parse_model_name(model)), media_type="application/json")


@people.get("/trust/root")
def show_root(_who: Viewer, ports: Ports) -> Response:
    """The newest trusted root, as enrolment hands it to devices."""
    return Response(ports.repository.root(), media_type="application/json")


@devices.get(device_api.TUF + "/{file_name}")
def tuf_metadata(_device: Peer, ports: Ports, file_name: str) -> Response:
    """One file of TUF metadata."""
    return Response(ports.repository.metadata(file_name), media_type="application/json")


@devices.head("/v2/{model}/blobs/{digest}", include_in_schema=False)
@devices.get("/v2/{model}/blobs/{digest}")
def pull_blob(_device: Peer, ports: Ports, model: str, digest: str) -> Response:
    """A blob; understands Range and If-Range, so an interrupted download goes on where it stopped."""
    return _file(ports.releases, parse_model_name(model), parse_digest(digest), "application/octet-stream")


@devices.head("/v2/{model}/manifests/{digest}", include_in_schema=False)
@devices.get("/v2/{model}/manifests/{digest}")
def pull_manifest(_device: Peer, ports: Ports, model: str, digest: str) -> Response:
    """A manifest or index, by digest only: tags can move."""
    return _file(ports.releases, parse_model_name(model), parse_digest(digest), None)


async def _receive(request: Request, upload: Upload) -> None:
    async for piece in request.stream():
        upload.write(piece)


def _file(releases: Releases, model: ModelName, digest: Digest, media_type: str | None) -> Response:
    blob = releases.blob(model, digest)
    if media_type is None and blob.media_type not in {OCI_INDEX, OCI_MANIFEST}:
        raise NotFound(f"serve manifest {digest}", "it is no manifest", "ask for it under /blobs/")
    headers = {"ETag": f'"{digest}"', "Docker-Content-Digest": digest, "Cache-Control": _IMMUTABLE}
    return FileResponse(releases.blobs.path_of(digest), media_type=media_type or blob.media_type, headers=headers)


def _views(service: Releases, releases: Sequence[Release]) -> list[ReleaseView]:
    withdrawn = service.withdrawn(releases)
    return [
        ReleaseView(
            model=release.model,
            version=release.version,
            digest=release.digest,
            target=release.target,
            length=release.length,
            pushed_at=release.pushed_at,
            pushed_by=release.pushed_by,
            withdrawn=release.target in withdrawn,
        )
        for release in releases
    ]


def _detail_view(detail: ReleaseDetail, release: ReleaseView) -> ReleaseDetailView:
    evidence = detail.evidence
    measured = evidence.variants if evidence else {}
    return ReleaseDetailView(
        release=release,
        task=detail.manifest.task,
        licence=detail.manifest.licence.spdx,
        waivers=[msgspec.to_builtins(waiver) for waiver in detail.manifest.waivers],
        variants=[
            VariantView(
                id=variant.manifest.id,
                digest=variant.digest,
                target=msgspec.to_builtins(variant.manifest.target),
                size_bytes=sum(file.size for file in variant.manifest.files),
                evidence=msgspec.to_builtins(measured[variant.manifest.id])
                if variant.manifest.id in measured
                else None,
            )
            for variant in detail.variants
        ],
        refused={name: msgspec.to_builtins(entry) for name, entry in (evidence.refused if evidence else {}).items()},
    )
