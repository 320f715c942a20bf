"""TensorRT without ONNX Runtime: builds an engine on this device, keeps its plan, runs it. The library is an argument.

Written to NVIDIA's documentation (TensorRT 10: Python API, Core and Parser; developer guide, Python API and dynamic
shapes) and tried with stand-ins only: no machine of ours has had such a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import BuildPlan
from edge_runtime.inference.backend import Array, Binding, TensorInfo, Tensors, as_fed, static_shape
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.built import keep, private_folder, read_kept
from edge_runtime.inference.libraries.cuda_runtime import Cuda, Memory
from edge_runtime.inference.requests.pool import Pool

_PLAN: Final = "plan"
_TIMINGS: Final = "timings"
_SHARED_PROFILES: Final = 10
"""Major version from which on several contexts may use one optimisation profile."""


class NativeTools(NamedTuple):
    """What an engine is built and run with."""

    trt: Any
    """Module `tensorrt`."""
    cuda: Cuda
    version: str


class NativeWish(NamedTuple):
    """How an engine is built and used."""

    plan: BuildPlan
    is_strong: bool
    """Whether the file alone says in which precision each part is computed."""
    built: Path | None
    """Where plans are kept (`BackendOptions.built`); None: nowhere."""
    concurrency: int


class TensorRtRefuses(Exception):
    """TensorRT or CUDA cannot, in their own words."""


def open_native(tools: NativeTools, content: bytes, wish: NativeWish) -> NativeSession:
    """The engine of an ONNX file: the one whose plan was kept for this very GPU, driver and TensorRT, or a new one.

    Raises:
        TensorRtRefuses: the file cannot be built, or the GPU has no room.
        InferenceError: code `load_failed`; a tensor is of a type that numpy does not have.
    """
    trt, cuda = tools.trt, tools.cuda
    log = _logger(trt)
    try:
        versions = f"tensorrt-{tools.version}-sm-{cuda.capability()}-cuda-{cuda.driver()}"
        engine = _engine(trt, log, content, wish, private_folder(wish.built, versions))
        is_alone = int(tools.version.partition(".")[0]) < _SHARED_PROFILES
        return NativeSession(trt, cuda, engine, 1 if is_alone else wish.concurrency)
    except InferenceError:
        raise
    except Exception as error:
        raise TensorRtRefuses("; ".join([str(error), *log.said[-2:]])) from error


def _engine(trt: Any, log: Any, content: bytes, wish: NativeWish, folder: Path | None) -> Any:
    runtime = trt.Runtime(log)
    plan = None if folder is None else read_kept(folder, _PLAN)
    engine = None if plan is None else runtime.deserialize_cuda_engine(plan)
    if engine is not None:
        return engine
    made = _built(trt, log, content, wish, None if folder is None else read_kept(folder, _TIMINGS))
    engine = runtime.deserialize_cuda_engine(made.plan)
    if engine is None:
        raise TensorRtRefuses("it cannot read back what it built")
    for kind, kept in ((_PLAN, made.plan), (_TIMINGS, made.timings)):
        if folder is not None and kept is not None:
            fresh = folder / f"{kind}.new"
            fresh.write_bytes(kept)
            keep(fresh, folder, kind)
    return engine


class _Made(NamedTuple):
    """A built engine as bytes, and how long its kernels took, for the next build."""

    plan: bytes
    timings: bytes | None


def _built(trt: Any, log: Any, content: bytes, wish: NativeWish, timings: bytes | None) -> _Made:
    builder, plan = trt.Builder(log), wish.plan
    network = builder.create_network(_network_flags(trt, is_strong=wish.is_strong))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        reasons = [str(parser.get_error(number).desc()) for number in range(parser.num_errors)]
        raise TensorRtRefuses(f"its parser says {'; '.join(reasons[:2]) or 'no'}")
    config = builder.create_builder_config()
    if plan.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace_bytes)
    for flag in plan.flags:
        # TensorRT 11 has none of them: there precision stands in the file.
        if (known := getattr(trt.BuilderFlag, flag.upper(), None)) is not None:
            config.set_flag(known)
    if plan.dla is not None:
        config.default_device_type, config.DLA_core = trt.DeviceType.DLA, plan.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    for sizes in plan.profiles:
        profile = builder.create_optimization_profile()
        for name, bounds in sizes.items():
            profile.set_shape(name, tuple(bounds["min"]), tuple(bounds["opt"]), tuple(bounds["max"]))
        config.add_optimization_profile(profile)
    if plan.timing_cache == "keep":
        config.set_timing_cache(config.create_timing_cache(timings or b""), False)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise TensorRtRefuses("the build failed")
    cache = config.get_timing_cache() if plan.timing_cache == "keep" else None
    return _Made(bytes(built), None if cache is None else bytes(cache.serialize()))


def _network_flags(trt: Any, *, is_strong: bool) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # An explicit batch is asked for until TensorRT 9, and the only kind from 10 on.
    wanted = flags.STRONGLY_TYPED if is_strong else getattr(flags, "EXPLICIT_BATCH", None)
    return 0 if wanted is None else 1 << int(wanted)


@final
class NativeSession:
    """As many callers at once as it has contexts; each has a stream and memory of its own and shares the weights."""

    def __init__(self, trt: Any, cuda: Cuda, engine: Any, concurrency: int) -> None:
        names = [str(engine.get_tensor_name(place)) for place in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = tuple(_info(trt, engine, name) for name in names if is_input[name])
        self.outputs = tuple(_info(trt, engine, name) for name in names if not is_input[name])
        self._make: Callable[[], _Context] = partial(_Context, cuda, engine, self.inputs, self.outputs)
        self._contexts: Pool[_Context] | None = Pool(self._make, concurrency, first=self._make())

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """As `Session.run`."""
        answers = self.call(as_fed(inputs, self.inputs))
        return {info.name: array for info, array in zip(self.outputs, answers, strict=True)}

    def call(self, fed: dict[str, Array]) -> Sequence[Array]:
        """As `DirectSession.call`."""
        with self._open_contexts().borrowed() as context:
            try:
                buffers = context.buffers({name: array.shape for name, array in fed.items()})
                for name, array in fed.items():
                    np.copyto(buffers[name], array)
                # Copied: the context's own memory is overwritten by the next call.
                return [np.array(view) for view in context.run().values()]
            except Exception as error:
                raise _failed(error) from error

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Binding:
        """As `DirectSession.bind`: the page-locked memory of a context of its own."""
        self._open_contexts()
        try:
            return _NativeBinding(self._make(), shapes)
        except Exception as error:
            raise _failed(error) from error

    def close(self) -> None:
        """As `Session.close`."""
        self._contexts = None

    def _open_contexts(self) -> Pool[_Context]:
        if self._contexts is None:
            raise InferenceError("run the model", "it was closed", "open it again")
        return self._contexts


@final
class _NativeBinding:
    def __init__(self, context: _Context, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._context = context
        self.inputs = context.buffers(shapes)
        for array in self.inputs.values():
            array.fill(0)

    def run(self) -> Mapping[str, Array]:
        try:
            return self._context.run()
        except Exception as error:
            raise _failed(error) from error


@final
class _Context:
    """An execution context with its stream, and memory that grows with the shapes it meets."""

    def __init__(
        self, cuda: Cuda, engine: Any, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
    ) -> None:
        self._context = engine.create_execution_context()
        if self._context is None:
            raise TensorRtRefuses("there is no memory for an execution context")
        self._cuda = cuda
        self._stream = cuda.stream()
        self._inputs, self._outputs = inputs, outputs
        self._memory: dict[str, Memory] = {}
        self._fed: dict[str, Array] = {}
        self._given: dict[str, Array] = {}

    def buffers(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Host memory of the inputs in these shapes.

        Raises:
            InferenceError: no optimisation profile has such a shape.
            TensorRtRefuses: sizes are not known before the run.
            CudaError: there is no memory.
        """
        if {name: array.shape for name, array in self._fed.items()} == dict(shapes):
            return self._fed
        self._fed = {}
        for info in self._inputs:
            if not self._context.set_input_shape(info.name, shapes[info.name]):
                because = f"tensor {shown(info.name)} may not have shape {list(shapes[info.name])}"
                raise InferenceError("run the model", because, "build the variant for it")
        if unknown := list(self._context.infer_shapes()):
            raise TensorRtRefuses(f"it does not know the sizes of {', '.join(map(str, unknown))}")
        self._given = {info.name: self._placed(info, self._output_shape(info.name)) for info in self._outputs}
        self._fed = {info.name: self._placed(info, shapes[info.name]) for info in self._inputs}
        return self._fed

    def run(self) -> dict[str, Array]:
        """Outputs in host memory, valid until the next run. Raises: TensorRtRefuses, CudaError."""
        for name, array in self._fed.items():
            self._memory[name].send(array.nbytes, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise TensorRtRefuses("it did not run")
        for name, array in self._given.items():
            self._memory[name].fetch(array.nbytes, self._stream)
        self._stream.wait()
        return self._given

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise TensorRtRefuses(f"the size of output {name} depends on what is asked, which is not built here")
        return shape

    def _placed(self, info: TensorInfo, shape: tuple[int, ...]) -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(info.dtype).itemsize
        if info.name not in self._memory or self._memory[info.name].size < size:
            self._memory[info.name] = self._cuda.memory(size)
        memory = self._memory[info.name]
        if not self._context.set_tensor_address(info.name, memory.device):
            raise TensorRtRefuses(f"tensor {info.name} does not take its memory")
        return memory.view(shape, info.dtype)


def _info(trt: Any, engine: Any, name: str) -> TensorInfo:
    try:
        dtype = str(np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name)
    except TypeError as error:  # bfloat16, fp8 and int4, which numpy does not have
        kind = engine.get_tensor_dtype(name)
        raise InferenceError("open the model", f"tensor {shown(name)} has type {kind}", code=LOAD_FAILED) from error
    return TensorInfo(name, dtype, static_shape(int(size) for size in engine.get_tensor_shape(name)))


def _failed(error: Exception) -> InferenceError:
    if isinstance(error, InferenceError):
        return error
    return EngineFault("run the model", f"TensorRT failed ({shown(str(error), 300)})")


def _logger(trt: Any) -> Any:
    """Keeps what TensorRT says of errors, which its functions only return None for."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                self.said.append(message)
                del self.said[:-8]

    return Log()
