"""What this machine can run: engines are found by constructing a session with them, the rest is read from Linux."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Final

from edge_runtime.contract.device_profile import DeviceFacts, EngineFact
from edge_runtime.inference.backend import BACKENDS, Registry, allowed, gives_advice, is_quick, load_backend

_ACCELERATORS: Final = {
    ("litert", "edgetpu"): "edgetpu-v1",
    ("onnxruntime", "cuda"): "nvidia-gpu",
    ("onnxruntime", "tensorrt"): "nvidia-gpu",
    ("tensorrt", "native"): "nvidia-gpu",
    ("tensorrt", "onnxruntime"): "nvidia-gpu",
}
"""What is there when an engine's provider really ran."""
_EXTRAS: Final = {"litert": "litert", "onnxruntime": "ort", "openvino": "openvino"}
"""Extra of our distribution that brings an engine."""
_CPUINFO: Final = Path("/proc/cpuinfo")


def engines(
    names: Collection[str] | None = None,
    registry: Registry = BACKENDS,
    *,
    providers: Collection[str] | None = None,
) -> list[EngineFact]:
    """Engines that really work here.

    Args:
        names: limits which are tried; None: all in the registry.
        registry: backends by name.
        providers: the only execution providers of interest, because a model is about to be loaded for one of them:
            others are not woken up, and the CPU needs no proof before that. None: all are tried.
    """
    found = []
    usable = allowed(registry, names)
    for name in usable:
        backend = load_backend(name, usable)
        if providers is not None and is_quick(backend):
            found.append(backend.find(providers))
        else:
            found.append(backend.probe())
    return [fact for fact in found if fact is not None]


def machine_facts(found: list[EngineFact]) -> DeviceFacts:
    """Facts of the machine that this process runs on, with the engines found on it."""
    cpu, isa = parse_cpuinfo(_cpuinfo())
    return DeviceFacts(
        arch=platform.machine(),
        isa=list(isa),
        cpu=cpu or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        engines=found,
        accelerators=sorted({_ACCELERATORS[pair] for pair in _working(found) if pair in _ACCELERATORS}),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def what_would_help(
    engines: Collection[str], facts: DeviceFacts, barred: Collection[str] = (), registry: Registry = BACKENDS
) -> str:
    """What a person can do where no variant of a release works.

    Args:
        engines: of the variants that may be used.
        facts: this machine's.
        barred: engines of variants that the person forbade.
        registry: backends that may be used, by name.
    """
    missing = sorted(set(engines) - {fact.name for fact in facts.engines})
    advice = [f"allow {' or '.join(sorted(barred))} (--backend)"] if barred else []
    own = {name: load_backend(name, registry) for name in missing if name in registry}
    advice += [backend.advice() for backend in own.values() if gives_advice(backend)]
    wheels = [name for name in missing if name in _EXTRAS and not (name in own and gives_advice(own[name]))]
    advice += [f"pip install {' or '.join(_wheel(name) for name in wheels)}"] if wheels else []
    return ", or ".join([*advice, "build the release for this machine"])


def _wheel(name: str) -> str:
    return f"'edgefleet[{_EXTRAS[name]}]'"


def _working(found: list[EngineFact]) -> set[tuple[str, str]]:
    return {(fact.name, provider) for fact in found for provider in fact.providers}


def _cpuinfo() -> str:
    try:
        return _CPUINFO.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return ""


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """CPU model and sorted instruction-set extensions from `/proc/cpuinfo` (x86 `flags`, Arm `Features`)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags") or fields.get("features") or ""
    return fields.get("model name", fields.get("model", "")), tuple(sorted(set(flags.split())))


def peak_resident_bytes() -> int | None:
    """Peak resident memory of this process (VmHWM, which never falls); None where Linux does not say.

    `getrusage` would count what its parent had when it forked.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
