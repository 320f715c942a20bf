"""Which board is this? Facts of the machine, and the pure mapping from facts to a profile."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.contract.device_profile import DeviceProfile

RELEVANT_ISA: Final = frozenset(
    {
        "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
        "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_tile",
        "asimd", "asimddp", "asimdhp", "fphp", "bf16", "i8mm", "sve", "sve2",
    }
)  # fmt: skip
"""Extensions that change which kernels an inference engine picks; names as in /proc/cpuinfo."""

EDGE_TPU, NVIDIA_GPU = "edgetpu-v1", "nvidia-gpu"
"""Accelerators as variants and profiles name them."""

_EDGE_TPU_USB: Final = frozenset({("1a6e", "089a"), ("18d1", "9302")})
"""USB ids before and after the runtime has loaded the firmware; source: libedgetpu, udev rules."""

_ARM_PARTS: Final = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd42": "Cortex-A78AE"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine says about itself, as far as inference cares."""

    arch: str
    isa: tuple[str, ...]
    cpu: str
    cores: int
    memory_bytes: int
    board: str | None
    accelerators: tuple[str, ...] = ()


def match_profile(
    profiles: Iterable[DeviceProfile],
    arch: str,
    isa: Iterable[str],
    *,
    board: str | None,
    accelerators: Iterable[str] = (),
) -> DeviceProfile | None:
    """The most specific profile a machine satisfies; None when it satisfies none.

    A named board beats an unnamed one, an accelerator beats none, more instruction sets beat fewer.
    """
    have, attached = frozenset(isa), frozenset(accelerators)
    fitting = [
        profile
        for profile in profiles
        if profile.arch == arch
        and have.issuperset(profile.isa)
        and (profile.board is None or (board or "").startswith(profile.board))
        and (profile.accelerator is None or profile.accelerator in attached)
    ]
    return max(fitting, key=_specificity, default=None)


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """CPU name and relevant instruction-set extensions of the first core in /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    part = fields.get("CPU part", "")
    name = fields.get("model name") or _ARM_PARTS.get(part) or (f"ARM part {part}" if part else "unknown")
    return name, tuple(sorted(RELEVANT_ISA.intersection(flags)))


def parse_meminfo(text: str) -> int:
    """Total memory in bytes from /proc/meminfo; 0 when it does not say."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "MemTotal:" and words[1].isdigit():
            return int(words[1]) * 1024
    return 0


def read_machine(root: Path = Path("/")) -> Machine:
    """Look at this machine; what cannot be read is reported as unknown, never guessed."""
    cpu, isa = parse_cpuinfo(_text(root / "proc/cpuinfo"))
    # The device tree ends its strings with NUL.
    board = _text(root / "proc/device-tree/model").rstrip("\0").strip() or None
    return Machine(
        arch=platform.machine(),
        isa=isa,
        cpu=cpu,
        cores=os.cpu_count() or 1,
        memory_bytes=parse_meminfo(_text(root / "proc/meminfo")),
        board=board,
        accelerators=_accelerators(root),
    )


def profile_of(machine: Machine, profiles: Mapping[str, DeviceProfile]) -> DeviceProfile | None:
    """The profile of a machine; None when the catalogue has none for it."""
    return match_profile(
        profiles.values(), machine.arch, machine.isa, board=machine.board, accelerators=machine.accelerators
    )


def _specificity(profile: DeviceProfile) -> tuple[bool, bool, int, str]:
    return profile.board is not None, profile.accelerator is not None, len(profile.isa), profile.id


def _accelerators(root: Path) -> tuple[str, ...]:
    """What is plugged in or built in; that it works is another question, which only the engine can answer."""
    found: list[str] = []
    usb = {
        (_text(device / "idVendor").strip(), _text(device / "idProduct").strip())
        for device in (root / "sys/bus/usb/devices").glob("*")
    }
    if usb & _EDGE_TPU_USB or any((root / "dev").glob("apex_*")):
        found.append(EDGE_TPU)
    # A Jetson's GPU is part of the chip, a PC's shows in its driver.
    if "nvidia,tegra" in _text(root / "proc/device-tree/compatible") or (root / "proc/driver/nvidia/version").exists():
        found.append(NVIDIA_GPU)
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
