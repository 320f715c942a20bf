"""A device's configuration: one TOML file, read once, unknown keys refused."""

from __future__ import annotations

import difflib
import math
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_runtime.contract.errors import ContractError, EdgeError
from edge_runtime.contract.ids import DeviceId, SlotId, parse_device_id, parse_slot_id, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an agent is told; the rest it finds out."""

    device: DeviceId
    state_dir: Path
    """Identity, journal, models; a relative path starts at the configuration file's folder."""
    enrolment: Path | None = None
    """Needed until the device has joined a fleet; holds a one-time secret."""
    labels: dict[str, str] = {}
    slots: list[SlotId] = msgspec.field(default_factory=lambda: [SlotId("main")])
    backends: list[Literal["onnxruntime", "openvino", "litert", "tensorrt", "tflite_runtime"]] = []
    """Engines the agent may use; empty: every engine that works here."""
    profile: str | None = None
    """Id of the device's profile, for limits that a release sets by profile."""
    memory_bytes: int | None = None
    """What the agent grants itself: admission, and RLIMIT_DATA of its processes; None: the board's memory."""
    link_bytes_per_s: float | None = None
    """Upper bound for downloads; None: as fast as the link."""
    clock_offset_s: float = 0.0
    """Added to the system clock wherever the agent reads it (a dead clock is −1.8e9: 1970)."""
    polling: bool = False
    """Messages over HTTPS alone, for a site where no broker can be reached."""
    poll_interval_s: float = 30.0
    """How often the server is asked without a doorbell, and reports are said again."""
    telemetry_window_s: float = 10.0
    """Length of one window of counters and latencies."""
    source_interval_s: float = 0.2
    """Pause between two images of `--source`."""
    threads: int = 1
    """Intra-op threads of the inference engine."""
    trial_timeout_s: float = 120.0
    """A trial that takes longer is ended and counts as too slow."""
    outbox_bytes: int = 16 * 1024 * 1024
    """Telemetry kept at most while the server is away; beyond it the oldest is given up, and that is said."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    unsafe_disable: list[Literal["golden", "signatures"]] = []
    """Defences switched off: for showing that they matter, never for a fleet. Said at every start and birth."""


def read_settings(path: Path) -> DeviceSettings:
    """Read a device's configuration file.

    Raises:
        ContractError: it cannot be read, is no TOML, or has unknown, missing or impossible values.
    """
    try:
        with path.open("rb") as source:
            fields = tomllib.load(source)
    except OSError as error:
        why = error.strerror or str(error)
        raise ContractError(f"read {path}", why, "name the device's configuration file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"read {path}", f"it is not TOML ({error})", "correct that line") from error
    return settings_from(fields, path)


def settings_from(fields: dict[str, Any], path: Path) -> DeviceSettings:
    """Check configuration values that were read from `path`. Raises: ContractError."""
    try:
        settings = msgspec.convert(fields, DeviceSettings, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ContractError(f"use {path}", shown(str(error), 200), _advice(fields)) from error
    _check(settings, path)
    folder = path.resolve().parent
    return msgspec.structs.replace(
        settings,
        state_dir=folder / settings.state_dir,
        enrolment=None if settings.enrolment is None else folder / settings.enrolment,
    )


def _advice(fields: dict[str, Any]) -> str:
    known = DeviceSettings.__struct_fields__
    odd = next((name for name in fields if name not in known), None)
    near = difflib.get_close_matches(odd, known, n=1) if odd is not None else []
    if near:
        return f"write {near[0]} instead of {odd}"
    return "correct it; the guide 'Configure a device' lists every key and what it may be"


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}")


def _check(settings: DeviceSettings, path: Path) -> None:
    try:
        parse_device_id(settings.device)
        for slot in settings.slots:
            parse_slot_id(slot)
    except EdgeError as error:
        raise ContractError(f"use {path}", str(error)) from error
    positive = {
        "memory_bytes": settings.memory_bytes,
        "link_bytes_per_s": settings.link_bytes_per_s,
        "poll_interval_s": settings.poll_interval_s,
        "telemetry_window_s": settings.telemetry_window_s,
        "source_interval_s": settings.source_interval_s,
        "threads": settings.threads,
        "trial_timeout_s": settings.trial_timeout_s,
        "outbox_bytes": settings.outbox_bytes,
    }
    for key, value in positive.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ContractError(f"use {path}", f"{key} is {value}", "use a number above 0")
    if not math.isfinite(settings.clock_offset_s):
        raise ContractError(f"use {path}", f"clock_offset_s is {settings.clock_offset_s}", "use a number of seconds")
    if not settings.slots or len(set(settings.slots)) != len(settings.slots):
        raise ContractError(f"use {path}", "slots are empty or repeat a name", "name each slot once")
