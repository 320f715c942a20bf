"""Which routes of the converter work on this machine: what each needs, what is missing, and what adds it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from converters.toolchains import TOOLCHAINS, find_installed


@dataclass(frozen=True, slots=True)
class Need:
    """One thing a route cannot do without."""

    kind: Literal["module", "toolchain", "program", "machine"]
    name: str
    remedy: str
    """What adds it: a command where there is one."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way from a source model to something a device runs, or to a number about it."""

    name: str
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How one route stands here."""

    route: str
    missing: tuple[Need, ...]

    @property
    def works(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def _module(name: str, extra: str) -> Need:
    return Need("module", name, f"pip install 'edgefleet[{extra}]'")


def _toolchain(name: str) -> Need:
    return Need("toolchain", name, f"edge-convert toolchain install {name}")


_ORT: Final = _module("onnxruntime", "ort")
_OPENVINO: Final = _module("openvino", "openvino")
_NNCF: Final = _module("nncf", "convert")
_LITERT: Final = _module("ai_edge_litert", "litert")
_EDGETPU: Final = Need(
    "program", "edgetpu_compiler", "install Coral's edgetpu-compiler, as docs/how-to/ship-to-coral.md says"
)
_X86_64: Final = Need("machine", "x86_64", "compile on a 64-bit x86 machine: Coral makes its compiler for no other")
_QEMU_X86: Final = Need("program", "qemu-x86_64", "apt install qemu-user")
_QEMU_ARM: Final = Need("program", "qemu-aarch64", "apt install qemu-user, and build with --aarch64-root")

ROUTES: Final = (
    Route("ONNX → ONNX Runtime, float and int8", (_ORT,)),
    Route("ONNX → OpenVINO, float", (_ORT, _OPENVINO)),
    Route("ONNX → OpenVINO, int8", (_ORT, _OPENVINO, _NNCF)),
    Route("ONNX → LiteRT, float", (_ORT, _LITERT, _toolchain("tflite"))),
    Route("ONNX → LiteRT, int8", (_ORT, _LITERT, _toolchain("tflite"), _toolchain("tflite-quant"))),
    Route("TFLite → LiteRT, as it came", (_LITERT,)),
    Route("TFLite → LiteRT, int8 from float", (_LITERT, _toolchain("tflite-quant"))),
    Route("TFLite → OpenVINO", (_LITERT, _OPENVINO)),
    Route("int8 TFLite → Coral Edge TPU", (_LITERT, _EDGETPU, _X86_64)),
    Route("ONNX → Jetson (TensorRT builds on the device)", (_ORT,)),
    Route("scikit-learn → ONNX", (_module("skl2onnx", "sklearn"),)),
    Route("PyTorch → ONNX", (Need("module", "torch", "pip install torch onnxscript"),)),
    Route("accuracy on x86-64 without VNNI, emulated", (_QEMU_X86,)),
    Route("accuracy on aarch64, emulated", (_QEMU_ARM,)),
)
"""Every route, in the order that `edge-convert doctor` shows them."""


def diagnose(is_there: Mapping[str, Callable[[str], bool]] | None = None) -> tuple[Diagnosis, ...]:
    """How every route stands here; `is_there` says by kind of need whether one is met (None: ask this machine)."""
    ask = is_there or _ASK
    return tuple(
        Diagnosis(route.name, tuple(need for need in route.needs if not ask[need.kind](need.name))) for route in ROUTES
    )


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _has_toolchain(name: str) -> bool:
    return find_installed(TOOLCHAINS[name]) is not None


_ASK: Final[Mapping[str, Callable[[str], bool]]] = {
    "module": _has_module,
    "toolchain": _has_toolchain,
    # Debian's static build of an emulator has a name of its own.
    "program": lambda name: any(shutil.which(one) for one in (name, f"{name}-static")),
    "machine": lambda name: platform.machine() == name,
}
