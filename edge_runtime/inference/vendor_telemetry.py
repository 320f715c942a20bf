"""Keeps engines from reporting to their vendors: a fleet's models and devices are nobody else's business."""

from __future__ import annotations

import os
import sys


def switch_off() -> None:
    """Call before an engine is imported; what somebody has set on purpose stays.

    ONNX Runtime 1.29 and later sends model names and hashes over HTTPS by default and leaves a session file in the
    temporary folder; it asks this variable while it is loaded. OpenVINO and NNCF report through a module of their own
    and do without when it cannot be imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
