"""ONNX Runtime as a backend: one session per variant, bytes in, numpy out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn

import numpy as np

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import ENGINE_FAILED, LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import (
    PROBE_ONNX,
    Array,
    BackendOptions,
    Binding,
    DirectCall,
    Files,
    Session,
    TensorInfo,
    Tensors,
    as_fed,
    file_bytes,
    static_shape,
    threads_for,
)

_PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
_OPTIMISATION: Final = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
# A list of what may pass, because ONNX Runtime takes any key in silence and some of its keys name files to read.
_SESSION_ENTRIES: Final = frozenset(
    {
        "optimization.disable_specified_optimizers",
        "session.disable_double_qdq_remover",
        "session.disable_quant_qdq",
        "session.enable_quant_qdq_cleanup",
        "session.inter_op.allow_spinning",
        "session.intra_op.allow_spinning",
        "session.qdqisint8allowed",
        "session.set_denormal_as_zero",
        "session.x64quantprecision",
    }
)
_DTYPES: Final = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "int8": "int8", "uint8": "uint8",
    "int16": "int16", "uint16": "uint16", "int32": "int32", "uint32": "uint32", "int64": "int64", "uint64": "uint64",
}  # fmt: skip
_SILENT: Final = 4
"""Log severity "fatal": what matters arrives as an exception; ONNX Runtime would print it to stderr besides."""


class OnnxRuntimeBackend:
    """Runs `.onnx` files with whichever onnxruntime distribution is installed."""

    name: Final = "onnxruntime"

    def probe(self) -> EngineFact | None:
        """Version and the execution providers on which a one-node session really ran; None without onnxruntime."""
        return _fact(_PROVIDERS, proven=())

    def find(self, providers: Collection[str]) -> EngineFact | None:
        """As `probe`, for these providers alone; the CPU, which is always there, is not tried."""
        return _fact(providers, proven=("cpu",))

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        """Load the file of role `model`. Raises: InferenceError (`load_failed`), UnsupportedFeature."""
        try:
            vendor_telemetry.switch_off()
            import onnxruntime as ort
        except ImportError as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                "onnxruntime is not installed",
                "pip install 'edgefleet[ort]'",
                code=LOAD_FAILED,
            ) from error
        settings = _session_options(ort, manifest, options)
        providers = _offered(ort, _vendor_providers(manifest), manifest)
        content = file_bytes(files, "model")
        try:
            session = ort.InferenceSession(content, sess_options=settings, providers=providers)
            _forbid_other_provider(session.get_providers(), providers, manifest)
            return _OnnxRuntimeSession(ort, session)
        except InferenceError:
            raise
        except Exception as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                f"onnxruntime {ort.__version__} refuses it ({shown(str(error), 300)})",
                "check that the file is a complete ONNX model whose opset this version knows",
                code=LOAD_FAILED,
            ) from error


class _OnnxRuntimeSession:
    """Any number of callers at once: ONNX Runtime's sessions are made for it."""

    def __init__(self, ort: Any, session: Any) -> None:
        self._ort = ort
        self._session = session
        self.inputs = tuple(_info(node) for node in session.get_inputs())
        self.outputs = tuple(_info(node) for node in session.get_outputs())
        self.call: DirectCall = _direct_call(ort, session, [info.name for info in self.outputs])

    def run(self, inputs: Tensors) -> dict[str, Array]:
        answers = self.call(as_fed(inputs, self.inputs))
        return {info.name: array for info, array in zip(self.outputs, answers, strict=True)}

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Binding:
        if self._session is None:
            _refuse({})
        inputs = {info.name: np.zeros(shapes[info.name], info.dtype) for info in self.inputs}
        sizes = _output_sizes(self._session, shapes)
        outputs = {
            info.name: None if (size := sizes[info.name]) is None else np.zeros(size, info.dtype)
            for info in self.outputs
        }
        return _OnnxRuntimeBinding(self._ort, self._session, inputs, outputs)

    def close(self) -> None:
        self._session = None
        self.call = _refuse


class _OnnxRuntimeBinding:
    def __init__(self, ort: Any, session: Any, inputs: dict[str, Array], outputs: dict[str, Array | None]) -> None:
        self.inputs = inputs
        self._names = list(outputs)
        self._fixed = {name: array for name, array in outputs.items() if array is not None}
        if len(self._fixed) < len(outputs):
            self._fixed = {}
        self._binding = session.io_binding()
        for name, array in inputs.items():
            self._binding.bind_input(name, *_place(array))
        for name in outputs:
            self._binding.bind_output(name, *(_place(self._fixed[name]) if self._fixed else ("cpu",)))
        self._run = _bound_call(ort, session, self._binding)

    def run(self) -> Mapping[str, Array]:
        try:
            self._run()
            return self._fixed or dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))
        except Exception as error:
            raise _failed(error) from error


def _output_sizes(session: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...] | None]:
    """Shape of each output for inputs of these shapes; None where only a run tells."""
    known: dict[object, int] = {}
    for node in session.get_inputs():
        known |= {axis: size for axis, size in zip(node.shape, shapes[node.name], strict=True) if isinstance(axis, str)}
    found: dict[str, tuple[int, ...] | None] = {}
    for node in session.get_outputs():
        sizes = [axis if isinstance(axis, int) else known.get(axis) for axis in node.shape]
        found[str(node.name)] = None if None in sizes else tuple(size for size in sizes if size is not None)
    return found


