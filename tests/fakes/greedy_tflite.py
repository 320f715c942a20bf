"""TensorFlow Lite files that point at one piece many times over: small on disk, and endless to whoever follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from converters.model.tflite_file import IDENTIFIER


def greedy_tflite(
    *, tensors: int = 1, content: int = 0, operators: int = 1, reads: int = 2, name: int = 1, kind: str = "CONV_2D",
    dtype: str = "FLOAT32",
) -> bytes:  # fmt: skip
    """A file whose parts share whatever can be shared.

    Args:
        tensors: tables of tensors, all alike.
        content: numbers in the one buffer that every tensor names.
        operators: tables of operators, all alike.
        reads: tensors that each of them names, in the one list that they share.
        name: letters of the one name.
        kind: of every operator.
        dtype: of every tensor.
    """
    builder = flatbuffers.Builder(1 << 20)
    data = builder.CreateByteVector(bytes(4 * content)) if content else 0
    buffers = [_buffer(builder, 0), _buffer(builder, data)]
    title = builder.CreateString("n" * name)
    shape = _numbers(builder, [content or 1])
    listed, written = _numbers(builder, [0] * reads), _numbers(builder, [0])
    code = _code(builder, kind)
    tables = [_tensor(builder, title, shape, getattr(schema.TensorType, dtype), 1 if content else 0)] * tensors
    steps = [_operator(builder, listed, written)] * operators
    graph = _graph(builder, tables, steps, written)
    graphs, codes, every = (_tables(builder, offsets) for offsets in ([graph], [code], buffers))
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, every)
    builder.Finish(schema.ModelEnd(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _buffer(builder: Any, data: int) -> int:
    schema.BufferStart(builder)
    if data:
        schema.BufferAddData(builder, data)
    return int(schema.BufferEnd(builder))


def _code(builder: Any, kind: str) -> int:
    number = getattr(schema.BuiltinOperator, kind)
    schema.OperatorCodeStart(builder)
    schema.OperatorCodeAddBuiltinCode(builder, number)
    schema.OperatorCodeAddDeprecatedBuiltinCode(builder, min(number, 127))
    return int(schema.OperatorCodeEnd(builder))


def _tensor(builder: Any, title: int, shape: int, dtype: int, buffer: int) -> int:
    schema.TensorStart(builder)
    schema.TensorAddShape(builder, shape)
    schema.TensorAddType(builder, dtype)
    schema.TensorAddBuffer(builder, buffer)
    schema.TensorAddName(builder, title)
    return int(schema.TensorEnd(builder))


def _operator(builder: Any, listed: int, written: int) -> int:
    schema.OperatorStart(builder)
    schema.OperatorAddOpcodeIndex(builder, 0)
    schema.OperatorAddInputs(builder, listed)
    schema.OperatorAddOutputs(builder, written)
    return int(schema.OperatorEnd(builder))


def _graph(builder: Any, tables: Sequence[int], steps: Sequence[int], ports: int) -> int:
    tensors, operators = _tables(builder, tables), _tables(builder, steps)
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    schema.SubGraphAddInputs(builder, ports)
    schema.SubGraphAddOutputs(builder, ports)
    schema.SubGraphAddOperators(builder, operators)
    return int(schema.SubGraphEnd(builder))


def _numbers(builder: Any, numbers: Sequence[int]) -> int:
    builder.StartVector(4, len(numbers), 4)
    for number in reversed(numbers):
        builder.PrependInt32(number)
    return int(builder.EndVector())


def _tables(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
