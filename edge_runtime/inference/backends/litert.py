"""LiteRT as a backend: runs `.tflite` files on the CPU, with XNNPACK wherever it can take part of the graph."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import (
    Array,
    BackendOptions,
    Files,
    Session,
    Tensors,
    as_fed,
    concurrency_for,
    file_bytes,
    threads_for,
)
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.libraries.tflite import PROBE, Interpreter, Maker, load_edgetpu, working_providers
from edge_runtime.inference.libraries.tflite_variants import (
    edgetpu_options,
    edgetpu_refused,
    plain_kernels,
    refused,
    tensor_infos,
)
from edge_runtime.inference.requests.pool import Pool


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
            providers = working_providers(litert)
        except Exception:  # noqa: BLE001 (a library built for another CPU fails in its own way; absent either way)
            return None
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
        edgetpu = edgetpu_options(manifest)
        delegate = None if edgetpu is None else _delegate(litert, manifest, edgetpu)
        maker = Maker(litert, file_bytes(files, "model"), threads_for(manifest, options), delegate)
        try:
            first = maker.first(is_reference=options.graph_optimisation == "disabled")
            return _LiteRtSession(maker, first, concurrency_for(manifest, options))
        except InferenceError:
            raise
        except Exception as error:
            raise refused(manifest, f"LiteRT {version}", str(error)) from error


class _LiteRtSession:
    """As many callers at once as it has interpreters, for an interpreter takes one."""

    def __init__(self, maker: Maker, first: Interpreter, concurrency: int) -> None:
        self.inputs, self.outputs = tensor_infos(first.inputs), tensor_infos(first.outputs)
        self.notes = () if maker.refusal is None else (plain_kernels("LiteRT", str(maker.refusal)),)
        self._interpreters: Pool[Interpreter] | None = Pool(maker, concurrency, first)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        if (interpreters := self._interpreters) is None:
            raise InferenceError("run the model", "it was closed", "open it again")
        fed = as_fed(inputs, self.inputs)
        with interpreters.borrowed() as interpreter:
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
        interpreter.Interpreter(model_content=PROBE, num_threads=1).allocate_tensors()
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


def _delegate(litert: Any, manifest: VariantManifest, options: dict[str, str]) -> Any:
    try:
        return load_edgetpu(litert, options)
    except Exception as error:
        raise edgetpu_refused(manifest, str(error)) from error
