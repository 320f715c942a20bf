"""Quantises an ONNX model with ONNX Runtime's own tools, or stores it in half precision."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from converters.compilers.job import Compiled, CompileJob
from converters.compilers.ranges import prepare, read_ranges, take_ranges
from converters.errors import CompileFailed
from converters.planning.methods import Method
from edge_runtime.inference import vendor_telemetry

_TYPES: Final = {"int8": "QInt8", "uint8": "QUInt8", "int16": "QInt16", "uint16": "QUInt16"}
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
    result = Path(job.out) / "model.onnx"
    try:
        if job.method.precision == "float16":
            _halve(Path(job.model), result)
        else:
            with TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
                _quantise(job, Path(work), result)
    except CompileFailed:
        raise
    except Exception as error:
        raise CompileFailed(_WHAT, str(error)[:300] or type(error).__name__) from error
    return Compiled(files={"model": str(result)}, tool=f"onnxruntime {onnxruntime.__version__}")


def _halve(model: Path, result: Path) -> None:
    """Weights and arithmetic in half precision; inputs and outputs stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # Small variances of batch normalisation are 0 in fp16, and the answer is noise.
    kept = [*DEFAULT_OP_BLOCK_LIST, "BatchNormalization"]
    halved = convert_float_to_float16(onnx.load(str(model)), keep_io_types=True, op_block_list=kept)
    onnx.save(halved, str(result))


def _quantise(job: CompileJob, work: Path, result: Path) -> None:
    prepared = Path(job.prepared) if job.prepared else work / "prepared.onnx"
    if job.prepared is None:
        prepare(job.model, prepared)
    if job.method.scheme == "dynamic":
        _dynamic(job.method, prepared, result)
        return
    ranges = Path(job.ranges) if job.ranges else _ranges_of(job, prepared, work)
    try:
        _static(job.method, prepared, ranges, result, {})
    except ValueError:
        # Its repair of tiny bias scales compares whole arrays for some layers and fails; rarely needed.
        _static(job.method, prepared, ranges, result, {"QDQDisableWeightAdjustForInt32Bias": True})


def _ranges_of(job: CompileJob, prepared: Path, work: Path) -> Path:
    if job.calibration is None:
        raise CompileFailed(_WHAT, "there is no calibration data")
    ranges = work / "ranges.json"
    found = take_ranges(prepared, Path(job.calibration), job.method.calibration or "minmax", work)
    ranges.write_bytes(msgspec.json.encode(found))
    return ranges


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


def _static(method: Method, prepared: Path, ranges: Path, result: Path, extra: dict[str, bool]) -> None:
    """What `quantize_static` does after its own calibration."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import quant_utils, registry
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quantize import update_opset_version

    types = quantization.QuantType
    weights, activations = (getattr(types, _TYPES[kind or "int8"]) for kind in (method.weights, method.activations))
    model = update_opset_version(quant_utils.load_model_with_shape_infer(prepared), weights, activations)
    quantizer = QDQQuantizer(
        model,
        method.per_channel,
        method.reduce_range,
        weights,
        activations,
        read_ranges(ranges),
        [],
        list(method.excluded),
        sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry}),
        # A Relu whose clipping the quantisation does is left out; next to a node in float the engine then drops both.
        {"ActivationSymmetric": method.symmetric, "QDQKeepRemovableActivations": bool(method.excluded), **extra},
    )
    quantizer.quantize_model()
    onnx.save(quantizer.model.model, str(result))
