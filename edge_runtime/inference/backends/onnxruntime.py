"""ONNX Runtime as a backend: one session per variant, bytes in, numpy out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import (
    PROBE_ONNX,
    BackendOptions,
    Files,
    Session,
    file_bytes,
    threads_for,
)
from edge_runtime.inference.libraries.onnxruntime_session import PROVIDERS, OnnxRuntimeSession, session_on

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
_PLAIN: Final = _SESSION_ENTRIES | {"graph_optimisation", "intra_op_threads"}
_SILENT: Final = 4
"""Log severity "fatal": what matters arrives as an exception; ONNX Runtime would print it to stderr besides."""


class OnnxRuntimeBackend:
    """Runs `.onnx` files with whichever onnxruntime distribution is installed."""

    name: Final = "onnxruntime"

    def probe(self) -> EngineFact | None:
        """Version and the execution providers on which a one-node session really ran; None without onnxruntime."""
        return _fact(PROVIDERS, proven=())

    def find(self, providers: Collection[str]) -> EngineFact | None:
        """As `probe`, for these providers alone; the CPU, which is always there, is not tried."""
        return _fact(providers, proven=("cpu",))

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        """Load the file of role `model`. Raises: InferenceError (`load_failed`), UnsupportedFeature."""
        try:
            vendor_telemetry.switch_off()
            import onnxruntime as ort
        except ModuleNotFoundError as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                "onnxruntime is not installed",
                "pip install 'edgefleet[ort]'",
                code=LOAD_FAILED,
            ) from error
        except ImportError as error:  # a library that it needs, or memory for its own
            because = f"onnxruntime cannot be imported ({shown(str(error), 300)})"
            raise InferenceError(f"open variant {manifest.id}", because, code=LOAD_FAILED) from error
        providers = _offered(ort, _known(manifest), manifest)
        settings = _session_options(ort, manifest, options, first=providers[0])
        told, folder = _told(ort, providers, manifest, options)
        content = file_bytes(files, "model")
        try:
            session = _first_that_loads(ort, content, settings, told, folder)
            _forbid_other_provider(session.get_providers(), [name for name, _ in told], manifest)
            return OnnxRuntimeSession(ort, session)
        except InferenceError:
            raise
        except Exception as error:
            raise InferenceError(
                f"open variant {manifest.id}",
                f"onnxruntime {ort.__version__} refuses it ({shown(str(error), 300)})",
                "check that the file is a complete ONNX model whose opset this version knows",
                code=LOAD_FAILED,
            ) from error


def _session_options(ort: Any, manifest: VariantManifest, options: BackendOptions, first: str) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _SILENT
    if (threads := threads_for(manifest, options)) is not None:
        settings.intra_op_num_threads = threads
    if first == "xnnpack":
        # It has threads of its own, with which ours would compete (ONNX Runtime documentation, XNNPACK).
        settings.intra_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = "disabled" if options.graph_optimisation == "disabled" else "all"
    for key, value in manifest.engine.options.items():
        if key in _SESSION_ENTRIES:
            settings.add_session_config_entry(key, str(int(value) if isinstance(value, bool) else value))
        elif key == "graph_optimisation" and value in _OPTIMISATION:
            level = str(value) if options.graph_optimisation == "manifest" else level
        elif key != "intra_op_threads" and not _belongs_to_provider(key):
            raise UnsupportedFeature(
                f"open variant {manifest.id}", f"engine option {shown(key)} = {shown(value)} is unknown to this runtime"
            )
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _OPTIMISATION[level])
    return settings


def _known(manifest: VariantManifest) -> list[str]:
    wanted = manifest.target.provider or ["cpu"]
    known = [name for name in wanted if name in PROVIDERS]
    if not known:
        raise UnsupportedFeature(
            f"open variant {manifest.id}", f"provider {shown(wanted[0])} is unknown to this runtime"
        )
    return known


def _offered(ort: Any, wanted: list[str], manifest: VariantManifest) -> list[str]:
    """Those that this build of ONNX Runtime has: about the others it would print a Python warning to stderr."""
    listed = ort.get_available_providers()
    offered = [name for name in wanted if PROVIDERS[name] in listed]
    if not offered:
        because = f"onnxruntime offers {', '.join(listed)}, not {PROVIDERS[wanted[0]]}"
        raise InferenceError(f"open variant {manifest.id}", because, code=LOAD_FAILED)
    return offered


def _belongs_to_provider(key: str) -> bool:
    from edge_runtime.inference.libraries.onnxruntime_providers import is_option

    return is_option(key)


def _told(
    ort: Any, providers: list[str], manifest: VariantManifest, options: BackendOptions
) -> tuple[list[tuple[str, dict[str, Any]]], Path | None]:
    """What each provider is told, by its vendor's name, and the folder for what they build."""
    if providers == ["cpu"] and all(key in _PLAIN for key in manifest.engine.options):
        return [(PROVIDERS["cpu"], {})], None
    from edge_runtime.inference.built import private_folder
    from edge_runtime.inference.libraries.onnxruntime_providers import settings_of, wants_folder
    from edge_runtime.inference.libraries.tensorrt_library import tensorrt_version

    versions = f"onnxruntime-{ort.__version__}"
    if "tensorrt" in providers:
        versions += f"-tensorrt-{tensorrt_version()}"
    folder = private_folder(options.built, versions) if wants_folder(manifest) else None
    threads = threads_for(manifest, options)
    return [(PROVIDERS[name], settings_of(manifest, name, threads, folder)) for name in providers], folder


def _first_that_loads(
    ort: Any, content: bytes, settings: Any, told: list[tuple[str, dict[str, Any]]], folder: Path | None
) -> Any:
    """A session on the first provider that does not fail, with those behind it."""
    try:
        return session_on(ort, content, settings, told, folder)
    except Exception as refusal:
        if len(told) == 1:
            raise
        try:
            return _first_that_loads(ort, content, settings, told[1:], folder)
        except Exception:  # noqa: BLE001 (the first one was meant)
            raise refusal from None


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
        for name, vendor in PROVIDERS.items()
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
