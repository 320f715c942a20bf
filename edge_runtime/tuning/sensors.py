"""Energy, where a board measures it: Intel and AMD's RAPL counters, INA3221 monitors (Jetson). Only reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edge_runtime.contract.errors import InferenceError

_POWERCAP: Final = Path("/sys/class/powercap")
_HWMON: Final = Path("/sys/class/hwmon")
_SAMPLE_S: Final = 0.02


class EnergySensor(Protocol):
    """Counts the energy of the whole board or package from `start` to `stop`."""

    @property
    def title(self) -> str:
        """What it measures."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> float:
        """Joules since `start`. Raises: InferenceError when it can no longer be read."""


@dataclass(frozen=True, slots=True)
class _Zone:
    energy: Path
    max_range_uj: int


class Rapl:
    """Energy counters of the processor packages; they count on by themselves and wrap around.

    Args:
        root: `/sys/class/powercap`.

    Raises:
        InferenceError: none there, or not readable.
    """

    def __init__(self, root: Path = _POWERCAP) -> None:
        # Packages only: `intel-rapl:0:0` is a part of `intel-rapl:0`.
        found = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self._zones = [_Zone(one / "energy_uj", _number(one / "max_energy_range_uj")) for one in found]
        if not self._zones:
            raise InferenceError("measure energy", "this machine has no RAPL counter")
        for zone in self._zones:
            _number(zone.energy)
        self._before: list[int] = []
        self.title = f"RAPL, {len(self._zones)} package{'s' * (len(self._zones) > 1)}"

    def start(self) -> None:
        """Read the counters."""
        self._before = [_number(zone.energy) for zone in self._zones]

    def stop(self) -> float:
        """Joules since `start`; a counter that wrapped once is put right. Raises: InferenceError."""
        total_uj = 0
        for zone, before in zip(self._zones, self._before, strict=True):
            spent = _number(zone.energy) - before
            total_uj += spent if spent >= 0 else spent + zone.max_range_uj
        return total_uj / 1e6


class Ina3221:
    """A power monitor of the board's supply rails, read fifty times a second and added up.

    Args:
        root: `/sys/class/hwmon`.

    Raises:
        InferenceError: none there, or not readable.
    """

    def __init__(self, root: Path = _HWMON) -> None:
        self._rails: list[tuple[Path, Path]] = []
        names: list[str] = []
        for chip in sorted(root.glob("hwmon*")):
            if not (chip / "name").is_file() or (chip / "name").read_text().strip() != "ina3221":
                continue
            for current in sorted(chip.glob("curr[1-3]_input")):
                channel = current.name[4]
                label = chip / f"in{channel}_label"
                names.append(label.read_text().strip() if label.is_file() else f"rail {channel}")
                self._rails.append((chip / f"in{channel}_input", current))
        whole = [at for at, name in enumerate(names) if name in _WHOLE_BOARD]
        if whole:
            # The input rail carries everything; adding the rails behind it would count them twice.
            self._rails, names = [self._rails[at] for at in whole], [names[at] for at in whole]
        if not self._rails:
            raise InferenceError("measure energy", "this board has no INA3221 monitor")
        self.title = f"INA3221, {', '.join(names)}"
        self._watts()
        self._joules = 0.0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read."""
        self._joules, self._ending = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Joules since `start`. Raises: InferenceError."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(5)
        return self._joules

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ending.wait(_SAMPLE_S):
            now = time.monotonic()
            self._joules += self._watts() * (now - before)
            before = now

    def _watts(self) -> float:
        # Millivolt times milliampere.
        return sum(_number(volts) * _number(current) for volts, current in self._rails) / 1e6


_WHOLE_BOARD: Final = frozenset({"VDD_IN", "POM_5V_IN"})
"""Rails that feed a Jetson; source: NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance"."""


def find_sensor(powercap: Path = _POWERCAP, hwmon: Path = _HWMON) -> tuple[EnergySensor | None, str]:
    """The first sensor that can be read, and its title; or None and why there is none."""
    jetson = _tried(lambda: Ina3221(hwmon))
    found = jetson if not isinstance(jetson, str) else _tried(lambda: Rapl(powercap))
    if isinstance(found, str):
        return None, f"{jetson}; {found}"
    return found, found.title


def _tried(make: Callable[[], EnergySensor]) -> EnergySensor | str:
    try:
        return make()
    except InferenceError as error:
        return error.because


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError as error:
        raise InferenceError("measure energy", f"{path} is readable for root only", "run it as root") from error
    except (OSError, ValueError) as error:
        raise InferenceError("measure energy", f"{path} cannot be read") from error
