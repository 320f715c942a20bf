"""What a variant of engine `litert` may ask for, and what is said of one, whichever library runs its file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import TensorInfo, static_shape
from edge_runtime.inference.libraries.tflite import EDGETPU_LIBRARY

_EDGETPU: Final = "edgetpu"
_PROVIDERS: Final = frozenset({"cpu", "xnnpack", _EDGETPU})
_OPTIONS: Final = frozenset({"intra_op_threads", "edgetpu_device"})


def edgetpu_options(manifest: VariantManifest) -> dict[str, str] | None:
    """What the Edge TPU's delegate is told for a file compiled for it; None for other files.

    Raises:
        UnsupportedFeature: a provider or an option that this runtime does not know.
    """
    for key, value in manifest.engine.options.items():
        if key not in _OPTIONS:
            raise UnsupportedFeature(
                f"open variant {manifest.id}", f"engine option {shown(key)} = {shown(value)} is unknown to this runtime"
            )
    wanted = manifest.target.provider or ["cpu"]
    if not _PROVIDERS.intersection(wanted):
        raise UnsupportedFeature(
            f"open variant {manifest.id}", f"provider {shown(wanted[0])} is unknown to this runtime"
        )
    if wanted[0] != _EDGETPU:
        return None
    # Which of several: `usb`, `usb:0`, `pci:1`; nothing means the first that is found.
    device = str(manifest.engine.options.get("edgetpu_device", ""))
    return {"device": device} if device else {}


def tensor_infos(described: Iterable[tuple[str, str, list[int]]]) -> tuple[TensorInfo, ...]:
    """Tensors as the port describes them. Raises: InferenceError for a type that is no number."""
    for name, kind, _ in described:
        if np.dtype(kind).kind not in "biuf":
            raise InferenceError("open the model", f"tensor {shown(name)} has type {kind}", code=LOAD_FAILED)
    return tuple(TensorInfo(name, kind, static_shape(sizes)) for name, kind, sizes in described)


def plain_kernels(library: str, refusal: str) -> str:
    """The note of a model that runs without the library's default delegate."""
    return f"XNNPACK refuses this model ({shown(refusal, 200)}); {library}'s own kernels run it"


def refused(manifest: VariantManifest, library: str, because: str) -> InferenceError:
    """The error for a file that a library does not load."""
    return InferenceError(
        f"open variant {manifest.id}",
        f"{library} refuses it ({shown(because, 300)})",
        "check that the file is a complete TFLite model without operators of a vendor",
        code=LOAD_FAILED,
    )


def edgetpu_refused(manifest: VariantManifest, because: str) -> InferenceError:
    """The error for an Edge TPU that cannot be used."""
    return InferenceError(
        f"open variant {manifest.id}",
        f"the Edge TPU cannot be used ({shown(because, 200) if because else 'its library finds no device'})",
        f"install {EDGETPU_LIBRARY} (package libedgetpu1-std) and plug the device in",
        code=LOAD_FAILED,
    )
