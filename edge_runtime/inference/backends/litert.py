"""LiteRT as a backend: runs `.tflite` files on the CPU, with XNNPACK wherever it can take part of the graph."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final

import numpy as np

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import ENGINE_FAILED, LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import (
    Array,
    BackendOptions,
    Files,
    Session,
    TensorInfo,
    Tensors,
    as_fed,
    file_bytes,
    static_shape,
    threads_for,
)

_PROBE: Final = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA8AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "RAAAAAQAAADY////DAAAABAAAAAUAAAAAQAAAAEAAAABAAAAeQAAAAEAAAABAAAAFAAQAAwAAAAAAAgAAAAAAAAABAAUAAAADAAAABAAAAAUAAAA"
    "AQAAAAEAAAABAAAAeAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAZQAAAAAAAGU="
)
"""The smallest TFLite file that XNNPACK takes: `y` = |`x`|, float32 [1]."""

_PROVIDERS: Final = frozenset({"cpu", "xnnpack"})
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
        return EngineFact(name=self.name, version=version, providers=["cpu", *(["xnnpack"] * (_DELEGATED in kinds))])

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
        threads = threads_for(manifest, options)
        kernels = litert.OpResolverType.BUILTIN_REF if options.graph_optimisation == "disabled" else None
        content = file_bytes(files, "model")
        try:
            interpreter = litert.Interpreter(
                model_content=content,
                num_threads=threads,
                experimental_op_resolver_type=kernels or litert.OpResolverType.AUTO,
            )
            interpreter.allocate_tensors()
            return _LiteRtSession(interpreter)
        except InferenceError:
            raise
        except Exception as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                f"LiteRT {version} refuses it ({shown(str(error), 300)})",
                "check that the file is a complete TFLite model without operators of a vendor",
                code=LOAD_FAILED,
            ) from error


class _LiteRtSession:
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

    def run(self, inputs: Tensors) -> dict[str, Array]:
        if self._interpreter is None:
            raise InferenceError("run the model", "it was closed", "open it again")
        fed = as_fed(inputs, self.inputs)
        try:
            self._resize(fed)
            for name, array in fed.items():
                self._interpreter.set_tensor(self._fed[name], array)
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._read.items()}
        except Exception as error:
            raise InferenceError(
                "run the model", f"LiteRT failed ({shown(str(error), 300)})", code=ENGINE_FAILED
            ) from error

    def close(self) -> None:
        self._interpreter = None

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


def _check_known(manifest: VariantManifest) -> None:
    for key, value in manifest.engine.options.items():
        if key != "intra_op_threads":
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
