"""Finds the layers a quantised ONNX model loses in: one calibrated file, edited in memory, asked in float emulation.

Quantising again for each layer would calibrate again each time; taking the quantisation of one layer back in the file
costs a fifth of a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from converters.compilers.job import Compiled, SensitivityJob
from converters.compilers.ranges import read_samples
from converters.errors import CompileFailed
from converters.planning.sensitivity import CurvePoint, LayerError, Sensitivity, most_in_float, ranked
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.backend import Array
from edge_runtime.inference.checks.agreement import snr_db

_POOL: Final = 8
_WHAT: Final = "look for the layers that lose accuracy"
_QUIET: Final = 4


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant input of one node that the file quantises."""

    position: int
    exact: Array
    stored: Array
    """What the quantised file makes of it."""


def compile_job(job: SensitivityJob) -> Compiled:
    """Write `job.out`/sensitivity.json.

    Raises:
        CompileFailed: the files do not belong together, or cannot be run.
    """
    vendor_telemetry.switch_off()
    import onnxruntime

    logging.disable(logging.WARNING)
    try:
        found = _look(job)
    except Exception as error:
        raise CompileFailed(_WHAT, str(error)[:300] or type(error).__name__) from error
    result = Path(job.out) / "sensitivity.json"
    result.write_bytes(msgspec.json.encode(found))
    return Compiled(files={"sensitivity": str(result)}, tool=f"onnxruntime {onnxruntime.__version__}")


def _look(job: SensitivityJob) -> Sensitivity:
    exact, stored = onnx.load(job.prepared), onnx.load(job.quantised)
    samples = list(islice(read_samples(Path(job.calibration)), job.count))
    weights = _weights_of(exact, stored)
    ops = {node.name: node.op_type for node in exact.graph.node}
    wanted = _answers(exact, samples)

    def score(model: Any) -> float:
        return round(snr_db(wanted, _answers(model, samples)), 2)

    base = score(stored)
    layers = []
    for node in weights:
        alone = score(_with_stored(exact, weights, [node]))
        gain = round(score(_undone(stored, weights, [node])) - base, 2) if job.undo else None
        layers.append(LayerError(node=node, op=ops[node], alone_db=alone, gain_db=gain))
    curve = _greedy(layers, lambda nodes: score(_undone(stored, weights, nodes))) if job.undo else []
    every = score(_with_stored(exact, weights, weights))
    return Sensitivity(samples=len(samples), base_db=base, weights_db=every, layers=ranked(layers), curve=curve)


def _greedy(layers: Sequence[LayerError], score: Callable[[Sequence[str]], float]) -> list[CurvePoint]:
    """The best layer to compute in float, then the best one beside it, and so on.

    Gains do not add up (errors cancel each other), so each step is tried; only among the layers that promise most:
    all of them would take the square of their number.
    """
    pool = [layer.node for layer in ranked(layers)[:_POOL]]
    pool += [one.node for one in sorted(layers, key=lambda one: one.alone_db)[:_POOL] if one.node not in pool]
    kept: list[str] = []
    curve: list[CurvePoint] = []
    for _ in range(min(most_in_float(len(layers)), len(pool))):
        tried = {node: score([*kept, node]) for node in pool if node not in kept}
        best = max(tried, key=lambda node: tried[node])
        kept.append(best)
        curve.append(CurvePoint(nodes=list(kept), snr_db=tried[best]))
    return curve


def _answers(model: Any, samples: Sequence[Mapping[str, Array]]) -> Array:
    """All float outputs of all samples, one after the other, computed in float."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = 1
    # Quantise/dequantise pairs stay what they are, float arithmetic; everything else may still be fused.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = [session.run(None, dict(sample)) for sample in samples]
    return np.concatenate([array.ravel() for answer in given for array in answer if array.dtype == np.float32])


def _weights_of(exact: Any, stored: Any) -> dict[str, list[_Weight]]:
    """Quantised constants by node, for nodes that both files have."""
    constants = {tensor.name: tensor for tensor in exact.graph.initializer}
    twins = {node.name: node for node in exact.graph.node if node.name}
    decoded = _dequantised(stored)
    found: dict[str, list[_Weight]] = {}
    for node in stored.graph.node:
        twin = twins.get(node.name)
        for position, name in enumerate(node.input):
            if twin is None or name not in decoded or twin.input[position] not in constants:
                continue
            weight = _Weight(position, numpy_helper.to_array(constants[twin.input[position]]), decoded[name])
            found.setdefault(node.name, []).append(weight)
    return found


def _dequantised(model: Any) -> dict[str, Array]:
    """Real numbers behind each DequantizeLinear of a constant, by its output."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    real: dict[str, Array] = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        raw, scale, *zero = (numpy_helper.to_array(constants[name]) for name in node.input)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if place == axis % raw.ndim else 1 for place in range(raw.ndim)] if scale.size > 1 else []
        offset = zero[0].astype(np.float32).reshape(shape) if zero else np.float32(0)
        real[node.output[0]] = (raw.astype(np.float32) - offset) * scale.reshape(shape)
    return real


def _with_stored(exact: Any, weights: Mapping[str, Sequence[_Weight]], nodes: Iterable[str]) -> Any:
    """The float model with the weights of some nodes as the quantised file has them; biases stay."""
    model, chosen = _copied(exact), set(nodes)
    for node in model.graph.node:
        for weight in weights[node.name] if node.name in chosen else ():
            if weight.exact.ndim > 1:
                _replace(model, node, weight.position, weight.stored)
    return model


def _undone(stored: Any, weights: Mapping[str, Sequence[_Weight]], nodes: Sequence[str]) -> Any:
    """The quantised model with some nodes computed in float: exact weights, inputs from before rounding."""
    model, chosen = _copied(stored), set(nodes)
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.name not in chosen:
            continue
        exact = {weight.position: weight.exact for weight in weights[node.name]}
        for position, name in enumerate(list(node.input)):
            if position in exact:
                _replace(model, node, position, exact[position])
                continue
            decoder = producers.get(name)
            coder = producers.get(decoder.input[0]) if decoder is not None else None
            if coder is not None and coder.op_type == "QuantizeLinear":
                node.input[position] = _unrounded(model, coder)
    return model


def _unrounded(model: Any, coder: Any) -> str:
    """What goes into a QuantizeLinear, clipped to what it can hold: the Relu that this clipping replaced is gone."""
    name = f"{coder.output[0]}_unrounded"
    if any(name in node.output for node in model.graph.node):
        return name
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scale, zero = (numpy_helper.to_array(constants[given]) for given in coder.input[1:3])
    held = np.iinfo(zero.dtype)
    for bound, at in (("low", held.min), ("high", held.max)):
        value = np.asarray((at - int(zero)) * float(scale), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, f"{name}_{bound}"))
    given = [coder.input[0], f"{name}_low", f"{name}_high"]
    model.graph.node.append(onnx.helper.make_node("Clip", given, [name], name=name))
    return name


def _replace(model: Any, node: Any, position: int, values: Array) -> None:
    """Give one input of a node a constant of its own; under a new name, because others may use the old one."""
    name = f"{node.name}_{position}_alone"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name))
    node.input[position] = name


def _copied(model: Any) -> Any:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
