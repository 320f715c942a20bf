"""OpenVINO as a backend: reads its own IR (`model` + `weights`) and ONNX files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import Scalar, VariantManifest
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import (
    PROBE_ONNX,
    Array,
    BackendOptions,
    Binding,
    Files,
    Session,
    TensorInfo,
    Tensors,
    aligned_zeros,
    as_fed,
    concurrency_for,
    file_bytes,
    static_shape,
    threads_for,
)
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.requests.pool import Pool

_DEVICES: Final = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
# A list of what may pass: other properties name folders (CACHE_DIR) or change nothing a release may decide.
_PROPERTIES: Final = frozenset(
    {
        "EXECUTION_MODE_HINT", "INFERENCE_PRECISION_HINT", "LP_TRANSFORMS_MODE", "NUM_STREAMS", "PERFORMANCE_HINT",
        "SNIPPETS_MODE",
    }
)  # fmt: skip
# LP_TRANSFORMS_MODE=NO keeps FakeQuantize as float arithmetic; the CPU plug-in reads it though no header names it.
_EMULATION: Final = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}


class OpenVinoBackend:
    """Runs OpenVINO IR and ONNX files."""

    name: Final = "openvino"

    def probe(self) -> EngineFact | None:
        """Version and the devices for which a one-node model really compiled; None without OpenVINO."""
        try:
            vendor_telemetry.switch_off()
            import openvino as ov

            core = ov.Core()
            listed = {str(device).partition(".")[0] for device in core.available_devices}
        except Exception:  # noqa: BLE001 (a missing shared library surfaces as RuntimeError; absent either way)
            return None
        working = [name for name, device in _DEVICES.items() if device in listed and _works(core, device)]
        version = str(ov.get_version()).partition("-")[0]
        return EngineFact(name=self.name, version=version, providers=working) if working else None

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        """Load the files of roles `model` and, for IR, `weights`. Raises: InferenceError, UnsupportedFeature."""
        try:
            vendor_telemetry.switch_off()
            import openvino as ov
        except ImportError as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                "OpenVINO is not installed",
                "pip install 'edgefleet[openvino]'",
                code=LOAD_FAILED,
            ) from error
        properties = _properties(manifest, options)
        device = _device(manifest)
        content, weights = file_bytes(files, "model"), file_bytes(files, "weights") if "weights" in files else b""
        try:
            core = ov.Core()
            compiled = core.compile_model(core.read_model(model=content, weights=weights), device, properties)
            return _OpenVinoSession(ov, compiled, _bound_names(manifest), concurrency_for(manifest, options))
        except InferenceError:
            raise
        except Exception as error:
            from edge_runtime.inference.libraries.openvino_errors import complaint_of

            raise InferenceError(
                f"open variant {manifest.id}",
                f"OpenVINO {ov.get_version()} refuses it ({shown(complaint_of(error), 300)})",
                "check that model and weights are complete and belong together",
                code=LOAD_FAILED,
            ) from error


class _OpenVinoSession:
    """As many callers at once as it has requests; each request has memory of its own and shares the weights."""

    def __init__(self, ov: Any, compiled: Any, bound: frozenset[str], concurrency: int) -> None:
        self._ov = ov
        self._make = compiled.create_infer_request
        self._requests: Pool[Any] | None = Pool(self._make, concurrency, first=self._make())
        self.inputs = tuple(_info(port, bound) for port in compiled.inputs)
        self.outputs = tuple(_info(port, bound) for port in compiled.outputs)
        self._names = [info.name for info in self.inputs]

    def run(self, inputs: Tensors) -> dict[str, Array]:
        answers = self.call(as_fed(inputs, self.inputs))
        return {info.name: array for info, array in zip(self.outputs, answers, strict=True)}

    def call(self, fed: dict[str, Array]) -> Sequence[Array]:
        """As `DirectSession.call`."""
        with self._open_requests().borrowed() as request:
            try:
                request.infer([fed[name] for name in self._names], share_inputs=True, share_outputs=True)
                # Copied: the request's own buffers are overwritten by the next call.
                return [np.array(view) for view in _views(request, self.outputs)]
            except Exception as error:
                raise _failed(error) from error

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Binding:
        """As `DirectSession.bind`; with a request of its own, because a request remembers what it was bound to."""
        self._open_requests()
        inputs = {info.name: aligned_zeros(shapes[info.name], info.dtype) for info in self.inputs}
        try:
            return _OpenVinoBinding(self._ov, self._make(), inputs, self.outputs)
        except Exception as error:
            raise _failed(error) from error

    def close(self) -> None:
        self._requests = None

    def _open_requests(self) -> Pool[Any]:
        if self._requests is None:
            raise InferenceError("run the model", "it was closed", "open it again")
        return self._requests


class _OpenVinoBinding:
    """A request that reads the caller's buffers where they lie, and writes those of its outputs whose size is known."""

    def __init__(self, ov: Any, request: Any, inputs: dict[str, Array], outputs: tuple[TensorInfo, ...]) -> None:
        self.inputs = inputs
        self._request = request
        self._outputs = outputs
        for place, array in enumerate(inputs.values()):
            request.set_input_tensor(place, ov.Tensor(array, shared_memory=True))
        self._fixed: dict[str, Array] = {}
        sizes = [tuple(size for size in info.shape if size is not None) for info in outputs]
        if all(len(size) == len(info.shape) for size, info in zip(sizes, outputs, strict=True)):
            self._fixed = {
                info.name: aligned_zeros(size, info.dtype) for size, info in zip(sizes, outputs, strict=True)
            }
        for place, array in enumerate(self._fixed.values()):
            request.set_output_tensor(place, ov.Tensor(array, shared_memory=True))

    def run(self) -> Mapping[str, Array]:
        try:
            self._request.infer(share_outputs=True)
            if self._fixed:
                return self._fixed
            return {
                info.name: view for info, view in zip(self._outputs, _views(self._request, self._outputs), strict=True)
            }
        except Exception as error:
            raise _failed(error) from error


