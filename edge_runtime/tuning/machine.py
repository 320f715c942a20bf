"""Which machine a figure is from, and how busy it was."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from edge_runtime.contract.device_profile import DeviceFacts

BUSY_LOAD: Final = 0.5
"""Load average from which on single figures say little."""

RELEVANT_ISA: Final = frozenset(
    {
        "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
        "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2",
    }
)  # fmt: skip
"""Extensions that decide which kernels an engine picks; names as in /proc/cpuinfo."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A number without these is worth nothing."""

    cpu: str
    arch: str
    isa: tuple[str, ...]
    cores: int
    load_average: float
    """Of the minute before."""

    @property
    def is_busy(self) -> bool:
        """Whether other work disturbs what is measured."""
        return self.load_average > BUSY_LOAD


def machine_of(facts: DeviceFacts) -> Machine:
    """This machine now."""
    isa = tuple(one for one in facts.isa if one in RELEVANT_ISA)
    return Machine(cpu=facts.cpu, arch=facts.arch, isa=isa, cores=facts.cores, load_average=os.getloadavg()[0])
