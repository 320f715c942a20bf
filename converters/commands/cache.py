"""Shows and clears the cache of finished stages."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from converters.caching.cache import DEFAULT_MAX_BYTES, Cache
from converters.errors import CannotWrite


def show_cache(folder: Path, *, as_json: bool) -> str:
    """Entries and bytes by kind of stage."""
    found: dict[str, list[int]] = defaultdict(list)
    for entry in Cache(folder).entries():
        found[entry.stage].append(entry.size_bytes)
    kinds = {stage: {"entries": len(sizes), "bytes": sum(sizes)} for stage, sizes in sorted(found.items())}
    total = sum(kind["bytes"] for kind in kinds.values())
    if as_json:
        return json.dumps({"folder": str(folder), "stages": kinds, "bytes": total, "max_bytes": DEFAULT_MAX_BYTES})
    lines = [f"{stage:12} {kind['entries']:5} entries {_mib(kind['bytes']):>12}" for stage, kind in kinds.items()]
    return "\n".join([*lines, f"{folder}: {_mib(total)} of at most {_mib(DEFAULT_MAX_BYTES)}"])


def clear_cache(folder: Path, *, as_json: bool) -> str:
    """Remove every entry. Raises: CannotWrite."""
    try:
        count = Cache(folder).clear()
    except OSError as error:
        raise CannotWrite(f"clear the cache {folder}", error.strerror or str(error), "remove it by hand") from error
    return json.dumps({"folder": str(folder), "removed": count}) if as_json else f"{folder}: {count} entries removed"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.1f} MiB"
