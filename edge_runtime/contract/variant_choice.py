"""Which variants of a release fit a device, and in which order it should try them (pure).

The server orders candidates with it for assignments and previews; the device drops what no longer fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from edge_runtime.contract import reasons
from edge_runtime.contract.device_profile import DeviceFacts, EngineFact
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import KNOWN_FEATURES, VariantManifest

# Prior guesses only: they order candidates nobody has measured yet; the device's trial decides.
_ACCELERATED: Final = 0
_PRECISION_ORDER: Final[Mapping[str, int]] = {"int8": 1, "int8+float16": 1, "float16": 2, "float32": 3}
_SIGNS: Final = (">=", "<=", "==", "!=", ">", "<")
_DIGITS: Final = "0123456789"
_MEMORY_SHARE: Final = 0.8
"""Of the memory granted to the agent, the largest part one model may need at its peak."""


class OfferedVariant(msgspec.Struct, frozen=True):
    """A variant as the chooser sees it."""

    digest: Digest
    manifest: VariantManifest
    latency_ms: float | None = None
    """Median measured on this device class, where the fleet knows one."""


class Rejected(msgspec.Struct, frozen=True):
    """A variant that cannot run on this device, and why, in one sentence."""

    variant: VariantId
    code: str
    because: str


class Choice(msgspec.Struct, frozen=True):
    """Fitting variants, best first, and the rest with reasons."""

    candidates: tuple[OfferedVariant, ...]
    rejected: tuple[Rejected, ...]


def choose(
    variants: tuple[OfferedVariant, ...], facts: DeviceFacts, winner: Digest | None = None
) -> Choice:
    """Order the variants that fit a device.

    Args:
        variants: all variants of one release.
        facts: what the device reported about itself.
        winner: the variant that already won on this device class; comes first when it fits.
    """
    fitting: list[OfferedVariant] = []
    rejected: list[Rejected] = []
    for offered in variants:
        misfit = find_misfit(offered.manifest, facts)
        if misfit is None:
            fitting.append(offered)
        else:
            rejected.append(misfit)
    ordered = sorted(fitting, key=lambda offered: _rank(offered, winner))
    return Choice(tuple(ordered), tuple(rejected))


def find_misfit(manifest: VariantManifest, facts: DeviceFacts) -> Rejected | None:
    """The first reason why a variant cannot run on a device; None when it fits."""
    checks = (_features(manifest), _machine(manifest, facts), _engine(manifest, facts), _memory(manifest, facts))
    for code, because in (check for check in checks if check is not None):
        return Rejected(manifest.id, code, because)
    return None


def version_satisfies(version: str, requirement: str | None) -> bool:
    """Whether a release number meets a comma-separated requirement (`>=1.17,<2`); suffixes such as `+cu12` are ignored.

    A requirement that cannot be read is not satisfied.
    """
    if not requirement:
        return True
    have = _numbers(version)
    return have is not None and all(_bound_holds(have, bound) for bound in requirement.split(","))


def _rank(offered: OfferedVariant, winner: Digest | None) -> tuple[bool, bool, float, int, int, str]:
    target = offered.manifest.target
    return (
        offered.digest != winner,
        offered.latency_ms is None,
        offered.latency_ms or 0.0,
        _ACCELERATED if target.accelerator else 1,
        _PRECISION_ORDER.get(target.precision, 4),
        offered.manifest.id,
    )


def _features(manifest: VariantManifest) -> tuple[str, str] | None:
    unknown = sorted(set(manifest.requires) - KNOWN_FEATURES)
    if manifest.encryption is not None:
        unknown.append("encrypted")
    return (reasons.UNSUPPORTED_FEATURE, f"it requires {unknown[0]!r}") if unknown else None


def _machine(manifest: VariantManifest, facts: DeviceFacts) -> tuple[str, str] | None:
    target = manifest.target
    if target.arch and facts.arch not in target.arch:
        return reasons.NO_VARIANT, f"it is built for {' or '.join(target.arch)}, this device is {facts.arch}"
    if missing := [isa for isa in target.isa_all if isa not in facts.isa]:
        return reasons.NO_VARIANT, f"the CPU lacks {', '.join(missing)}"
    if target.accelerator and target.accelerator not in facts.accelerators:
        return reasons.NO_VARIANT, f"there is no {target.accelerator} on this device"
    return None


def _engine(manifest: VariantManifest, facts: DeviceFacts) -> tuple[str, str] | None:
    target = manifest.target
    engine = next((fact for fact in facts.engines if fact.name == target.engine), None)
    if engine is None:
        return reasons.NO_VARIANT, f"the device has no {target.engine}"
    # Of another library the numbers say nothing about this engine's; its owner chose it, and loading decides.
    if not engine.library and not version_satisfies(engine.version, manifest.engine.version):
        needs = f"{target.engine} {manifest.engine.version}"
        return reasons.NO_VARIANT, f"it needs {needs}, the device has {engine.version}"
    if target.provider and not set(target.provider) & set(engine.providers):
        return reasons.NO_VARIANT, _no_provider(target.provider, engine)
    return None


def _no_provider(wanted: list[str], engine: EngineFact) -> str:
    have = ", ".join(engine.providers) or "none"
    return f"it needs provider {' or '.join(wanted)} of {engine.name}, the device has {have}"


def _memory(manifest: VariantManifest, facts: DeviceFacts) -> tuple[str, str] | None:
    if manifest.resources is None:
        return None
    granted = int(facts.memory_bytes * _MEMORY_SHARE)
    if manifest.resources.peak_bytes <= granted:
        return None
    return reasons.MEMORY, f"it needs {manifest.resources.peak_bytes} bytes, the device grants {granted}"


def _numbers(version: str) -> tuple[int, ...] | None:
    """The dotted numbers that a version begins with; None where it begins with none."""
    numbers: list[int] = []
    for part in version.split("."):
        rest = part.lstrip(_DIGITS)
        if rest == part:
            break
        numbers.append(int(part.removesuffix(rest)))
        if rest:
            break
    return tuple(numbers) or None


def _bound_holds(have: tuple[int, ...], bound: str) -> bool:
    bound = bound.strip()
    sign = next((one for one in _SIGNS if bound.startswith(one)), None)
    if sign is None:
        return False
    parts = bound.removeprefix(sign).lstrip().split(".")
    if not all(part and not part.strip(_DIGITS) for part in parts):
        return False
    want = tuple(int(part) for part in parts)
    width = max(len(have), len(want))
    left, right = _padded(have, width), _padded(want, width)
    return {
        ">=": left >= right, "<=": left <= right, "==": left == right,
        "!=": left != right, ">": left > right, "<": left < right,
    }[sign]  # fmt: skip


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))
