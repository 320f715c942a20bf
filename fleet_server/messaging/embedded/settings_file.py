"""How the server hands its settings to the embedded broker's process: one JSON file, written whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from fleet_server.messaging.broker import BrokerError, BrokerSettings
from fleet_server.messaging.files import replace_file


@dataclass(frozen=True, slots=True)
class _Document:
    settings: BrokerSettings
    denylist_file: Path


def write_settings(path: Path, settings: BrokerSettings, denylist_file: Path) -> None:
    """Write what `read_settings` reads. Raises: BrokerError."""
    document = {"settings": asdict(settings), "denylist_file": denylist_file}
    replace_file(path, msgspec.json.encode(document, enc_hook=str))


def read_settings(path: Path) -> tuple[BrokerSettings, Path]:
    """Settings and the place of the denylist. Raises: BrokerError."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document, dec_hook=_path)
    except (OSError, msgspec.MsgspecError) as error:
        raise BrokerError(f"read broker settings {path}", str(error), "start the broker through edge-fleet") from error
    return document.settings, document.denylist_file


def _path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str):
        raise msgspec.ValidationError(f"{kind.__name__} cannot be read from {value!r}")
    return Path(value)
