"""Makes the ONNX files that a Jetson's TensorRT builds its engine from: int8 as Q/DQ pairs, zero points all 0.

Two files, because no TensorRT reads both: *weak* is float32 around the pairs, and build flags let the engine choose
fp16 (TensorRT 8.5 to 10); *strong* carries fp16 in the file itself, which needs opset 19 (TensorRT 10 and later; 11
knows nothing else). Weights stay float before their own Q/DQ pair, as TensorRT's parser wants them.
"""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np

from converters.compilers.job import Compiled, CompileJob
from converters.compilers.ranges import prepare, read_ranges, take_ranges
from converters.errors import BadModel, CompileFailed
from converters.model.opset import convert_opset, drop_unused_domains, standard_opset
from converters.planning.methods import Method
from edge_runtime.inference import vendor_telemetry

WEAK_OPSETS: Final = (13, 17)
"""From where scales per channel exist, to the newest that TensorRT 8.5 parses; source: onnx-tensorrt, Changelog."""
STRONG_OPSETS: Final = (19, 20)
"""From where QuantizeLinear takes fp16, to the newest that TensorRT 10.0 parses."""
WEAK_IR, STRONG_IR = 8, 9

_QUANTISED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool", "MaxPool")
"""What TensorRT has int8 kernels for, and whose input and output must be int8 for layers to fuse."""
_WHAT: Final = "make the file for TensorRT"
_SETTINGS: Final = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    # TensorRT adds biases in float32, and takes no int32 pair.
    "QuantizeBias": False,
    # Without int32 biases no weight needs a larger scale for one; ONNX Runtime's repair also fails on some layers.
    "QDQDisableWeightAdjustForInt32Bias": True,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
    # Pairs in front of what is quantised, none behind: a convolution stays beside the activation it fuses with, and the
    # activation's output, without the half that it cuts off, gets all the levels.
    "OpTypesToExcludeOutputQuantization": list(_QUANTISED),
}
"""Source: ONNX Runtime documentation, Quantize ONNX models, Quantization on GPU."""


def compile_job(job: CompileJob) -> Compiled:
    """Make `job.out`/model.onnx, weak or strong as the method says.

    Raises:
        CompileFailed: ONNX Runtime's tools refuse the model, or it cannot be had symmetric or in these opsets.
    """
    vendor_telemetry.switch_off()
    import onnx
    import onnxruntime

    # The quantiser advises through the root logger; this process's output is one JSON document.
    logging.disable(logging.WARNING)
    result = Path(job.out) / "model.onnx"
    try:
        with TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
            onnx.save(_made(job, Path(work)), str(result))
    except (CompileFailed, BadModel) as error:
        raise CompileFailed(_WHAT, error.because, error.remedy) from error
    except Exception as error:
        raise CompileFailed(_WHAT, str(error)[:300] or type(error).__name__) from error
    return Compiled(files={"model": str(result)}, tool=f"onnxruntime {onnxruntime.__version__}")


def _made(job: CompileJob, work: Path) -> Any:
    if job.method.is_quantised:
        return make_int8(*_prepared(job, work), job.method)
    if job.method.typing == "weak":
        return make_half(Path(job.model), job.method)
    # Batch normalisation is folded first: its small variances are 0 in fp16, and the answer is noise.
    prepared = work / "prepared.onnx"
    prepare(job.model, prepared)
    return make_half(prepared, job.method)


def make_half(model: Path, method: Method) -> Any:
    """An ONNX model for fp16: unchanged in the weak file, whose builder is told so; in the strong one all through.

    Raises:
        BadModel: the opset cannot be reached with the same answers.
    """
    import onnx

    return _finished(_in_range(onnx.load(str(model)), method), method)


def make_int8(prepared: Path, ranges: Path, method: Method) -> Any:
    """An ONNX model with symmetric Q/DQ pairs.

    Args:
        prepared: the float model, folded and with shapes.
        ranges: of its activations, as a `RangesJob` writes them.
        method: `typing` says which file; ranges are taken symmetric whatever it says.

    Raises:
        BadModel: the opset cannot be reached with the same answers.
        CompileFailed: a zero point is not 0.
    """
    quantised = _quantise(prepared, ranges, method)
    _check_symmetric(quantised)
    return _finished(quantised, method)


def _finished(model: Any, method: Method) -> Any:
    if method.typing == "strong":
        model = _halve(model)
    drop_unused_domains(model)
    model.ir_version = STRONG_IR if method.typing == "strong" else WEAK_IR
    return model


def _in_range(model: Any, method: Method) -> Any:
    lowest, highest = STRONG_OPSETS if method.typing == "strong" else WEAK_OPSETS
    return convert_opset(model, min(max(standard_opset(model), lowest), highest))


def _prepared(job: CompileJob, work: Path) -> tuple[Path, Path]:
    if job.prepared and job.ranges:
        return Path(job.prepared), Path(job.ranges)
    if job.calibration is None:
        raise CompileFailed(_WHAT, "there is no calibration data")
    prepared, ranges = work / "prepared.onnx", work / "ranges.json"
    prepare(job.model, prepared)
    found = take_ranges(prepared, Path(job.calibration), job.method.calibration or "minmax", work)
    ranges.write_bytes(msgspec.json.encode(found))
    return prepared, ranges


def _quantise(prepared: Path, ranges: Path, method: Method) -> Any:
    from onnxruntime.quantization import QuantType, quant_utils
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = _in_range(quant_utils.load_model_with_shape_infer(prepared), method)
    quantizer = QDQQuantizer(
        model,
        method.per_channel,
        False,  # reduce_range: a GPU's int8 kernels sum in 32 bits
        QuantType.QInt8,
        QuantType.QInt8,
        read_ranges(ranges),
        [],
        [*method.excluded, *_left_in_float(model)],
        list(_QUANTISED),
        dict(_SETTINGS),
    )
    quantizer.quantize_model()
    return _in_order(quantizer.model.model)


def _left_in_float(model: Any) -> list[str]:
    """Additions of a constant: TensorRT has int8 for the sum of two branches, and a bias loses its precision."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "Add" and constants & set(node.input)]


def _check_symmetric(model: Any) -> None:
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if not any(node.op_type == "QuantizeLinear" and node.input[0] in constants for node in model.graph.node):
        because = "nothing in its main graph has constant weights, so int8 would change nothing"
        raise CompileFailed(_WHAT, because, "ship half precision")
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(node.input) > 2:
            zero = constants.get(node.input[2])
            if zero is None or bool(np.any(numpy_helper.to_array(zero))):
                raise CompileFailed(_WHAT, f"{node.name} has a zero point other than 0, which TensorRT refuses")


def _halve(model: Any) -> Any:
    """Everything between the int8 parts in fp16; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # What is left of batch normalisation keeps float32, for the same reason for which it is folded.
    kept = [*DEFAULT_OP_BLOCK_LIST, "BatchNormalization"]
    return _in_order(convert_float_to_float16(model, keep_io_types=True, op_block_list=kept))


def _in_order(model: Any) -> Any:
    """Nodes behind what they read: the tools append theirs, and TensorRT's parser takes them one after the other."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ordered = ONNXModel(model)
    ordered.topological_sort()
    return ordered.model
