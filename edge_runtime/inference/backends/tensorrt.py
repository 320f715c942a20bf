"""TensorRT through ONNX Runtime's provider for it: the engine is built on this device, and kept for this device alone.

An engine is executable code, so it is never fetched: it lies in a folder that only this user can write, named after
everything that it depends on.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Final

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.digest import digest_of, hex_of
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import PROBE_ONNX, BackendOptions, Files, Session, file_bytes, threads_for
from edge_runtime.inference.onnxruntime_session import OnnxRuntimeSession

_TENSORRT: Final = "TensorrtExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_THROUGH: Final = "onnxruntime"
"""The provider of `Target.provider` that this is; `native` is TensorRT without ONNX Runtime."""
_ROLE: Final = "build_input"
_SILENT: Final = 4
# A list of what may pass: other options name files and folders, or load libraries.
_OPTIONS: Final = frozenset(
    {
        "trt_builder_optimization_level",
        "trt_dla_core",
        "trt_dla_enable",
        "trt_engine_cache_enable",
        "trt_fp16_enable",
        "trt_int8_enable",
        "trt_max_workspace_size",
        "trt_min_subgraph_size",
        "trt_profile_max_shapes",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_timing_cache_enable",
    }
)
_LIBRARIES: Final = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")


class TensorRtBackend:
    """Builds and runs engines from ONNX files with Q/DQ pairs or half precision."""

    name: Final = "tensorrt"

    def probe(self) -> EngineFact | None:
        """TensorRT's version, when a one-node session really ran on it; None without it."""
        try:
            vendor_telemetry.switch_off()
            import onnxruntime as ort

            if _TENSORRT not in ort.get_available_providers():
                return None
            session = ort.InferenceSession(PROBE_ONNX, sess_options=_settings(ort, None), providers=[_TENSORRT])
            version = _version() if _TENSORRT in session.get_providers() else None
        except Exception:  # noqa: BLE001 (drivers fail in their own ways; any failure means "does not work")
            return None
        return EngineFact(name=self.name, version=version, providers=[_THROUGH]) if version else None

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        """Build the engine of the file of role `build_input`, or take the one built before.

        Raises:
            InferenceError: code `load_failed`; TensorRT is missing or refuses the file.
            UnsupportedFeature: a provider or an option that this adapter does not know.
        """
        content = file_bytes(files, _ROLE)
        chosen = provider_options(manifest, engine_folder(content, manifest))
        try:
            vendor_telemetry.switch_off()
            import onnxruntime as ort
        except ImportError as error:
            raise _missing(manifest, "onnxruntime is not installed") from error
        if _TENSORRT not in ort.get_available_providers():
            raise _missing(manifest, "this onnxruntime was built without TensorRT")
        try:
            session = ort.InferenceSession(
                content,
                sess_options=_settings(ort, threads_for(manifest, options)),
                providers=[(_TENSORRT, chosen), _CUDA],
            )
        except Exception as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                f"TensorRT refuses it ({shown(str(error), 300)})",
                "check that driver and TensorRT fit each other, and that the memory of the build plan is free",
                code=LOAD_FAILED,
            ) from error
        # ONNX Runtime goes on without a provider that did not load; what was not asked for must not run.
        if _TENSORRT not in session.get_providers():
            raise _missing(manifest, f"only {', '.join(session.get_providers())} could be loaded")
        return OnnxRuntimeSession(ort, session)


def provider_options(manifest: VariantManifest, folder: Path | None) -> dict[str, Any]:
    """Options of ONNX Runtime's TensorRT provider: the variant's, and where this device keeps what it built.

    Args:
        manifest: of the variant.
        folder: for engines and timings; None: nothing is kept.

    Raises:
        UnsupportedFeature: a provider or an option that this adapter does not know.
    """
    wanted = manifest.target.provider
    if wanted and _THROUGH not in wanted:
        raise UnsupportedFeature(
            f"open variant {manifest.id}", f"provider {shown(wanted[0])} is unknown to this runtime"
        )
    chosen: dict[str, Any] = {}
    for key, value in manifest.engine.options.items():
        if key in _OPTIONS:
            if value is not None:
                chosen[key] = value
        elif key != "intra_op_threads":
            raise UnsupportedFeature(
                f"open variant {manifest.id}", f"engine option {shown(key)} = {shown(value)} is unknown to this runtime"
            )
    for kept, place in (("trt_engine_cache_enable", "trt_engine_cache_path"),
                        ("trt_timing_cache_enable", "trt_timing_cache_path")):  # fmt: skip
        chosen[kept] = bool(chosen.get(kept)) and folder is not None
        if chosen[kept]:
            chosen[place] = str(folder)
    return chosen


def engine_folder(content: bytes, manifest: VariantManifest) -> Path | None:
    """Where engines of this file and plan are kept; None where there is no folder that only this user can write.

    ONNX Runtime names the engines in it by GPU and TensorRT version besides.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefleet" / "tensorrt"
    key = digest_of(encode([digest_of(content), manifest.build, manifest.engine, _version() or ""]))
    folder = base / hex_of(key)[:32]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return None
    is_private = found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if is_private else None


def _settings(ort: Any, threads: int | None) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _SILENT
    if threads is not None:
        settings.intra_op_num_threads = threads
    return settings


def _version() -> str | None:
    """Of the library that would be loaded. Source: NvInferRuntime.h, `getInferLibVersion`; NvInferVersion.h."""
    for name in _LIBRARIES:
        try:
            number = int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        # Four digits until 9.x (8502 is 8.5.2), five and more since 10.0 (100300 is 10.3.0).
        major, rest = divmod(number, 1000 if number < 10_000 else 10_000)
        return f"{major}.{rest // 100}.{rest % 100}"
    return None


def _missing(manifest: VariantManifest, because: str) -> InferenceError:
    return InferenceError(
        f"open variant {manifest.id}",
        because,
        "install NVIDIA's onnxruntime-gpu for this JetPack, with TensorRT",
        code=LOAD_FAILED,
    )
