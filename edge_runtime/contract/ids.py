"""Names that travel: each is checked once, where it enters, and is then a type of its own."""

from __future__ import annotations

import re
from typing import Final, NewType

from edge_runtime.contract.errors import ContractError

DeviceId = NewType("DeviceId", str)
SlotId = NewType("SlotId", str)
ModelName = NewType("ModelName", str)
VariantId = NewType("VariantId", str)
Version = NewType("Version", str)
LayerName = NewType("LayerName", str)
TargetPath = NewType("TargetPath", str)

# `\Z`, not `$`: `$` would let a trailing newline through into topics, paths and certificates.
_DEVICE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
# OCI distribution specification 1.1, "Pulling manifests": a tag.
_VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_LAYER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")


def parse_device_id(text: str) -> DeviceId:
    """Check a device id (it is also a certificate CN and an MQTT client id).

    Raises:
        ContractError: not `[a-z0-9][a-z0-9-]{0,62}`.
    """
    return DeviceId(_matching(_DEVICE_ID, text, "device id", "use 1 to 63 of a-z, 0-9 and '-', not starting with '-'"))


def parse_slot_id(text: str) -> SlotId:
    """Check a slot name; same grammar as a device id. Raises: ContractError."""
    return SlotId(_matching(_DEVICE_ID, text, "slot", "use 1 to 63 of a-z, 0-9 and '-', not starting with '-'"))


def parse_model_name(text: str) -> ModelName:
    """Check a model name; same grammar as a device id. Raises: ContractError."""
    return ModelName(_matching(_DEVICE_ID, text, "model name", "use 1 to 63 of a-z, 0-9 and '-'"))


def parse_variant_id(text: str) -> VariantId:
    """Check a variant id; same grammar as a device id. Raises: ContractError."""
    return VariantId(_matching(_DEVICE_ID, text, "variant id", "use 1 to 63 of a-z, 0-9 and '-'"))


def parse_version(text: str) -> Version:
    """Check a release version, which is an OCI tag. Raises: ContractError."""
    return Version(_matching(_VERSION, text, "version", "use an OCI tag: up to 128 of A-Z a-z 0-9 . _ -"))


def parse_layer_name(text: str) -> LayerName:
    """Check a layer title; `.` and `..` are refused because titles become file names. Raises: ContractError."""
    if text in {".", ".."}:
        raise ContractError(f"use {text!r} as a layer name", "it names a directory", "give the file a name")
    return LayerName(_matching(_LAYER_NAME, text, "layer name", "use up to 100 of A-Z a-z 0-9 . _ -"))


def target_path(model: ModelName, version: Version) -> TargetPath:
    """The TUF target path of one release: `models/<name>/<version>`."""
    return TargetPath(f"models/{model}/{version}")


def parse_target_path(text: str) -> tuple[ModelName, Version]:
    """Split a TUF target path into model and version. Raises: ContractError."""
    parts = text.split("/")
    if len(parts) != 3 or parts[0] != "models":
        raise ContractError(f"read target path {shown(text)}", "it is not models/<name>/<version>")
    return parse_model_name(parts[1]), parse_version(parts[2])


def shown(text: object, limit: int = 80) -> str:
    """A hostile value as it may appear in a message: quoted, escaped, cut."""
    quoted = ascii(text)
    return quoted if len(quoted) <= limit else quoted[: limit - 1] + "…"


def _matching(pattern: re.Pattern[str], text: str, what: str, remedy: str) -> str:
    if not pattern.match(text):
        raise ContractError(f"use {shown(text)} as a {what}", "it has other characters or another length", remedy)
    return text
