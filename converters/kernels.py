"""Which 8-bit arithmetic a CPU has, as far as it changes what a quantised model answers; pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

_DOT_PRODUCT: Final = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})
"""x86 extensions that sum products of bytes in 32 bits."""


def may_saturate(arch: str, isa: Collection[str]) -> bool:
    """Whether 8-bit kernels of this CPU may add two products in 16 bits and clip the sum.

    On x86 without a dot-product extension engines use VPMADDUBSW; two products of an unsigned and a signed byte reach
    2 × 255 × 127 = 64 770, and 16 bits hold 32 767. Source: ONNX Runtime documentation, Quantize ONNX Models, "When and
    why do I need to try U8U8?".
    """
    return arch == "x86_64" and not _DOT_PRODUCT.intersection(isa)