def _place(array: Array) -> tuple[str, int, Any, tuple[int, ...], int]:
    return ("cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _direct_call(ort: Any, session: Any, names: list[str]) -> DirectCall:
    """The session's own call, past the Python layer that checks each name again, where this version lets us."""
    inner = getattr(getattr(session, "_sess", None), "run", None)
    # Read only while a call runs, so that all calls may share them; making new ones costs a microsecond each time.
    settings = ort.RunOptions()
    return _guarded(session.run if inner is None else inner, names, settings)


def _guarded(run: Callable[..., Sequence[Array]], names: Sequence[str] = (), settings: Any = None) -> DirectCall:
    def call(fed: dict[str, Array]) -> Sequence[Array]:
        try:
            return run(names, fed, settings)
        except Exception as error:
            raise _failed(error) from error

    return call


def _bound_call(ort: Any, session: Any, binding: Any) -> Callable[[], None]:
    settings = ort.RunOptions()
    inner = getattr(getattr(session, "_sess", None), "run_with_iobinding", None)
    memory = getattr(binding, "_iobinding", None)
    if inner is None or memory is None:
        return partial(session.run_with_iobinding, binding, settings)
    return partial(inner, memory, settings)


def _failed(error: Exception) -> InferenceError:
    return InferenceError("run the model", f"onnxruntime failed ({shown(str(error), 300)})", code=ENGINE_FAILED)


def _refuse(fed: dict[str, Array]) -> NoReturn:  # noqa: ARG001 (stands where a call stood)
    raise InferenceError("run the model", "it was closed", "open it again")


def _session_options(ort: Any, manifest: VariantManifest, options: BackendOptions) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _SILENT
    if (threads := threads_for(manifest, options)) is not None:
        settings.intra_op_num_threads = threads
    level = "disabled" if options.graph_optimisation == "disabled" else "all"
    for key, value in manifest.engine.options.items():
        if key in _SESSION_ENTRIES:
            settings.add_session_config_entry(key, str(int(value) if isinstance(value, bool) else value))
        elif key == "graph_optimisation" and value in _OPTIMISATION:
            level = str(value) if options.graph_optimisation == "manifest" else level
        elif key != "intra_op_threads":
            raise UnsupportedFeature(
                f"open variant {manifest.id}", f"engine option {shown(key)} = {shown(value)} is unknown to this runtime"
            )
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _OPTIMISATION[level])
    return settings


def _vendor_providers(manifest: VariantManifest) -> list[str]:
    wanted = manifest.target.provider or ["cpu"]
    known = [_PROVIDERS[name] for name in wanted if name in _PROVIDERS]
    if not known:
        raise UnsupportedFeature(
            f"open variant {manifest.id}", f"provider {shown(wanted[0])} is unknown to this runtime"
        )
    return known


def _offered(ort: Any, wanted: list[str], manifest: VariantManifest) -> list[str]:
    """Those that this build of ONNX Runtime has: about the others it would print a Python warning to stderr."""
    listed = ort.get_available_providers()
    offered = [name for name in wanted if name in listed]
    if not offered:
        because = f"onnxruntime offers {', '.join(listed)}, not {wanted[0]}"
        raise InferenceError(f"open variant {manifest.id}", because, code=LOAD_FAILED)
    return offered


def _forbid_other_provider(active: list[str], wanted: list[str], manifest: VariantManifest) -> None:
    # ONNX Runtime falls back to the CPU with a log line only; what was not asked for must not run.
    if not set(active) & set(wanted):
        raise InferenceError(
            f"open variant {manifest.id}", f"onnxruntime offers {', '.join(active)}, not {wanted[0]}", code=LOAD_FAILED
        )


def _fact(providers: Collection[str], proven: Collection[str]) -> EngineFact | None:
    try:
        vendor_telemetry.switch_off()
        import onnxruntime as ort
    except ImportError:
        return None
    listed = set(ort.get_available_providers())
    working = [
        name
        for name, vendor in _PROVIDERS.items()
        if name in providers and vendor in listed and (name in proven or _works(ort, vendor))
    ]
    name, version = OnnxRuntimeBackend.name, str(ort.__version__)
    return EngineFact(name=name, version=version, providers=working) if working else None


def _works(ort: Any, vendor: str) -> bool:
    settings = ort.SessionOptions()
    settings.log_severity_level = _SILENT
    settings.intra_op_num_threads = 1
    try:
        return vendor in ort.InferenceSession(PROBE_ONNX, sess_options=settings, providers=[vendor]).get_providers()
    except Exception:  # noqa: BLE001 (vendor libraries fail in their own ways; any failure means "does not work")
        return False


def _info(node: Any) -> TensorInfo:
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise InferenceError("open the model", f"tensor {shown(node.name)} has type {node.type}", code=LOAD_FAILED)
    return TensorInfo(str(node.name), _DTYPES[kind], static_shape(node.shape))
