"""A session of ONNX Runtime behind the port; the library comes as an argument, from whichever backend opened it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.inference.backend import (
    Array,
    Binding,
    DirectCall,
    TensorInfo,
    Tensors,
    aligned_zeros,
    as_fed,
    static_shape,
)
from edge_runtime.inference.blame import EngineFault

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""The vendors' names of the providers of `Target.provider`."""

FRESH_CONTEXT: Final = "context.new.onnx"
"""A model whose parts were compiled just now (ONNX Runtime's EPContext), in the folder of what is built."""
DUMPS_CONTEXT: Final = ("trt_dump_ep_context_model", "trt_ep_context_embed_mode", "trt_ep_context_file_path")
"""Options that have a provider write one."""
_CONTEXT: Final = "context"
_DTYPES: Final = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "int8": "int8", "uint8": "uint8",
    "int16": "int16", "uint16": "uint16", "int32": "int32", "uint32": "uint32", "int64": "int64", "uint64": "uint64",
}  # fmt: skip


class OnnxRuntimeSession:
    """A loaded model; any number of callers at once, for which ONNX Runtime's sessions are made.

    Args:
        ort: the library.
        session: its `InferenceSession`.
    """

    def __init__(self, ort: Any, session: Any) -> None:
        self._ort = ort
        self._session = session
        self.inputs = tuple(_info(node) for node in session.get_inputs())
        self.outputs = tuple(_info(node) for node in session.get_outputs())
        self._held = [_inner_run(session)]
        # Read only while a call runs, so that all calls may share them; new ones cost a microsecond each time.
        settings = ort.RunOptions()
        self.call: DirectCall = guarded(self._held, [info.name for info in self.outputs], settings)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """As `Session.run`."""
        answers = self.call(as_fed(inputs, self.inputs))
        return {info.name: array for info, array in zip(self.outputs, answers, strict=True)}

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Binding:
        """As `DirectSession.bind`."""
        if self._session is None:
            _refuse()
        inputs = {info.name: aligned_zeros(shapes[info.name], info.dtype) for info in self.inputs}
        sizes = _output_sizes(self._session, shapes)
        outputs = {
            info.name: None if (size := sizes[info.name]) is None else aligned_zeros(size, info.dtype)
            for info in self.outputs
        }
        return _OnnxRuntimeBinding(self._ort, self._session, inputs, outputs)

    def close(self) -> None:
        """As `Session.close`."""
        self._session = None
        self._held[0] = _refuse  # whoever kept `call` keeps no engine


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


def session_on(
    ort: Any, content: bytes, settings: Any, providers: list[tuple[str, dict[str, Any]]], folder: Path | None
) -> Any:
    """The library's session on these providers, of what they compiled the last time where that is kept.

    Args:
        ort: the library.
        content: of the model.
        settings: its `SessionOptions`.
        providers: the vendors' names, and what each is told.
        folder: where a compiled model may lie from the last time; None: nowhere.

    Raises:
        Exception: whatever the library says.
    """
    if folder is not None and (context := _compiled_session(ort, settings, providers, folder)) is not None:
        return context
    # Its own fallback prints to stdout and forgets why.
    make = partial(ort.InferenceSession, content, settings, providers=providers, enable_fallback=0)
    if folder is None:
        return make()
    from edge_runtime.inference.built import clear, keep

    try:
        session = make()
    except Exception:
        # An engine that a power cut left in the provider's own cache would refuse the model for ever.
        if not clear(folder):
            raise
        session = make()
    if (fresh := folder / FRESH_CONTEXT).exists():
        keep(fresh, folder, _CONTEXT)
    return session


def _compiled_session(ort: Any, settings: Any, providers: list[tuple[str, dict[str, Any]]], folder: Path) -> Any:
    """A session of what was compiled the last time; None where nothing was, or it is of no use any more."""
    from edge_runtime.inference.built import forget, read_kept

    content = read_kept(folder, _CONTEXT)
    if content is None:
        return None
    told = [(name, {key: options[key] for key in options if key not in DUMPS_CONTEXT}) for name, options in providers]
    try:
        return ort.InferenceSession(content, settings, providers=told, enable_fallback=0)
    except Exception:  # noqa: BLE001 (compiled for another driver, say: it is made anew)
        forget(folder, _CONTEXT)
        return None


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


def _inner_run(session: Any) -> Callable[..., Sequence[Array]]:
    """The session's own call, past the Python layer that checks each name again, where this version lets us."""
    inner = getattr(getattr(session, "_sess", None), "run", None)
    found: Callable[..., Sequence[Array]] = session.run if inner is None else inner
    return found


def guarded(held: list[Callable[..., Sequence[Array]]], names: Sequence[str], settings: Any) -> DirectCall:
    """A call of whatever the list holds now, whose failures say that the engine failed."""

    def call(fed: dict[str, Array]) -> Sequence[Array]:
        try:
            return held[0](names, fed, settings)
        except InferenceError:
            raise
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


def _failed(error: Exception) -> EngineFault:
    return EngineFault("run the model", f"onnxruntime failed ({shown(str(error), 300)})")


def _refuse(*_: object) -> NoReturn:
    raise InferenceError("run the model", "it was closed", "open it again")


def _info(node: Any) -> TensorInfo:
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise InferenceError("open the model", f"tensor {shown(node.name)} has type {node.type}", code=LOAD_FAILED)
    return TensorInfo(str(node.name), _DTYPES[kind], static_shape(node.shape))
