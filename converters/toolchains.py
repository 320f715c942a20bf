"""Tools whose pins contradict each other or ours: each in a virtual environment of its own, called as a program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from converters.errors import BadToolchain
from edge_runtime.inference.environments import pinned
from edge_runtime.inference.environments.pinned import CannotInstall, Installed, Pinned, Progress

# onnx2tf converts into the flatbuffer itself, without TensorFlow, from 2.x on. It pins nearly all of what it imports.
_TFLITE: Final = Pinned(
    name="tflite",
    purpose="ONNX to TensorFlow Lite in float (onnx2tf, without TensorFlow)",
    pins=(
        "onnx2tf==2.6.9", "ai-edge-litert==2.1.2", "backports-strenum==1.3.1", "flatbuffers==25.12.19", "h5py==3.14.0",
        "markdown-it-py==4.0.0", "mdurl==0.1.2", "ml-dtypes==0.5.4", "mpmath==1.3.0", "numpy==2.2.6", "onnx==1.20.1",
        "onnx-ir==0.1.15", "onnxoptimizer==0.4.2", "onnxruntime==1.26.0", "onnxscript==0.6.2", "onnxsim==0.6.5",
        "opencv-python-headless==4.13.0.92", "packaging==25.0", "protobuf==7.35.1", "psutil==5.9.5", "pygments==2.19.2",
        "rich==14.2.0", "sne4onnx==2.0.1", "sng4onnx==2.0.1", "sympy==1.14.0", "tqdm==4.67.1",
        "typing-extensions==4.15.0",
    ),
    made_for=(3, 12),
    oldest=(3, 11),
    size_mb=640,
    probe="import onnx2tf, onnxsim, onnxruntime",
)  # fmt: skip
_TFLITE_QUANT: Final = Pinned(
    name="tflite-quant",
    purpose="TensorFlow Lite in float to int8 (ai-edge-quantizer)",
    pins=(
        "ai-edge-quantizer==0.10.0", "absl-py==2.3.1", "ai-edge-litert==2.3.0", "backports-strenum==1.3.1",
        "flatbuffers==25.12.19", "immutabledict==4.2.2", "ml-dtypes==0.5.4", "numpy==2.2.6", "protobuf==7.35.1",
        "scipy==1.16.3", "tqdm==4.67.1", "typing-extensions==4.15.0",
    ),
    made_for=(3, 11),
    oldest=(3, 11),
    size_mb=260,
    probe="from ai_edge_quantizer import quantizer, recipe",
)  # fmt: skip

TOOLCHAINS: Final[Mapping[str, Pinned]] = {one.name: one for one in (_TFLITE, _TFLITE_QUANT)}
"""Every toolchain by the name that `edge-convert toolchain install` takes."""


def toolchain_named(name: str) -> Pinned:
    """The toolchain of that name. Raises: BadToolchain."""
    if name not in TOOLCHAINS:
        raise BadToolchain(f"use toolchain {name}", "there is none of that name", f"use {', '.join(TOOLCHAINS)}")
    return TOOLCHAINS[name]


def toolchains_folder() -> Path:
    """Where environments live: `EDGEFLEET_TOOLCHAINS`, else below the user's cache folder."""
    if chosen := os.environ.get("EDGEFLEET_TOOLCHAINS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefleet" / "toolchains"


def find_installed(toolchain: Pinned, folder: Path | None = None) -> Installed | None:
    """The ready environment of a toolchain; None when there is none, or only an unusable one."""
    return pinned.find_installed(toolchain, folder or toolchains_folder())


def why_missing(toolchain: Pinned, folder: Path | None = None) -> str:
    """What `find_installed` finds instead of a ready environment, in a sentence."""
    return pinned.why_unusable(toolchain, folder or toolchains_folder()) or "it is not installed"


def need_installed(name: str) -> Installed:
    """A toolchain that must be there. Raises: BadToolchain with the command that installs it."""
    toolchain = toolchain_named(name)
    installed = find_installed(toolchain)
    if installed is None:
        raise BadToolchain(f"use toolchain {name}", why_missing(toolchain), f"edge-convert toolchain install {name}")
    return installed


def install(toolchain: Pinned, progress: Progress, folder: Path | None = None) -> Installed:
    """Make the environment, unless it is ready already.

    Args:
        toolchain: which.
        progress: told what happens.
        folder: parent of all environments; None: `toolchains_folder()`.

    Raises:
        BadToolchain: no fitting Python, no package index, or a package that does not work here; nothing is left behind.
    """
    parent = folder or toolchains_folder()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        installed = pinned.install(toolchain, f"install toolchain {toolchain.name}", parent, progress)
    except OSError as error:
        raise BadToolchain(f"write to {parent}", error.strerror or str(error), "set EDGEFLEET_TOOLCHAINS") from error
    except CannotInstall as error:
        raise BadToolchain(error.cannot, error.because, error.remedy) from error
    pinned.remove_old(toolchain, parent, progress)
    return installed
