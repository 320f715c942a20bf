"""How much of a TensorFlow Lite model an Edge TPU would compute, and why not more.

The compiler cuts the graph at the first operator it cannot map; whatever depends on that one stays on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from converters.model.tflite_file import TfliteFile, TfliteGraph, TfliteOperator
from converters.preflight.edgetpu_rules import REWRITES, SRAM_BYTES, Refusal, step_of, why_not_mapped
from converters.preflight.findings import Finding, Severity, named
from converters.preflight.tflite_graph import EDGE_TPU_OPERATOR, WEIGHTED, is_quantised

_CORAL: Final = ("coral",)
_MIB: Final = 1024**2


_SEVERITY: Final[dict[str, Severity]] = {"version": "error", "per_channel": "error"}
"""These end the compiler; every other refusal only leaves work to the CPU."""

_ADVICE: Final = {
    "version": "convert with an older converter, or start from the float model",
    "per_channel": "quantise again from the float model: fully-connected layers are then scaled per tensor",
    "float": "quantise every operator, inputs and outputs too; start from the float model",
    "type": "quantise to 8 bits; start from the float model",
    "rank": "keep the batch at 1 and at most three dimensions above 1",
    "limit": "see Coral, supported operations",
}
_MAY_STAY: Final = frozenset({"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"})


@dataclass(frozen=True, slots=True)
class Mapping:
    """Who would compute which operator."""

    mapped: tuple[TfliteOperator, ...]
    refused: tuple[tuple[TfliteOperator, Refusal], ...]
    """Operators the Edge TPU cannot compute, with the reason."""
    behind: tuple[TfliteOperator, ...]
    """Operators it could compute, were they not behind one of those."""


def map_to_edgetpu(graph: TfliteGraph) -> Mapping:
    """Decide each operator as the compiler does by default: one part, from the input to the first refusal."""
    will_be_quantised = not is_quantised(graph)
    on_cpu: set[int] = set()
    mapped: list[TfliteOperator] = []
    refused: list[tuple[TfliteOperator, Refusal]] = []
    behind: list[TfliteOperator] = []
    for operator in graph.operators:
        refusal = why_not_mapped(step_of(graph, operator), will_be_quantised=will_be_quantised)
        if refusal is None and on_cpu.isdisjoint(operator.inputs):
            mapped.append(operator)
            continue
        # A conversion of the input is done before the compiled part begins; it cuts nothing off.
        if operator.kind != "QUANTIZE" or not set(operator.inputs) <= set(graph.inputs):
            on_cpu.update(operator.outputs)
        if refusal is None:
            behind.append(operator)
        else:
            refused.append((operator, refusal))
    return Mapping(tuple(mapped), tuple(refused), tuple(behind))


def find_edgetpu(model: TfliteFile) -> Iterator[Finding]:
    """Findings about an Edge TPU; none when the file is compiled already."""
    graph = model.main
    if any(operator.kind == EDGE_TPU_OPERATOR for operator in graph.operators):
        return
    if len(model.graphs) > 1:
        yield Finding("error", "edgetpu_subgraphs", f"the compiler takes one graph, this file has {len(model.graphs)}",
                      "convert again without control flow", families=_CORAL)  # fmt: skip
        return
    if not is_quantised(graph):
        yield Finding("note", "edgetpu_route", "the model is float: for an Edge TPU it is quantised to int8 first",
                      "the file that comes out is looked at again", families=_CORAL)  # fmt: skip
    yield from _sizes(graph)
    mapping = map_to_edgetpu(graph)
    yield from _refusals(graph, mapping)
    yield from _share(graph, mapping)
    yield parameters_fit(_parameter_bytes(graph, mapping))


def parameters_fit(size_bytes: int) -> Finding:
    """Whether weights stay on the chip or are sent to it at every call."""
    size, room = size_bytes / _MIB, SRAM_BYTES / _MIB
    if size_bytes <= SRAM_BYTES:
        return Finding("note", "edgetpu_parameters", f"{size:.2f} MiB of parameters fit on the chip ({room:.1f} MiB)",
                       families=_CORAL)  # fmt: skip
    return Finding(
        "warning",
        "edgetpu_parameters",
        f"{size:.2f} MiB of parameters do not fit on the chip ({room:.1f} MiB): the rest is sent at every call",
        "use a smaller model, or spread it over several Edge TPUs (edgetpu_compiler --num_segments)",
        families=_CORAL,
    )


def _sizes(graph: TfliteGraph) -> Iterator[Finding]:
    inner = tuple(
        tensor.short_name
        for tensor in graph.tensors
        if any(axis > 0 for axis in tensor.free_axes) and tensor.index not in graph.inputs
    )
    if inner:
        yield Finding("error", "edgetpu_dynamic", f"an Edge TPU needs every size, these are free: {named(inner)}",
                      "convert again with every input size fixed, so that shapes become constants", inner,
                      _CORAL)  # fmt: skip


def _refusals(graph: TfliteGraph, mapping: Mapping) -> Iterator[Finding]:
    """One finding for each kind and reason, with all the operators it holds for."""
    grouped: dict[tuple[str, Refusal], list[str]] = {}
    for operator, refusal in mapping.refused:
        grouped.setdefault((operator.kind, refusal), []).append(graph.label(operator))
    for (kind, refusal), nodes in grouped.items():
        severity = _SEVERITY.get(refusal.code, "warning")
        what = "stops the compiler" if severity == "error" else "is left to the CPU"
        advice = REWRITES.get(kind) if refusal.code == "operator" else _ADVICE[refusal.code]
        yield Finding(severity, f"edgetpu_{refusal.code}", f"{kind} {what}: {refusal.because}; {named(nodes)}",
                      advice or "replace it by supported operators", tuple(nodes), _CORAL)  # fmt: skip
    doubtful = tuple(graph.label(operator) for operator in mapping.mapped if operator.kind in _MAY_STAY)
    if doubtful:
        yield Finding("note", "edgetpu_resize", f"a resize may stay on the CPU because of its size: {named(doubtful)}",
                      nodes=doubtful, families=_CORAL)  # fmt: skip


def _share(graph: TfliteGraph, mapping: Mapping) -> Iterator[Finding]:
    total = len(graph.operators)
    if not any(operator.kind in WEIGHTED for operator in mapping.mapped):
        yield Finding("error", "edgetpu_nothing", "nothing with weights would run on the Edge TPU",
                      "correct what the other findings name", families=_CORAL)  # fmt: skip
    elif len(mapping.mapped) < total:
        behind = f", {len(mapping.behind)} of them only because they come after such a one" if mapping.behind else ""
        yield Finding("warning", "edgetpu_share",
                      f"{len(mapping.mapped)} of {total} operators run on the Edge TPU, {total - len(mapping.mapped)} "
                      f"on the CPU{behind}", "every change between them costs a transfer",
                      tuple(graph.label(operator) for operator in mapping.behind), _CORAL)  # fmt: skip


def _parameter_bytes(graph: TfliteGraph, mapping: Mapping) -> int:
    """Bytes of the mapped operators' constants once they are int8; each tensor once, however many read it."""
    sizes: dict[int, int] = {}
    for operator in mapping.mapped:
        for position, tensor in enumerate(graph.given(operator)):
            if tensor is not None and tensor.is_constant:
                is_weight = operator.kind in WEIGHTED and position == 1
                sizes[tensor.index] = math.prod(tensor.shape) if is_weight else tensor.size_bytes
    return sum(sizes.values())
