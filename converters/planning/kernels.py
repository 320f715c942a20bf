"""Which 8-bit arithmetic a CPU has, as far as it changes what a quantised model answers; pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

UNMEASURED: Final = "unmeasured"
"""Code of a candidate that could not be asked with the kernels that count."""

_DOT_PRODUCT: Final = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})
"""x86 extensions that sum products of bytes in 32 bits."""

_SPEED: Final = frozenset(
    {
        "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
        "avx512_fp16", "amx_int8", "amx_bf16", "amx_tile", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
    }
)  # fmt: skip
"""Extensions that decide which kernels run, and so how fast."""


def may_saturate(arch: str, isa: Collection[str]) -> bool:
    """Whether 8-bit kernels of this CPU may add two products in 16 bits and clip the sum.

    On x86 without a dot-product extension engines use VPMADDUBSW; two products of an unsigned and a signed byte reach
    2 × 255 × 127 = 64 770, and 16 bits hold 32 767. Source: ONNX Runtime documentation, Quantize ONNX Models, "When and
    why do I need to try U8U8?".
    """
    return arch == "x86_64" and not _DOT_PRODUCT.intersection(isa)


def kernels_of(arch: str, isa: Collection[str]) -> str:
    """The kind of 8-bit kernels a CPU has, for a person; what agrees here answers alike."""
    if arch != "x86_64":
        return arch
    return "x86_64 without VNNI" if may_saturate(arch, isa) else "x86_64 with VNNI"


def is_same_speed_class(one: Collection[str], other: Collection[str]) -> bool:
    """Whether two CPUs of one architecture have the same extensions that decide about speed."""
    return speed_extensions(one) == speed_extensions(other)


def speed_extensions(isa: Collection[str]) -> frozenset[str]:
    """Those extensions of a CPU that decide about speed."""
    return _SPEED.intersection(isa)
