"""Board classes (profiles) and the facts one device reports about itself."""

from __future__ import annotations

from typing import Final

from edge_runtime.contract.codec import SCHEMA, Document
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import parse_device_id, shown

SUPPORT_TIERS: Final = ("described", "builds", "emulated", "measured")
"""Honest order: vendor documentation read → an artifact builds → it ran emulated → numbers from a real unit."""


class EngineFact(Document, frozen=True, kw_only=True):
    """One inference engine that was constructed successfully."""

    name: str
    version: str
    providers: list[str]
    library: str = ""
    """Package that runs the engine's files in its place, and whose version this is; empty: the engine's own."""

    def __str__(self) -> str:
        """Name and version, as a person reads them."""
        return f"{self.name} ({self.library} {self.version})" if self.library else f"{self.name} {self.version}"


class DeviceProfile(Document, frozen=True, kw_only=True):
    """A board class, as data: what a release for it may assume."""

    schema: str = SCHEMA
    id: str
    title: str
    family: str
    """Alias that `--target` accepts for all its profiles: `cpu`, `coral`, `jetson`."""
    arch: str
    isa: list[str]
    engines: dict[str, str]
    """Oldest engine versions of the class, by engine name; they clamp opset and IR of ONNX files."""
    memory_bytes: int
    support_tier: str
    accelerator: str | None = None
    python: str | None = None
    board: str | None = None
    """Beginning of the board's own name (device tree `model`); None: any board with this CPU."""
    source: str | None = None
    """Where the facts come from (vendor document)."""


class DeviceFacts(Document, frozen=True, kw_only=True):
    """What one device found out about itself; sent with every birth message."""

    arch: str
    isa: list[str]
    cpu: str
    cores: int
    memory_bytes: int
    """What the agent may use: the smaller of the board's memory and its own limit."""
    engines: list[EngineFact]
    os: str
    python: str
    accelerators: list[str] = []
    board: str | None = None
    profile: str | None = None
    disk_free_bytes: int | None = None


def check_profile(profile: DeviceProfile) -> DeviceProfile:
    """Refuse a profile that could not be used. Raises: ContractError."""
    parse_device_id(profile.id)
    if profile.support_tier not in SUPPORT_TIERS:
        raise ContractError(
            f"use profile {profile.id}",
            f"support tier {shown(profile.support_tier)} is none of {', '.join(SUPPORT_TIERS)}",
        )
    return profile
