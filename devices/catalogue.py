"""The board classes edgefleet knows: one TOML file each, loaded and checked here, and the family names over them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

import msgspec

from devices.errors import DeviceError, UnknownTarget
from edge_runtime.contract.codec import check_schema
from edge_runtime.contract.device_profile import DeviceProfile, check_profile
from edge_runtime.contract.ids import shown

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "cpu": ("arm64-cpu", "raspberry-pi-5", "x86-64-cpu"),
        "coral": ("coral-dev-board", "coral-dev-board-mini", "coral-usb", "coral-usb-x86-64"),
        "jetson": ("jetson-orin", "jetson-thor", "jetson-xavier"),
    }
)
"""Family aliases that `--target` and the keys of `limits` accept, with their profiles."""


@cache
def load_catalogue() -> Mapping[str, DeviceProfile]:
    """All profiles by id, sorted. Raises: DeviceError for a profile file that cannot be used."""
    profiles: dict[str, DeviceProfile] = {}
    folder = resources.files("devices") / "profiles"
    for file in folder.iterdir():
        if file.name.endswith(".toml"):
            profile = parse_profile(file.read_bytes(), file.name)
            profiles[profile.id] = profile
    _check_families(profiles)
    return MappingProxyType(dict(sorted(profiles.items())))


def parse_profile(content: bytes, name: str) -> DeviceProfile:
    """Read one profile; its file must be called `<id>.toml`.

    Raises:
        DeviceError: not TOML, an unknown key, a missing field, or another id than the file's name.
        ContractError: a field has an impossible value.
    """
    try:
        raw = msgspec.toml.decode(content)
        profile = msgspec.convert(raw, DeviceProfile)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DeviceError(f"read profile {name}", shown(str(error), 200), "correct the file") from error
    known = {field.encode_name for field in msgspec.structs.fields(DeviceProfile)}
    # Configuration refuses unknown keys: a misspelt `isa` would silently promise less.
    if unknown := sorted(set(raw) - known):
        raise DeviceError(f"read profile {name}", f"it has the unknown key {shown(unknown[0])}", "correct the file")
    check_schema(profile.schema, name)
    if name != f"{profile.id}.toml":
        raise DeviceError(f"read profile {name}", f"it calls itself {shown(profile.id)}", "rename one of them")
    return check_profile(profile)


def resolve_targets(targets: tuple[str, ...]) -> tuple[DeviceProfile, ...]:
    """The profiles behind target names (profile ids or family aliases), each once, sorted by id.

    Raises:
        UnknownTarget: a name is neither.
    """
    catalogue = load_catalogue()
    chosen: set[str] = set()
    for target in targets:
        if target in catalogue:
            chosen.add(target)
        elif target in FAMILIES:
            chosen.update(FAMILIES[target])
        else:
            known = ", ".join([*FAMILIES, *catalogue])
            raise UnknownTarget(f"build for target {shown(target)}", "there is no such board class", f"use {known}")
    return tuple(catalogue[profile_id] for profile_id in sorted(chosen))


def aliases_of(profile_id: str) -> tuple[str, ...]:
    """The family names that include a profile, for looking up limits."""
    return tuple(family for family, members in FAMILIES.items() if profile_id in members)


def _check_families(profiles: Mapping[str, DeviceProfile]) -> None:
    for family, members in FAMILIES.items():
        declared = {profile.id for profile in profiles.values() if profile.family == family}
        if declared != set(members):
            raise DeviceError(f"use family {family}", "its table and the profiles' `family` disagree", "correct one")
