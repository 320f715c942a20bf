"""LiteRT as a backend: runs `.tflite` files on the CPU, with XNNPACK wherever it can take part of the graph."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final

import numpy as np

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import (
    Array,
    BackendOptions,
    Files,
    Session,
    TensorInfo,
    Tensors,
    as_fed,
    concurrency_for,
    file_bytes,
    static_shape,
    threads_for,
)
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.requests.pool import Pool

_PROBE: Final = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA8AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "RAAAAAQAAADY////DAAAABAAAAAUAAAAAQAAAAEAAAABAAAAeQAAAAEAAAABAAAAFAAQAAwAAAAAAAgAAAAAAAAABAAUAAAADAAAABAAAAAUAAAA"
    "AQAAAAEAAAABAAAAeAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAZQAAAAAAAGU="
)
"""The smallest TFLite file that XNNPACK takes: `y` = |`x`|, float32 [1]."""

_EDGETPU: Final = "edgetpu"
_EDGETPU_LIBRARY: Final = "libedgetpu.so.1"
_PROVIDERS: Final = frozenset({"cpu", "xnnpack", _EDGETPU})
_OPTIONS: Final = frozenset({"intra_op_threads", "edgetpu_device"})
_DELEGATED: Final = "DELEGATE"
"""What the interpreter calls a part of the graph that XNNPACK has taken over."""


class LiteRtBackend:
    """Runs TFLite files. Emulation means reference kernels: the file's own arithmetic, one value at a time.

    For a quantised file that is exact integer arithmetic as the format's specification says it, not float: nothing here
    computes quantised tensors in float. It is free of what differs between CPUs, which is what emulation is for.
    """

    name: Final = "litert"

    def probe(self) -> EngineFact | None:
        """Version, and whether XNNPACK took a one-operator model; None without LiteRT."""
        try:
            litert, version = _import()
            interpreter = litert.Interpreter(model_content=_PROBE, num_threads=1)
            interpreter.allocate_tensors()
            interpreter.invoke()
            kinds = [str(entry["op_name"]) for entry in interpreter._get_ops_details()]  # noqa: SLF001 (nothing public says it)
        except Exception:  # noqa: BLE001 (a library built for another CPU fails in its own way; absent either way)
            return None
        providers = ["cpu", *(["xnnpack"] * (_DELEGATED in kinds)), *(["edgetpu"] * _has_edgetpu(litert))]
        return EngineFact(name=self.name, version=version, providers=providers)

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        """Load the file of role `model`. Raises: InferenceError (`load_failed`), UnsupportedFeature."""
        try:
            litert, version = _import()
        except ImportError as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                "LiteRT is not installed",
                "pip install 'edgefleet[litert]'",
                code=LOAD_FAILED,
            ) from error
        _check_known(manifest)
        maker = _Maker(litert, file_bytes(files, "model"), threads_for(manifest, options), _delegate(litert, manifest))
        try:
            first, notes = _first_interpreter(maker, is_reference=options.graph_optimisation == "disabled")
            return _LiteRtSession(maker, first, concurrency_for(manifest, options), notes)
        except InferenceError:
            raise
        except Exception as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                f"LiteRT {version} refuses it ({shown(str(error), 300)})",
                "check that the file is a complete TFLite model without operators of a vendor",
                code=LOAD_FAILED,
            ) from error


class _Maker:
    """Makes interpreters of one file, all alike; the file's bytes are shared, its unpacked weights are not."""

    def __init__(self, litert: Any, content: bytes, threads: int | None, delegate: Any) -> None:
        self.kernels = litert.OpResolverType
        self.has_delegate = delegate is not None
        self._litert = litert
        self._content = content
        self._threads = threads
        self._delegate = delegate
        self.resolver: Any = self.kernels.AUTO

    def __call__(self) -> _Interpreter:
        interpreter = self._litert.Interpreter(
            model_content=self._content,
            num_threads=self._threads,
            experimental_op_resolver_type=self.resolver,
            experimental_delegates=[self._delegate] if self.has_delegate else None,
        )
        interpreter.allocate_tensors()
        return _Interpreter(interpreter)


def _first_interpreter(maker: _Maker, *, is_reference: bool) -> tuple[_Interpreter, tuple[str, ...]]:
    """The first interpreter, and what was done without; it decides which kernels those after it use."""
    if is_reference:
        maker.resolver = maker.kernels.BUILTIN_REF
    try:
        return maker(), ()
    except Exception as refusal:
        if is_reference or maker.has_delegate:
            raise
        maker.resolver = maker.kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            return maker(), (f"XNNPACK refuses this model ({shown(str(refusal), 200)}); LiteRT's own kernels run it",)
        except Exception:  # noqa: BLE001 (what the kernels say of an unreadable file, the delegate said first)
            raise refusal from None


