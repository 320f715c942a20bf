"""The engine without us, called as its own documentation does: what every overhead is measured against."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import Files, Tensors, file_bytes

BareCall = Callable[[Tensors], object]
"""Runs the file on its own tensors, by the file's names; any thread may call."""


def open_bare(files: Files, manifest: VariantManifest, threads: int | None) -> BareCall:
    """Load a variant's file with nothing but its engine, with the same options and threads.

    Args:
        files: checked bytes by role.
        manifest: engine, provider and options.
        threads: threads inside one call; None: the engine's default.

    Raises:
        InferenceError: the engine is missing, or refuses it.
    """
    opener = _OPENERS.get(manifest.target.engine)
    if opener is None:
        raise InferenceError(f"measure engine {manifest.target.engine} alone", "nothing here calls it without us")
    vendor_telemetry.switch_off()
    try:
        return opener(files, manifest, threads)
    except Exception as error:
        because = f"{manifest.target.engine} refuses ({type(error).__name__})"
        raise InferenceError(f"measure variant {manifest.id} without us", because) from error


def _onnxruntime(files: Files, manifest: VariantManifest, threads: int | None) -> BareCall:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    if threads is not None:
        settings.intra_op_num_threads = threads
    for key, value in manifest.engine.options.items():
        if "." in key:
            settings.add_session_config_entry(key, str(int(value) if isinstance(value, bool) else value))
    names = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider",
             "openvino": "OpenVINOExecutionProvider", "xnnpack": "XnnpackExecutionProvider"}  # fmt: skip
    providers = [names[one] for one in manifest.target.provider or ["cpu"] if one in names]
    session = ort.InferenceSession(file_bytes(files, "model"), settings, providers=providers)

    def call(feeds: Tensors) -> object:
        return session.run(None, feeds)

    return call


def _openvino(files: Files, manifest: VariantManifest, threads: int | None) -> BareCall:
    import openvino as ov

    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    properties |= {key: value for key, value in manifest.engine.options.items() if key.isupper()}
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    core = ov.Core()
    weights = file_bytes(files, "weights") if "weights" in files else b""
    compiled = core.compile_model(core.read_model(file_bytes(files, "model"), weights), "CPU", properties)
    local = threading.local()

    def call(feeds: Tensors) -> object:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return local.request.infer(dict(feeds))

    return call


def _litert(files: Files, manifest: VariantManifest, threads: int | None) -> BareCall:  # noqa: ARG001 (one shape for all)
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter(model_content=file_bytes(files, "model"), num_threads=threads)
    interpreter.allocate_tensors()
    places = {str(one["name"]): one["index"] for one in interpreter.get_input_details()}
    answers = [one["index"] for one in interpreter.get_output_details()]
    # An interpreter takes one caller.
    turn = threading.Lock()

    def call(feeds: Tensors) -> object:
        with turn:
            for name, array in feeds.items():
                interpreter.set_tensor(places[name], array)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in answers]

    return call


_OPENERS: Mapping[str, Callable[[Files, VariantManifest, int | None], BareCall]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "litert": _litert,
}
