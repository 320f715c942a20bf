"""Names that travel: each is checked once, where it enters, and is then a type of its own."""

from __future__ import annotations

from typing import Final, NewType

from edge_runtime.contract.errors import ContractError

DeviceId = NewType("DeviceId", str)
SlotId = NewType("SlotId", str)
ModelName = NewType("ModelName", str)
VariantId = NewType("VariantId", str)
Version = NewType("Version", str)
LayerName = NewType("LayerName", str)
TargetPath = NewType("TargetPath", str)

# Sets, not patterns: a model's first answer would wait for each of them to be compiled.
_LOWER: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_DEVICE_ID: Final = _LOWER | {"-"}
_DEVICE_ID_MAX: Final = 63
# OCI distribution specification 1.1, "Pulling manifests": a tag.
_VERSION: Final = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ._-")
_VERSION_MAX: Final = 128
_LAYER_NAME_MAX: Final = 100


def parse_device_id(text: str) -> DeviceId:
    """Check a device id (it is also a certificate CN and an MQTT client id).

    Raises:
        ContractError: not `[a-z0-9][a-z0-9-]{0,62}`.
    """
    return DeviceId(_plain(text, "device id"))


def parse_slot_id(text: str) -> SlotId:
    """Check a slot name; same grammar as a device id. Raises: ContractError."""
    return SlotId(_plain(text, "slot"))


def parse_model_name(text: str) -> ModelName:
    """Check a model name; same grammar as a device id. Raises: ContractError."""
    return ModelName(_plain(text, "model name"))


def parse_variant_id(text: str) -> VariantId:
    """Check a variant id; same grammar as a device id. Raises: ContractError."""
    return VariantId(_plain(text, "variant id"))


def parse_version(text: str) -> Version:
    """Check a release version, which is an OCI tag. Raises: ContractError."""
    if not _consists(text, _VERSION, _VERSION_MAX) or text[0] in {".", "-"}:
        raise _refused(text, "version", "use an OCI tag: up to 128 of A-Z a-z 0-9 . _ -")
    return Version(text)


def parse_layer_name(text: str) -> LayerName:
    """Check a layer title; `.` and `..` are refused because titles become file names. Raises: ContractError."""
    if text in {".", ".."}:
        raise ContractError(f"use {text!r} as a layer name", "it names a directory", "give the file a name")
    if not _consists(text, _VERSION, _LAYER_NAME_MAX):
        raise _refused(text, "layer name", "use up to 100 of A-Z a-z 0-9 . _ -")
    return LayerName(text)


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


def _plain(text: str, what: str) -> str:
    if not _consists(text, _DEVICE_ID, _DEVICE_ID_MAX) or text[0] == "-":
        raise _refused(text, what, "use 1 to 63 of a-z, 0-9 and '-', not starting with '-'")
    return text


def _consists(text: str, characters: frozenset[str], most: int) -> bool:
    return 0 < len(text) <= most and characters >= set(text)


def _refused(text: str, what: str, remedy: str) -> ContractError:
    return ContractError(f"use {shown(text)} as a {what}", "it has other characters or another length", remedy)
