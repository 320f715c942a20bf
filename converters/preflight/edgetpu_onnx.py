"""What an ONNX model's operators become on the way to an Edge TPU, before anything is converted.

A forecast: the converter fuses and rewrites, so the int8 file itself is looked at again once it exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import onnx

from converters.preflight.edgetpu import parameters_fit
from converters.preflight.edgetpu_rules import REWRITES
from converters.preflight.findings import Finding, named
from converters.preflight.onnx_graph import constants_of, label_of

_CORAL: Final = ("coral",)

_CHAIN: Final = "a chain of float operators"
_BECOMES: Final[Mapping[str, str]] = {
    "HardSwish": "HARD_SWISH", "LeakyRelu": "LEAKY_RELU", "Gelu": "GELU", "Erf": "GELU", "Elu": "ELU", "Div": "DIV",
    "ArgMax": "ARG_MAX", "ArgMin": "ARG_MIN", "HardSigmoid": "HARD_SIGMOID", "Mish": "MISH", "Selu": "SELU",
    "Softplus": "SOFTPLUS", "Exp": "EXP", "Log": "LOG", "Sqrt": "SQRT", "Pow": "POW", "Sin": "SIN", "Cos": "COS",
    "Gather": "GATHER", "GatherND": "GATHER_ND", "GatherElements": "GATHER", "ScatterND": "SCATTER_ND",
    "TopK": "TOPK_V2", "NonMaxSuppression": "NON_MAX_SUPPRESSION", "NonZero": "WHERE", "Where": "SELECT_V2",
    "CumSum": "CUMSUM", "Tile": "TILE", "Expand": "BROADCAST_TO", "OneHot": "ONE_HOT", "LSTM": "LSTM", "GRU": "GRU",
    "RNN": "RNN", "LayerNormalization": _CHAIN, "InstanceNormalization": _CHAIN, "GroupNormalization": _CHAIN,
    "DepthToSpace": "DEPTH_TO_SPACE", "Einsum": "BATCH_MATMUL",
    "Abs": "ABS", "Neg": "NEG", "Floor": "FLOOR", "Ceil": "CEIL", "Round": "ROUND", "Equal": "EQUAL", "Less": "LESS",
    "Greater": "GREATER", "Not": "LOGICAL_NOT", "And": "LOGICAL_AND", "Or": "LOGICAL_OR", "RoiAlign": "nothing",
    "GridSample": "nothing", "Mod": "FLOOR_MOD", "LogSoftmax": "LOG_SOFTMAX", "ReduceProd": "REDUCE_PROD",
}  # fmt: skip
"""Operators whose TensorFlow Lite counterpart an Edge TPU lacks; those not named here have one that it knows."""

_SHAPE_WORK: Final = frozenset({"Shape", "Size", "Constant"})
_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def find_edgetpu_in_onnx(model: Any) -> Iterator[Finding]:
    """Findings about an Edge TPU for a model that would be converted to TensorFlow Lite first."""
    graph = model.graph
    constants = constants_of(graph)
    known = set(constants)
    computed = list(_computed(graph, known))
    yield Finding("note", "edgetpu_route", "for an Edge TPU the model is converted to TensorFlow Lite, then to int8",
                  "the file that comes out is looked at again", families=_CORAL)  # fmt: skip
    yield from _unsupported(computed, known)
    yield from _ranks(model, computed)
    yield from _worth(computed, constants)


def _computed(graph: Any, known: set[str]) -> Iterator[Any]:
    """Nodes that remain when sizes are fixed: what depends on shapes and constants only is folded, and then `known`."""
    for node in graph.node:
        if node.op_type in _SHAPE_WORK or all(name in known for name in node.input if name):
            known.update(node.output)
        else:
            yield node


def _unsupported(computed: list[Any], known: set[str]) -> Iterator[Finding]:
    grouped: dict[str, list[str]] = {}
    for node in computed:
        if kind := _missing_kind(node, known):
            grouped.setdefault(f"{node.op_type}|{kind}", []).append(label_of(node))
    for key, nodes in grouped.items():
        operator, kind = key.split("|")
        yield Finding("warning", "edgetpu_operator",
                      f"{operator} becomes {kind}, which the Edge TPU lacks: it and what follows is left to the CPU; "
                      f"{named(nodes)}", REWRITES.get(kind, "replace it by supported operators"),
                      tuple(nodes), _CORAL)  # fmt: skip


def _missing_kind(node: Any, known: set[str]) -> str | None:
    if node.op_type in {"MatMul", "Gemm"}:
        return None if known & set(node.input[:2]) else "BATCH_MATMUL"
    if node.op_type == "LSTM":
        directions = [attribute.s for attribute in node.attribute if attribute.name == "direction"]
        return "a bidirectional LSTM" if directions and directions[0] == b"bidirectional" else None
    return _BECOMES.get(node.op_type)


def _ranks(model: Any, computed: list[Any]) -> Iterator[Finding]:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001 (a forecast only; inference fails on some exporters' graphs)
        return
    sizes = {
        entry.name: [max(size.dim_value, 1) for size in entry.type.tensor_type.shape.dim]
        for entry in (*inferred.graph.value_info, *inferred.graph.output)
    }
    wide = tuple(label_of(node) for node in computed if math.prod(sizes.get(node.output[0], [])[:-3]) > 1)
    if wide:
        yield Finding("warning", "edgetpu_rank",
                      f"more than three dimensions above 1, which an Edge TPU leaves to the CPU: {named(wide)}",
                      "keep the batch at 1; write channel shuffles without a fifth axis", wide, _CORAL)  # fmt: skip


def _worth(computed: list[Any], constants: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether anything with weights is there, and whether the weights fit."""
    sizes: dict[str, int] = {}
    for node in computed:
        if node.op_type in _WEIGHTED:
            for position, name in enumerate(node.input):
                if name in constants:
                    # Weights become int8, biases int32.
                    sizes[name] = math.prod(constants[name].dims) * (4 if position == 2 else 1)
    if sizes:
        yield parameters_fit(sum(sizes.values()))
    else:
        yield Finding("error", "edgetpu_nothing", "nothing with weights would run on the Edge TPU",
                      "the model has no convolution and no fully-connected layer in its main graph",
                      families=_CORAL)  # fmt: skip
