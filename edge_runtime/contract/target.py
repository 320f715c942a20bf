"""What a model is compiled for."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from edge_runtime.contract.codec import Document


class Target(Document, frozen=True, kw_only=True):
    """Engine, architecture, accelerator and precision of one variant; all strings are open enums."""

    engine: str
    """`onnxruntime`, `openvino`, `litert`, `tensorrt`, …"""
    precision: str
    """Of the arithmetic: `float32`, `float16`, `int8`, `int8+float16`, …"""
    provider: list[str] = []
    """Execution providers, any of which will do (`cpu`, `cuda`, `xnnpack`, `edgetpu`); empty: the engine's default."""
    arch: list[str] = []
    """CPU architectures as `uname -m` prints them; empty: any."""
    isa_all: list[str] = []
    """Instruction-set extensions that must all be present (`avx2`, `avx512_vnni`, `asimddp`)."""
    accelerator: str | None = None
    """`edgetpu-v1`, `nvidia-gpu`, …; None: a plain CPU."""
