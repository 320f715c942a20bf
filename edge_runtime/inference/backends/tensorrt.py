"""TensorRT through ONNX Runtime's provider for it: the engine is built on this device, and kept for this device alone.

An engine is executable code, so it is never fetched: it lies in a folder that only this user can write, named after
everything that it depends on.
"""

from __future__ import annotations

from typing import Any, Final

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import PROBE_ONNX, BackendOptions, Files, Session, file_bytes, threads_for
from edge_runtime.inference.built import private_folder
from edge_runtime.inference.onnxruntime_providers import is_option, settings_of
from edge_runtime.inference.onnxruntime_session import PROVIDERS, OnnxRuntimeSession, session_on
from edge_runtime.inference.tensorrt_library import tensorrt_version

_TENSORRT: Final = PROVIDERS["tensorrt"]
_THROUGH: Final = "onnxruntime"
"""The provider of `Target.provider` that this is; `native` is TensorRT without ONNX Runtime."""
_ROLE: Final = "build_input"
_SILENT: Final = 4


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
            version = tensorrt_version() if _TENSORRT in session.get_providers() else None
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
        _check_known(manifest)
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


def _check_known(manifest: VariantManifest) -> None:
    wanted = manifest.target.provider
    if wanted and _THROUGH not in wanted:
        raise UnsupportedFeature(
            f"open variant {manifest.id}", f"provider {shown(wanted[0])} is unknown to this runtime"
        )
    for key, value in manifest.engine.options.items():
        if key != "intra_op_threads" and not is_option(key):
            raise UnsupportedFeature(
                f"open variant {manifest.id}", f"engine option {shown(key)} = {shown(value)} is unknown to this runtime"
            )


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
        "install NVIDIA's onnxruntime-gpu for this JetPack, with TensorRT",
        code=LOAD_FAILED,
    )
