"""Which machine a figure is from, and how busy it was."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("numpy", "onnxruntime", "openvino", "nncf", "paho-mqtt", "fastapi", "sqlalchemy")


def describe() -> list[str]:
    """Lines of Markdown: CPU, memory, system, versions and load."""
    load = os.getloadavg()
    busy = " (busy: read the ratios, not the seconds)" if load[0] > 0.5 else ""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        f"- CPU: {_cpu()}, {os.cpu_count()} cores; memory: {_memory_gib():.0f} GiB",
        f"- {platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"- {libraries}",
        f"- load average at the start: {load[0]:.2f}{busy}",
    ]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
