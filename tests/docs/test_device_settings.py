"""The table of a device's keys names every key of the settings, with its default."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from edge_runtime.settings import DeviceSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "configure-a-device.md"
ROW = re.compile(r"^\| `(?P<key>\w+)` \| (?P<unit>[^|]*)\| (?P<default>[^|]*) \| [^|]+ \|$", re.MULTILINE)


def shown_default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "needed"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "none" if value is None else f"`{json.dumps(value)}`"


def test_the_page_lists_every_key_in_order_with_its_default() -> None:
    rows = [(row["key"], row["default"]) for row in ROW.finditer(PAGE.read_text())]

    assert rows == [(field.name, shown_default(field)) for field in msgspec.structs.fields(DeviceSettings)]


def test_a_key_that_bears_a_unit_in_its_name_shows_it() -> None:
    units = {"bytes": "bytes", "bytes_per_s": "bytes/s", "s": "s"}

    for row in ROW.finditer(PAGE.read_text()):
        suffix = re.search(r"_(bytes_per_s|bytes|s)$", row["key"])
        wanted = units[suffix[1]] if suffix else None
        assert row["unit"].strip() in ({wanted} if wanted else {"", "path"}), row["key"]