def _views(request: Any, outputs: tuple[TensorInfo, ...]) -> Iterator[Array]:
    """The request's own memory, which its next call writes anew."""
    return (request.get_output_tensor(place).data for place in range(len(outputs)))


def _failed(error: Exception) -> EngineFault:
    return EngineFault("run the model", f"OpenVINO failed ({shown(str(error), 300)})")


def _properties(manifest: VariantManifest, options: BackendOptions) -> dict[str, Scalar]:
    # Left alone, the CPU plug-in computes in bfloat16 where the processor can (AMX): 0.43 instead of 0.47 on a photo.
    properties: dict[str, Scalar] = {"INFERENCE_PRECISION_HINT": "f32"}
    for key, value in manifest.engine.options.items():
        if key in _PROPERTIES:
            properties[key] = value
        elif key != "intra_op_threads":
            raise UnsupportedFeature(
                f"open variant {manifest.id}", f"engine option {shown(key)} = {shown(value)} is unknown to this runtime"
            )
    if options.graph_optimisation == "disabled":
        properties |= _EMULATION
    if (threads := threads_for(manifest, options)) is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    return properties


def _device(manifest: VariantManifest) -> str:
    wanted = manifest.target.provider or ["cpu"]
    for name in wanted:
        if name in _DEVICES:
            return _DEVICES[name]
    raise UnsupportedFeature(f"open variant {manifest.id}", f"provider {shown(wanted[0])} is unknown to this runtime")


def _works(core: Any, device: str) -> bool:
    try:
        core.compile_model(core.read_model(model=PROBE_ONNX), device)
    except Exception:  # noqa: BLE001 (drivers fail in their own ways; any failure means "does not work")
        return False
    return True


def _bound_names(manifest: VariantManifest) -> frozenset[str]:
    bindings = (*manifest.io.inputs.values(), *manifest.io.outputs.values())
    return frozenset(str(binding.tensor) for binding in bindings)


def _info(port: Any, bound: frozenset[str]) -> TensorInfo:
    # A port may bear several names; the one that the manifest uses wins.
    names = sorted(str(name) for name in port.get_names())
    name = next((name for name in names if name in bound), names[0] if names else "")
    sizes = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    return TensorInfo(name, str(np.dtype(port.get_element_type().to_dtype()).name), static_shape(sizes))
