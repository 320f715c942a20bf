"""The port to an inference engine, and the table of engines; no engine is imported before it is asked for."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import numpy as np

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.blame import BadInput

if TYPE_CHECKING:
    from typing import TypeGuard

    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = np.ndarray  # as the type checker's alias, without half a millisecond of numpy.typing at each start
"""An array whose dtype and shape its docstring states."""

Tensors = Mapping[str, Array]
"""Arrays by tensor name."""

Files = Mapping[str, Path | bytes]
"""Files of a variant by role (`model`, `weights`); bytes are what was checked, so they are preferred."""

TUNE: Final = "tune"
"""Value of `intra_op_threads` that leaves the choice to the device."""


PROBE_ONNX: Final = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""The smallest ONNX model (IR 8, opset 13): `y = Identity(x)`, float32 [1]; written out because devices lack `onnx`."""


class BackendOptions(msgspec.Struct, frozen=True):
    """What the caller, not the release, decides about a session."""

    threads: int | None = None
    """Threads inside one call; None: the manifest's `intra_op_threads`, else the engine's default."""
    graph_optimisation: Literal["manifest", "disabled"] = "manifest"
    """`disabled` is the variant's own emulation, free of what differs between CPUs.

    Quantise/dequantise pairs are computed in float; LiteRT, which cannot, takes its reference kernels.
    """
    built: Path | None = None
    """Where the engine may keep what it builds of the variant here (`built.folder_of`); None: nothing is kept."""
    concurrency: int | None = None
    """Calls of `Session.run` that may be under way at once; None: see `concurrency_for`."""


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor of a model file, as its engine describes it."""

    name: str
    dtype: str
    """numpy name."""
    shape: tuple[int | None, ...]
    """None for a size that may vary."""


DirectCall = Callable[[dict[str, Array]], Sequence[Array]]
"""Answers in the order of `Session.outputs`, owned by the caller, to inputs that were already checked."""

if TYPE_CHECKING:
    class Session(Protocol):
        """A loaded model; as many callers at a time as `concurrency_for` says."""

        @property
        def inputs(self) -> tuple[TensorInfo, ...]:
            """Tensors that every call must bring."""

        @property
        def outputs(self) -> tuple[TensorInfo, ...]:
            """Tensors that every call returns."""

        def run(self, inputs: Tensors) -> dict[str, Array]:
            """Outputs by file tensor name, owned by the caller. Raises: BadInput: it was not asked, EngineFault."""

        def close(self) -> None:
            """Free the engine's memory; later calls of `run` raise InferenceError."""

    class Binding(Protocol):
        """Memory that a session reads from and writes to, for one caller at a time."""

        @property
        def inputs(self) -> Mapping[str, Array]:
            """Buffers to fill, by file tensor name."""

        def run(self) -> Mapping[str, Array]:
            """Run on what the inputs hold now; outputs by file tensor name, valid until the next run.

            Raises:
                EngineFault: the engine failed.
            """

    class DirectSession(Session, Protocol):
        """A session that can also be asked without the checks of `run`, or on memory that stays."""

        @property
        def call(self) -> DirectCall:
            """`run` without its checks; raises InferenceError as `run` does."""

        def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Binding:
            """Buffers for inputs of these shapes, by file tensor name. Raises: InferenceError."""

    class Backend(Protocol):
        """Adapter to one inference engine; cheap to construct, imports its engine on first use."""

        @property
        def name(self) -> str:
            """Name of the engine in `Target.engine`."""

        def probe(self) -> EngineFact | None:
            """What really works here, as a tiny session showed; None when the engine is absent or broken."""

        def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
            """Load a model whose bytes were already checked.

            Raises:
                InferenceError: code `load_failed`; the engine is missing or refuses the model.
                UnsupportedFeature: an engine option that this adapter does not know.
            """

    class QuickBackend(Backend, Protocol):
        """A backend that can look for some of its execution providers only."""

        def find(self, providers: Collection[str]) -> EngineFact | None:
            """As `probe`, for these providers alone; the plain CPU is believed: the model that follows is its proof."""

    class AdvisingBackend(Backend, Protocol):
        """A backend whose engine does not come with a wheel into our own environment."""

        def advice(self) -> str:
            """What a person can do where `probe` finds nothing, and what is wrong here."""

else:
    # What nobody asks for at run time costs no start anything: a Protocol takes longer to make than most of a module.
    Session = Binding = Backend = object


def is_direct(session: Session) -> TypeGuard[DirectSession]:
    """Whether a session has the shorter ways."""
    return hasattr(session, "call") and hasattr(session, "bind")


def is_quick(backend: Backend) -> TypeGuard[QuickBackend]:
    """Whether a backend can look for some of its execution providers only."""
    return hasattr(backend, "find")


def gives_advice(backend: Backend) -> TypeGuard[AdvisingBackend]:
    """Whether a backend says what a person can do where its engine is missing."""
    return hasattr(backend, "advice")