class _Interpreter:
    """One interpreter and the sizes that its free axes have now; one caller at a time."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        details, answers = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = _infos(details)
        self.outputs = _infos(answers)
        self._fed = {info.name: int(entry["index"]) for info, entry in zip(self.inputs, details, strict=True)}
        self._read = {info.name: int(entry["index"]) for info, entry in zip(self.outputs, answers, strict=True)}
        self._shapes = {
            info.name: tuple(map(int, entry["shape"])) for info, entry in zip(self.inputs, details, strict=True)
        }

    def run(self, fed: Tensors) -> dict[str, Array]:
        self._resize(fed)
        for name, array in fed.items():
            self._interpreter.set_tensor(self._fed[name], array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._read.items()}

    def _resize(self, fed: Tensors) -> None:
        """A free axis holds the size of the last call; another one plans the memory anew."""
        changed = {name: array.shape for name, array in fed.items() if array.shape != self._shapes[name]}
        for name, shape in changed.items():
            self._interpreter.resize_tensor_input(self._fed[name], shape, strict=True)
        if changed:
            # Forgotten first: after a failure the interpreter holds neither the old sizes nor the new ones.
            self._shapes.update(dict.fromkeys(changed, ()))
            self._interpreter.allocate_tensors()
            self._shapes.update(changed)


class _LiteRtSession:
    """As many callers at once as it has interpreters, for an interpreter takes one."""

    def __init__(self, maker: _Maker, first: _Interpreter, concurrency: int, notes: tuple[str, ...]) -> None:
        self.inputs, self.outputs = first.inputs, first.outputs
        self.notes = notes
        self._interpreters: Pool[_Interpreter] | None = Pool(maker, concurrency, first)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        if self._interpreters is None:
            raise InferenceError("run the model", "it was closed", "open it again")
        fed = as_fed(inputs, self.inputs)
        with self._interpreters.borrowed() as interpreter:
            try:
                return interpreter.run(fed)
            except Exception as error:
                raise EngineFault("run the model", f"LiteRT failed ({shown(str(error), 300)})") from error

    def close(self) -> None:
        self._interpreters = None


@functools.cache
def _import() -> tuple[Any, str]:
    from ai_edge_litert import interpreter

    # The first one in a process announces XNNPACK on stderr, and nothing that Python can reach forbids it. What else
    # may be wrong with it, the model that was asked for will say.
    with _native_stderr_closed(), contextlib.suppress(Exception):
        interpreter.Interpreter(model_content=_PROBE, num_threads=1).allocate_tensors()
    return interpreter, metadata.version("ai-edge-litert")


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """For as long as a tiny model takes to load, once in a process: what is written to file 2 meanwhile is lost."""
    try:
        kept = os.dup(2)
    except OSError:
        yield  # a daemon without stderr has nothing to silence
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _delegate(litert: Any, manifest: VariantManifest) -> Any:
    """The Edge TPU's delegate for a file compiled for it; None for other files. Raises: InferenceError."""
    if manifest.target.provider[:1] != [_EDGETPU]:
        return None
    # Which of several: `usb`, `usb:0`, `pci:1`; nothing means the first that is found.
    device = str(manifest.engine.options.get("edgetpu_device", ""))
    try:
        return _load_edgetpu(litert, {"device": device} if device else {})
    except Exception as error:
        raise InferenceError(
            f"open variant {manifest.id}",
            f"the Edge TPU cannot be used ({shown(str(error), 200) or 'its library finds no device'})",
            f"install {_EDGETPU_LIBRARY} (package libedgetpu1-std) and plug the device in",
            code=LOAD_FAILED,
        ) from error


def _load_edgetpu(litert: Any, options: dict[str, str]) -> Any:
    # Looked for first: LiteRT's delegate object is torn down noisily when it never found its library.
    ctypes.CDLL(_EDGETPU_LIBRARY)
    return litert.load_delegate(_EDGETPU_LIBRARY, options)


def _has_edgetpu(litert: Any) -> bool:
    try:
        _load_edgetpu(litert, {})
    except Exception:  # noqa: BLE001 (no library, no device, or another program that has it: it does not work here)
        return False
    return True


def _check_known(manifest: VariantManifest) -> None:
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


def _infos(details: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
    """Tensors in the file's order; where the file repeats a name, the tensor's number tells them apart."""
    names = [str(entry["name"]) for entry in details]
    return tuple(
        TensorInfo(
            name if name and names.count(name) == 1 else f"{name}#{entry['index']}",
            _dtype(name, entry["dtype"]),
            static_shape(int(size) for size in entry["shape_signature"]),
        )
        for name, entry in zip(names, details, strict=True)
    )


def _dtype(name: str, kind: Any) -> str:
    dtype = np.dtype(kind)
    if dtype.kind not in "biuf":
        raise InferenceError("open the model", f"tensor {shown(name)} has type {dtype.name}", code=LOAD_FAILED)
    return str(dtype.name)
