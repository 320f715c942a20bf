"""Takes the ranges of all activations from examples, once for all candidates that want them, in bounded memory.

ONNX Runtime's calibrators keep every activation of every example, or histograms that grow with the largest outlier.
Here one example at a time is in memory: a first pass takes minima and maxima, a second one fills histograms of a fixed
number of bins between them; how a histogram becomes a range is again ONNX Runtime's own algorithm.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from converters.compilers.job import Compiled, RangesJob
from converters.errors import CompileFailed
from converters.planning.methods import RangeMethod
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import Array

BINS: Final[Mapping[str, int]] = {"percentile": 2048, "entropy": 512}
"""More bins than levels: with ONNX Runtime's default of 128 bins for 128 levels entropy has nothing to choose from."""
_LEVELS: Final = 128
_PERCENTILE: Final = 99.99
_WHAT: Final = "take ranges from the calibration set"

Ranges = dict[str, tuple[float, float]]
"""Lowest and highest value by tensor name."""


def compile_job(job: RangesJob) -> Compiled:
    """Write `job.out`/prepared.onnx (optimised, with shapes) and `job.out`/ranges.json.

    Raises:
        CompileFailed: ONNX Runtime cannot prepare or run the model, or an activation is not a number.
    """
    vendor_telemetry.switch_off()
    import onnxruntime

    # The calibrators print, and advise through the root logger; this process's output is one JSON document.
    logging.disable(logging.WARNING)
    prepared, ranges = Path(job.out) / "prepared.onnx", Path(job.out) / "ranges.json"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            prepare(job.model, prepared)
            found = take_ranges(prepared, Path(job.calibration), job.ranges, Path(job.out))
    except CompileFailed:
        raise
    except Exception as error:
        raise CompileFailed(_WHAT, str(error)[:300] or type(error).__name__) from error
    ranges.write_bytes(msgspec.json.encode(found, order="sorted"))
    files = {"prepared": str(prepared), "ranges": str(ranges)}
    return Compiled(files=files, tool=f"onnxruntime {onnxruntime.__version__}")


def prepare(model: str, prepared: Path) -> None:
    """Fold constants and batch normalisation, and write shapes into the file, as the quantiser wants it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Symbolic shape inference adds nothing for fixed shapes and fails on some exporters' graphs.
    quant_pre_process(model, str(prepared), skip_symbolic_shape=True)
    made = onnx.load(str(prepared))
    _name_nodes(made)
    _flatten_biases(made)
    onnx.save(made, str(prepared))


def _name_nodes(model: Any) -> None:
    """Layers are told apart by name, when some stay in float and when a report names them."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"


def _flatten_biases(model: Any) -> None:
    """Write biases [1, n] as [n]: ONNX Runtime's quantiser gives them a scale per channel, along the wrong axis.

    A MatMul and an Add of such a constant become one Gemm when the model is prepared.
    """
    from onnx import numpy_helper

    constants = {entry.name: entry for entry in model.graph.initializer}
    taken = set(constants) | {name for node in model.graph.node for name in (*node.input, *node.output)}
    for node in model.graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Gemm" and len(node.input) == 3 else None
        if bias is None or len(bias.dims) != 2 or bias.dims[0] != 1:
            continue
        # A new one: what else reads the old one may need both axes.
        name = f"{bias.name}_flat"
        if name not in taken:
            taken.add(name)
            model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(bias)[0], name))
        node.input[2] = name


def read_ranges(path: Path) -> Any:
    """The file's ranges as the quantiser takes them."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    found = msgspec.json.decode(path.read_bytes(), type=Ranges)
    boxed = {name: tuple(np.asarray(bound, dtype=np.float32) for bound in pair) for name, pair in found.items()}
    return TensorsData(CalibrationMethod.MinMax, boxed)


def take_ranges(model: Path, samples: Path, method: RangeMethod, work: Path) -> Ranges:
    """Ranges of all activations of a model over a folder of `<n>.npz`. Raises: CompileFailed."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    augmented = work / "augmented.onnx"
    calibrator = create_calibrator(
        model, None, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.MinMax
    )
    calibrator.collect_data(_Reader(samples))
    limits = {name: _pair(data.range_value) for name, data in calibrator.compute_data().items()}
    if wrong := sorted(name for name, pair in limits.items() if not np.isfinite(pair).all()):
        raise CompileFailed(_WHAT, f"{wrong[0]} is not a number for some example", "look for it in the data or weights")
    if method != "minmax":
        counts = _histograms(model, samples, limits, augmented, BINS[method])
        limits |= _from_histograms(counts, limits, method)
    augmented.unlink(missing_ok=True)
    return limits


def _histograms(model: Path, samples: Path, limits: Ranges, augmented: Path, bins: int) -> dict[str, Array]:
    """Counts int64 [bins] by tensor, over ±the largest magnitude."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    calibrator = create_calibrator(
        model, None, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.Entropy
    )
    names = [output.name for output in calibrator.infer_session.get_outputs()]
    counts = {name: np.zeros(bins, dtype=np.int64) for name in names if name in limits}
    for sample in read_samples(samples):
        for name, values in zip(names, calibrator.infer_session.run(None, sample), strict=True):
            if name in counts:
                reach = _reach(limits[name])
                counts[name] += np.histogram(values, bins=bins, range=(-reach, reach))[0]
    return counts


def _from_histograms(counts: Mapping[str, Array], limits: Ranges, method: RangeMethod) -> Ranges:
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(
        method=method, symmetric=False, num_bins=BINS[method], num_quantized_bins=_LEVELS, percentile=_PERCENTILE,
        scenario="same",
    )  # fmt: skip
    for name, count in counts.items():
        low, high = (np.float32(bound) for bound in limits[name])
        reach = np.float32(_reach(limits[name]))
        edges = np.linspace(-reach, reach, BINS[method] + 1, dtype=np.float32)
        collector.histogram_dict[name] = (count, edges, low, high, reach)
    return {name: _pair(found) for name, found in collector.compute_collection_result().items()}


def _reach(limits: tuple[float, float]) -> float:
    return max(abs(limits[0]), abs(limits[1])) or 1.0


def _pair(bounds: Any) -> tuple[float, float]:
    return float(np.min(bounds[0])), float(np.max(bounds[1]))


def read_samples(folder: Path) -> Iterator[dict[str, Array]]:
    """Examples by input name, one at a time, in the order of their file names."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            yield {name: archive[name] for name in archive.files}


class _Reader:
    """Feeds ONNX Runtime's calibrators, which ask for one example after the other."""

    def __init__(self, folder: Path) -> None:
        self._samples = read_samples(folder)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._samples, None)
