"""Paths of the devices' HTTPS listener; device and server build them here only."""

from __future__ import annotations

from typing import Final

from edge_runtime.contract.digest import Digest, parse_digest
from edge_runtime.contract.ids import ModelName, parse_model_name

ENROL: Final = "/device/v1/enrol"
"""POST EnrolmentRequest → IdentityGrant; the only route that answers without a client certificate."""
RENEW: Final = "/device/v1/renew"
"""POST RenewalRequest → IdentityGrant."""
ASSIGNMENTS: Final = "/device/v1/assignments"
"""GET ?nonce=… → DirectorAnswer."""
BIRTH: Final = "/device/v1/birth"
"""POST Birth, for devices that poll."""
REPORTED: Final = "/device/v1/reported"
"""POST Reported, for devices that poll."""
TELEMETRY: Final = "/device/v1/telemetry"
"""POST TelemetryBatch → TelemetryAck, for devices that poll."""
TUF: Final = "/device/v1/tuf"
"""GET /<role file>: TUF metadata."""

NONCE_MAX_CHARS: Final = 64


def tuf_path(file_name: str) -> str:
    """Path of one TUF metadata file (`2.root.json`, `timestamp.json`)."""
    return f"{TUF}/{file_name}"


def blob_path(model: ModelName, digest: Digest) -> str:
    """OCI distribution path of a blob (config, layer)."""
    return f"/v2/{parse_model_name(model)}/blobs/{parse_digest(digest)}"


def manifest_path(model: ModelName, digest: Digest) -> str:
    """OCI distribution path of a manifest or index, by digest."""
    return f"/v2/{parse_model_name(model)}/manifests/{parse_digest(digest)}"
