"""Quantises an ONNX model with ONNX Runtime's own tool: static, QDQ, per channel, 7-bit weights.

Seven bits because kernels without VNNI add pairs of products in 16 bits and saturate; the same file is then right
on every CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.compilers.job import Compiled, CompileJob
from converters.errors import CompileFailed
from edge_runtime.inference import vendor_telemetry


def compile_job(job: CompileJob) -> Compiled:
    """Quantise `job.model` into `job.out`/model.onnx.

    Raises:
        CompileFailed: ONNX Runtime's quantiser refuses the model.
    """
    vendor_telemetry.switch_off()
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # The quantiser advises through the root logger; this process's output is one JSON document.
    logging.disable(logging.WARNING)
    prepared, result = Path(job.out) / "prepared.onnx", Path(job.out) / "model.onnx"
    if job.calibration is None:
        raise CompileFailed("quantise with ONNX Runtime", "there is no calibration data")
    try:
        # Symbolic shape inference adds nothing for fixed shapes and fails on some exporters' graphs.
        quant_pre_process(job.model, str(prepared), skip_symbolic_shape=True)
        try:
            _quantise(quantization, prepared, result, Path(job.calibration), {})
        except ValueError:
            # Its repair of tiny bias scales compares whole arrays for some layers and fails; rarely needed.
            options = {"QDQDisableWeightAdjustForInt32Bias": True}
            _quantise(quantization, prepared, result, Path(job.calibration), options)
    except Exception as error:
        raise CompileFailed("quantise with ONNX Runtime", str(error)[:300] or type(error).__name__) from error
    prepared.unlink(missing_ok=True)
    return Compiled(
        files={"model": str(result)},
        tool=f"onnxruntime {onnxruntime.__version__}",
        granularity="per_channel",
        overflow_safe=True,
        reduce_range=True,
    )


def _quantise(quantization: Any, model: Path, result: Path, calibration: Path, extra: dict[str, bool]) -> None:
    quantization.quantize_static(
        str(model),
        str(result),
        _Reader(calibration),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        per_channel=True,
        reduce_range=True,
        extra_options=extra,
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
