"""What goes in and comes out: free sizes, numbers that must stay whole, memory from call to call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from onnx import TensorProto, helper

from converters.preflight.findings import Finding
from converters.preflight.onnx_graph import fed_inputs

_WHOLE: Final = frozenset(
    {TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64, TensorProto.BOOL}
)
_STATE_WORDS: Final = frozenset({"state", "states", "hidden", "cell", "cache", "past", "memory", "h", "h0", "c", "c0"})

_CARRY: Final = "edge-convert recipe writes it under [states]: sessions then carry it from call to call"


def find_ports(model: Any) -> Iterator[Finding]:
    """Inputs and outputs worth a word."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    if listed := [entry.name for entry in graph.input if entry.name in weights]:
        yield Finding("note", "initialiser_inputs", f"{len(listed)} weights are listed as inputs and will be taken off",
                      nodes=tuple(listed))  # fmt: skip
    for entry in fed_inputs(graph):
        yield from _sizes(entry)
        yield from _type(entry)
    yield from _states(graph)


def _sizes(entry: Any) -> Iterator[Finding]:
    free = [axis for axis, size in enumerate(entry.type.tensor_type.shape.dim) if size.dim_value <= 0]
    if inner := [axis for axis in free if axis > 0]:
        shape = ",".join(_wanted_size(entry, axis) for axis in range(len(entry.type.tensor_type.shape.dim)))
        message = f"axes {inner} of input {entry.name} have no fixed size"
        fix = f"fix them: --shape {entry.name}={shape}"
        yield Finding("warning", "dynamic_axes", message, fix,
                      (entry.name,))  # fmt: skip
        yield Finding("error", "dynamic_axes", f"{message}, and an Edge TPU needs every size", fix, (entry.name,),
                      families=("coral",))  # fmt: skip
    if 0 in free:
        yield Finding("note", "dynamic_batch", f"the batch axis of input {entry.name} is free", nodes=(entry.name,))


def _wanted_size(entry: Any, axis: int) -> str:
    """What to write for an axis: its own size, 1 for the batch, else a word for the engineer to replace."""
    sizes = entry.type.tensor_type.shape.dim
    if sizes[axis].dim_value > 0:
        return str(sizes[axis].dim_value)
    # Recurrent states are [layers, batch, numbers].
    batch = 1 if _is_state(entry) and sizes[0].dim_value > 0 else 0
    return "1" if axis == batch else "SIZE"


def _is_state(entry: Any) -> bool:
    return bool(_STATE_WORDS & set(re.split(r"[^a-z0-9]+", entry.name.lower())))


def _type(entry: Any) -> Iterator[Finding]:
    kind = entry.type.tensor_type.elem_type
    if kind == TensorProto.STRING:
        yield Finding("error", "string_input", f"input {entry.name} takes text, which no target's engine is fed",
                      "turn text into numbers before the model", (entry.name,))  # fmt: skip
    elif kind in _WHOLE:
        dtype = helper.tensor_dtype_to_np_dtype(kind).name
        yield Finding("note", "integer_input", f"input {entry.name} is {dtype} and stays so: it is not quantised",
                      nodes=(entry.name,))  # fmt: skip


def state_pairs(graph: Any) -> Iterator[tuple[str, str]]:
    """Pairs of input and output that look like memory: same type, same rank, and a name that says so."""
    taken: set[str] = set()
    for entry in fed_inputs(graph):
        for answer in graph.output if _is_state(entry) else ():
            if answer.name not in taken and _fits(entry, answer) and _stem(entry.name) in _stem(answer.name):
                taken.add(answer.name)
                yield entry.name, answer.name
                break


def _states(graph: Any) -> Iterator[Finding]:
    for pair in state_pairs(graph):
        yield Finding("note", "state", f"input {pair[0]} and output {pair[1]} carry a state", _CARRY, pair)


def _fits(entry: Any, answer: Any) -> bool:
    before, after = entry.type.tensor_type, answer.type.tensor_type
    sizes = (len(before.shape.dim), len(after.shape.dim))
    return bool(before.elem_type == after.elem_type) and (sizes[0] == sizes[1] or 0 in sizes)


def _stem(name: str) -> str:
    lowered = name.lower()
    for affix in ("_in", "_out", "present", "past", ".input", ".output"):
        lowered = lowered.replace(affix, "")
    return lowered.strip("._0n") or lowered
