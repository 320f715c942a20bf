"""What the board feels, as far as Linux tells; a value that cannot be read is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_THERMAL: Final = Path("/sys/class/thermal")
_STATUS: Final = Path("/proc/self/status")


def read_gauges() -> dict[str, float]:
    """Gauges for a telemetry window: `temperature_c` (hottest zone) and `rss_bytes` of the agent."""
    gauges: dict[str, float] = {}
    zones = [value for path in _THERMAL.glob("thermal_zone*/temp") if (value := _number(path)) is not None]
    if zones:
        gauges["temperature_c"] = max(zones) / 1000
    if (rss := _rss_bytes()) is not None:
        gauges["rss_bytes"] = rss
    return gauges


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _rss_bytes() -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) * 1024
    return None
