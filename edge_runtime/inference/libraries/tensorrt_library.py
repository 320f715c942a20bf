"""The TensorRT that this machine would load."""

from __future__ import annotations

import ctypes
from typing import Final

_LIBRARIES: Final = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")


def tensorrt_version() -> str | None:
    """Its version; None without it. Source: NvInferRuntime.h, `getInferLibVersion`; NvInferVersion.h."""
    for name in _LIBRARIES:
        try:
            number = int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        # Four digits until 9.x (8502 is 8.5.2), five and more since 10.0 (100300 is 10.3.0).
        major, rest = divmod(number, 1000 if number < 10_000 else 10_000)
        return f"{major}.{rest // 100}.{rest % 100}"
    return None
