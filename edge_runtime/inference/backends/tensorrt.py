"""TensorRT, by itself or through ONNX Runtime's provider: the engine is built on this device, and kept for it alone.

An engine is executable code, so it is never fetched: it lies in a folder that only this user can write, named after
everything that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import BuildPlan, VariantManifest
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import (
    PROBE_ONNX,
    BackendOptions,
    Files,
    Session,
    concurrency_for,
    file_bytes,
    threads_for,
)
from edge_runtime.inference.built import private_folder
from edge_runtime.inference.libraries.cuda_runtime import load_cuda
from edge_runtime.inference.libraries.onnxruntime_providers import is_option, settings_of
from edge_runtime.inference.libraries.onnxruntime_session import PROVIDERS, OnnxRuntimeSession, session_on
from edge_runtime.inference.libraries.tensorrt_library import tensorrt_version
from edge_runtime.inference.libraries.tensorrt_native import NativeTools, NativeWish, TensorRtRefuses, open_native

_TENSORRT: Final = PROVIDERS["tensorrt"]
_NATIVE: Final = "native"
_THROUGH: Final = "onnxruntime"
"""The providers of `Target.provider`: TensorRT by itself, or inside ONNX Runtime."""
_ROLE: Final = "build_input"
_Open = Callable[[bytes, VariantManifest, BackendOptions], Session]
_SILENT: Final = 4
_INSTALL: Final = "install NVIDIA's onnxruntime-gpu for this JetPack, with TensorRT"


class TensorRtBackend:
    """Builds and runs engines from ONNX files with Q/DQ pairs or half precision."""

    name: Final = "tensorrt"

    def probe(self) -> EngineFact | None:
        """TensorRT's version, and in which ways a one-node engine was really built; None without it."""
        ways = [_NATIVE] * _works_by_itself() + [_THROUGH] * _works_inside()
        version = tensorrt_version()
        return EngineFact(name=self.name, version=version, providers=ways) if version and ways else None

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        """Build the engine of the file of role `build_input`, or take the one built before.

        Raises:
            InferenceError: code `load_failed`; TensorRT is missing or refuses the file.
            UnsupportedFeature: a provider or an option that this adapter does not know.
        """
        first, *others = _ways(manifest)
        content = file_bytes(files, _ROLE)
        try:
            return first(content, manifest, options)
        except InferenceError as refusal:
            if not others:
                raise
            try:
                return others[0](content, manifest, options)
            except InferenceError as other:
                # What is missing says less than what refuses the file.
                raise (other if refusal.remedy == _INSTALL else refusal) from None


def _open_native(content: bytes, manifest: VariantManifest, options: BackendOptions) -> Session:
    tools = _tools()
    if tools is None:
        raise _missing(manifest, "TensorRT's Python package or CUDA's runtime is not installed")
    plan = manifest.build or BuildPlan(where="device", timeout_s=0.0, peak_bytes=0)
    is_strong = manifest.engine.format is not None and manifest.engine.format.typing == "strong"
    wish = NativeWish(plan, is_strong, options.built, concurrency_for(manifest, options))
    try:
        return open_native(tools, content, wish)
    except TensorRtRefuses as error:
        raise _refused(manifest, str(error)) from error


def _open_inside(content: bytes, manifest: VariantManifest, options: BackendOptions) -> Session:
    try:
        vendor_telemetry.switch_off()
        import onnxruntime as ort
    except ImportError as error:
        raise _missing(manifest, "onnxruntime is not installed") from error
    if _TENSORRT not in ort.get_available_providers():
        raise _missing(manifest, "this onnxruntime was built without TensorRT")
    threads = threads_for(manifest, options)
    folder = private_folder(options.built, f"onnxruntime-{ort.__version__}-tensorrt-{tensorrt_version()}")
    told = [(PROVIDERS[name], settings_of(manifest, name, threads, folder)) for name in ("tensorrt", "cuda")]
    try:
        session = session_on(ort, content, _settings(ort, threads), told, folder)
    except Exception as error:
        raise _refused(manifest, str(error)) from error
    # ONNX Runtime goes on without a provider that did not load; what was not asked for must not run.
    if _TENSORRT not in session.get_providers():
        raise _missing(manifest, f"only {', '.join(session.get_providers())} could be loaded")
    return OnnxRuntimeSession(ort, session)


def _ways(manifest: VariantManifest) -> list[_Open]:
    """How the variant may be opened, as it lists it."""
    opens: dict[str, _Open] = {_NATIVE: _open_native, _THROUGH: _open_inside}
    wanted = manifest.target.provider or [_THROUGH]
    known = [opens[way] for way in wanted if way in opens]
    if not known:
        raise UnsupportedFeature(
            f"open variant {manifest.id}", f"provider {shown(wanted[0])} is unknown to this runtime"
        )
    for key, value in manifest.engine.options.items():
        if key != "intra_op_threads" and not is_option(key):
            raise UnsupportedFeature(
                f"open variant {manifest.id}", f"engine option {shown(key)} = {shown(value)} is unknown to this runtime"
            )
    return known


def _tools() -> NativeTools | None:
    try:
        import tensorrt as trt

        return NativeTools(trt, load_cuda(), str(trt.__version__))
    except Exception:  # noqa: BLE001 (missing libraries surface in many ways; absent either way)
        return None


def _works_by_itself() -> bool:
    tools = _tools()
    plan = BuildPlan(where="device", timeout_s=0.0, peak_bytes=0)
    try:
        return tools is not None and bool(open_native(tools, PROBE_ONNX, NativeWish(plan, False, None, 1)).inputs)
    except (TensorRtRefuses, InferenceError):
        return False


def _works_inside() -> bool:
    try:
        vendor_telemetry.switch_off()
        import onnxruntime as ort

        if _TENSORRT not in ort.get_available_providers():
            return False
        session = ort.InferenceSession(PROBE_ONNX, sess_options=_settings(ort, None), providers=[_TENSORRT])
        return _TENSORRT in session.get_providers()
    except Exception:  # noqa: BLE001 (drivers fail in their own ways; any failure means "does not work")
        return False


def _settings(ort: Any, threads: int | None) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _SILENT
    if threads is not None:
        settings.intra_op_num_threads = threads
    return settings


def _missing(manifest: VariantManifest, because: str) -> InferenceError:
    return InferenceError(
        f"open variant {manifest.id}",
        because,
        _INSTALL,
        code=LOAD_FAILED,
    )


def _refused(manifest: VariantManifest, because: str) -> InferenceError:
    return InferenceError(
        f"open variant {manifest.id}",
        f"TensorRT refuses it ({shown(because, 300)})",
        "check that driver and TensorRT fit each other, and that the memory of the build plan is free",
        code=LOAD_FAILED,
    )