Registry = Mapping[str, "str | Backend"]
"""Backends by engine name: `module:Class`, imported when first needed, or an instance."""

BACKENDS: Final[Registry] = {
    "onnxruntime": "edge_runtime.inference.backends.onnxruntime:OnnxRuntimeBackend",
    "openvino": "edge_runtime.inference.backends.openvino:OpenVinoBackend",
    "litert": "edge_runtime.inference.backends.litert:LiteRtBackend",
    "tensorrt": "edge_runtime.inference.backends.tensorrt:TensorRtBackend",
}

OTHER_LIBRARIES: Final[Registry] = {
    "tflite_runtime": "edge_runtime.inference.backends.tflite_runtime:TfliteRuntimeBackend"
}
"""Backends that take the place of another in `BACKENDS` when the device's owner names them."""
_INSTEAD_OF: Final = {"tflite_runtime": "litert"}


def allowed(registry: Registry, names: Collection[str] | None) -> Registry:
    """The backends, by engine name, that are left when only these may be used; None: all of the registry.

    `tflite_runtime` names the library in which files of engine `litert` run.
    """
    if names is None:
        return registry
    chosen = {name: entry for name, entry in registry.items() if name in names}
    chosen |= {_INSTEAD_OF[name]: entry for name, entry in OTHER_LIBRARIES.items() if name in names}
    return chosen


def load_backend(name: str, registry: Registry = BACKENDS) -> Backend:
    """The backend of that name. Raises: UnsupportedFeature when this runtime has none."""
    entry = registry.get(name)
    if entry is None:
        raise UnsupportedFeature(
            f"use engine {shown(name)}", "this runtime has no adapter for it", f"choose one of {', '.join(registry)}"
        )
    if not isinstance(entry, str):
        return entry
    module_name, _, class_name = entry.partition(":")
    backend: Backend = getattr(importlib.import_module(module_name), class_name)()
    return backend


def file_bytes(files: Files, role: str) -> bytes:
    """The content of one file of a variant. Raises: InferenceError when there is none of that role."""
    source = files.get(role)
    if source is None:
        raise InferenceError(f"open the file of role {role!r}", "the variant has none", code="load_failed")
    return source if isinstance(source, bytes) else source.read_bytes()


def threads_for(manifest: VariantManifest, options: BackendOptions) -> int | None:
    """Threads per call: the caller's wish, else the manifest's number, else None. Raises: UnsupportedFeature."""
    if options.threads is not None:
        return options.threads
    wanted = manifest.engine.options.get("intra_op_threads")
    if wanted is None or wanted == TUNE:
        return None
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= 1024:
        raise UnsupportedFeature(
            f"open variant {manifest.id}", f"intra_op_threads is {shown(wanted)}", f"write a number or {TUNE!r}"
        )
    return wanted


def concurrency_for(manifest: VariantManifest, options: BackendOptions) -> int:
    """Calls that may run at once: the caller's wish, else what keeps the cores busy.

    At least two, so that one request is prepared while another runs; but one for LiteRT, whose interpreters take one
    caller each and hold the weights anew. Raises: UnsupportedFeature.
    """
    if options.concurrency is not None:
        return options.concurrency
    if manifest.target.engine == "litert":
        return 1
    cores = len(os.sched_getaffinity(0))
    return max(2, cores // (threads_for(manifest, options) or cores))


def aligned_zeros(shape: tuple[int, ...], dtype: str) -> Array:
    """Zeros that begin with a memory page, so that engines and accelerators can work on them where they lie."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    page = os.sysconf("SC_PAGE_SIZE")
    room = np.zeros(size + page, np.uint8)
    start = -room.ctypes.data % page
    return room[start : start + size].view(dtype).reshape(shape)


def static_shape(sizes: Iterable[object]) -> tuple[int | None, ...]:
    """An engine's shape as numbers; names and unknown sizes become None."""
    return tuple(size if isinstance(size, int) and size >= 0 else None for size in sizes)


@functools.lru_cache(maxsize=64)
def _name_of(dtype: np.dtype[np.generic]) -> str:
    # numpy puts a dtype's name together anew each time, which takes as long as a small layer.
    return dtype.name


def as_fed(inputs: Tensors, expected: tuple[TensorInfo, ...]) -> dict[str, Array]:
    """Inputs as engines want them, C-contiguous, after a check of names and dtypes. Raises: BadInput."""
    wanted = {info.name: info for info in expected}
    if inputs.keys() != wanted.keys():
        raise BadInput(
            "run the model", f"it takes {sorted(wanted)} and got {sorted(inputs)}", "feed exactly these tensors"
        )
    for name, info in wanted.items():
        if _name_of(inputs[name].dtype) != info.dtype:
            raise BadInput("run the model", f"tensor {name} is {inputs[name].dtype.name}, not {info.dtype}")
    # Not ascontiguousarray, which gives a scalar an axis.
    return {name: np.asarray(array, order="C") for name, array in inputs.items()}
