"""The denylist on disk: written whole, so that a broker that is starting again finds what was revoked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_runtime.contract.ids import DeviceId
from fleet_server.messaging.broker import BrokerError, DeniedCertificate, Denylist
from fleet_server.messaging.files import replace_file


def read_denylist(path: Path) -> Denylist:
    """What is revoked; nothing when the file was never written. Raises: BrokerError when it cannot be understood."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
        certificates = (entry.rpartition("/") for entry in found["certificates"])
        return Denylist(
            frozenset(DeviceId(name) for name in found["devices"]),
            frozenset(DeniedCertificate(DeviceId(name), int(serial, 16)) for name, _, serial in certificates),
        )
    except FileNotFoundError:
        return Denylist()
    except (OSError, msgspec.MsgspecError, KeyError, ValueError) as error:
        raise BrokerError(f"read the denylist {path}", str(error), "revoke once more to write it again") from error


def write_denylist(path: Path, denied: Denylist) -> None:
    """Replace the denylist in one step. Raises: BrokerError."""
    document = {
        "devices": sorted(denied.devices),
        "certificates": sorted(f"{entry.device_id}/{entry.serial:x}" for entry in denied.certificates),
    }
    replace_file(path, msgspec.json.encode(document))
