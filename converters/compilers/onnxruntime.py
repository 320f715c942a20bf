"""Quantises an ONNX model with ONNX Runtime's own tools, or stores it in half precision."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from converters.compilers.job import Compiled, CompileJob
from converters.errors import CompileFailed
from converters.methods import Method
from edge_runtime.inference import vendor_telemetry

_TYPES: Final = {"int8": "QInt8", "uint8": "QUInt8", "int16": "QInt16", "uint16": "QUInt16"}
_RANGES: Final = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
_WHAT: Final = "quantise with ONNX Runtime"


def compile_job(job: CompileJob) -> Compiled:
    """Make `job.out`/model.onnx from `job.model`.

    Raises:
        CompileFailed: ONNX Runtime's tools refuse the model.
    """
    vendor_telemetry.switch_off()
    import onnxruntime

    # The quantiser advises through the root logger; this process's output is one JSON document.
    logging.disable(logging.WARNING)
    prepared, result = Path(job.out) / "prepared.onnx", Path(job.out) / "model.onnx"
    try:
        if job.method.precision == "float16":
            _halve(Path(job.model), result)
        else:
            _prepare(job.model, prepared)
            _quantise(job, prepared, result)
    except CompileFailed:
        raise
    except Exception as error:
        raise CompileFailed(_WHAT, str(error)[:300] or type(error).__name__) from error
    prepared.unlink(missing_ok=True)
    return Compiled(files={"model": str(result)}, tool=f"onnxruntime {onnxruntime.__version__}")


def _halve(model: Path, result: Path) -> None:
    """Weights and arithmetic in half precision; inputs and outputs stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(model)), keep_io_types=True), str(result))


def _prepare(model: str, prepared: Path) -> None:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Symbolic shape inference adds nothing for fixed shapes and fails on some exporters' graphs.
    quant_pre_process(model, str(prepared), skip_symbolic_shape=True)


def _quantise(job: CompileJob, prepared: Path, result: Path) -> None:
    if job.method.scheme == "dynamic":
        _dynamic(job.method, prepared, result)
        return
    if job.calibration is None:
        raise CompileFailed(_WHAT, "there is no calibration data")
    try:
        _static(job.method, prepared, result, Path(job.calibration), {})
    except ValueError:
        # Its repair of tiny bias scales compares whole arrays for some layers and fails; rarely needed.
        _static(job.method, prepared, result, Path(job.calibration), {"QDQDisableWeightAdjustForInt32Bias": True})


def _dynamic(method: Method, model: Path, result: Path) -> None:
    from onnxruntime import quantization

    quantization.quantize_dynamic(
        str(model),
        str(result),
        weight_type=getattr(quantization.QuantType, _TYPES[method.weights or "uint8"]),
        per_channel=method.per_channel,
        reduce_range=method.reduce_range,
        nodes_to_exclude=list(method.excluded),
    )


def _static(method: Method, model: Path, result: Path, calibration: Path, extra: dict[str, bool]) -> None:
    from onnxruntime import quantization

    types = quantization.QuantType
    quantization.quantize_static(
        str(model),
        str(result),
        _Reader(calibration),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=getattr(types, _TYPES[method.activations or "uint8"]),
        weight_type=getattr(types, _TYPES[method.weights or "int8"]),
        calibrate_method=getattr(quantization.CalibrationMethod, _RANGES[method.calibration or "minmax"]),
        per_channel=method.per_channel,
        reduce_range=method.reduce_range,
        nodes_to_exclude=list(method.excluded),
        extra_options={"ActivationSymmetric": method.symmetric, **extra},
    )


class _Reader:
    """Feeds one sample at a time: the whole set never stands in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._samples = self._read()

    def get_next(self) -> dict[str, Any] | None:
        return next(self._samples, None)

    def rewind(self) -> None:
        self._samples = self._read()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._read()

    def _read(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._folder.glob("*.npz")):
            with np.load(path, allow_pickle=False) as archive:
                yield {name: archive[name] for name in archive.files}
