"""Reads a .tflite file as data: graphs, tensors, operators, weights; no interpreter is built and nothing is run.

Files are untrusted: every offset in a flatbuffer may point anywhere, so whatever goes wrong is one BadModel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from converters.errors import BadModel

IDENTIFIER: Final = b"TFL3"
"""Bytes 4 to 8 of every TensorFlow Lite file."""

Option = str | int | float | bool | tuple[int | float, ...] | None

_MOST_PARTS: Final = 50_000
"""Tensors, operators and other tables of one file: real models have thousands, and a small file can claim billions."""
_MOST_NUMBERS: Final = 4_000_000
"""Sizes, indices, scales and letters of one file: many parts may point at the same long vector."""
_MOST_PORTS: Final = 1_000_000
"""Inputs and outputs of all operators together."""
_SHOWN: Final = 120
"""Letters of a tensor's name that people are shown: many operators may write a tensor whose name fills the file."""
_MOST_AXES: Final = 16
"""Of one tensor; the kernels of TensorFlow Lite know eight at most."""
_MOST_ELEMENTS: Final = 2**63 - 1
"""Of one tensor: what the format's own libraries can count."""
_EXPORT_AGAIN: Final = "it is truncated or another format; copy or export it again"


@dataclass(frozen=True, slots=True)
class Affine:
    """How integers stand for real numbers: real = scale × (q − zero_point), one pair or one per slice of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int

    @property
    def is_per_channel(self) -> bool:
        """Whether slices have scales of their own."""
        return len(self.scales) > 1


@dataclass(frozen=True, slots=True)
class TfliteTensor:
    """One tensor of a graph."""

    index: int
    name: str
    dtype: str
    """numpy name where numpy has the type, else the schema's in small letters (`int4`, `string`, `resource`)."""
    shape: tuple[int, ...]
    """Sizes as saved; a free axis is saved as 1."""
    free_axes: tuple[int, ...]
    """Axes whose size a caller may choose."""
    affine: Affine | None
    """None: the numbers mean themselves."""
    content: memoryview | None
    """Raw bytes of a constant; None for what is fed or computed."""
    is_variable: bool
    """Whether it keeps its value from call to call."""

    @property
    def short_name(self) -> str:
        """The first of its names: converters join those of everything they fused."""
        return self.name[:_SHOWN].split(";")[0]

    @property
    def is_constant(self) -> bool:
        """Whether its values are in the file."""
        return self.content is not None

    @property
    def size_bytes(self) -> int:
        """Bytes of a constant in the file; 0 for what is fed or computed."""
        return 0 if self.content is None else self.content.nbytes

    def values(self) -> np.ndarray[Any, Any] | None:
        """A constant's values, in its dtype and shape; None when it is no constant or numpy lacks the type."""
        if self.content is None or self.dtype not in _NUMPY:
            return None
        kind = np.dtype(self.dtype)
        if self.content.nbytes != math.prod(self.shape) * kind.itemsize:
            return None
        return np.frombuffer(self.content, kind).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class TfliteOperator:
    """One step of a graph."""

    index: int
    kind: str
    """The schema's name (`CONV_2D`), or a custom operator's own."""
    is_custom: bool
    version: int
    inputs: tuple[int, ...]
    """Tensor indices; −1 for an optional input that is left out."""
    outputs: tuple[int, ...]
    options: Mapping[str, Option]
    """The schema's fields, named as there (`strideW`, `fusedActivationFunction`)."""


@dataclass(frozen=True, slots=True)
class TfliteGraph:
    """One subgraph: number 0 is the model, others are bodies of control flow or further entry points."""

    name: str
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def given(self, operator: TfliteOperator) -> tuple[TfliteTensor | None, ...]:
        """The tensors an operator reads, in order; None where an optional one is left out."""
        return tuple(self.tensors[index] if index >= 0 else None for index in operator.inputs)

    def made(self, operator: TfliteOperator) -> tuple[TfliteTensor, ...]:
        """The tensors an operator writes, in order."""
        return tuple(self.tensors[index] for index in operator.outputs)

    def label(self, operator: TfliteOperator) -> str:
        """A name for people: operators have none, so the tensor that one writes stands for it."""
        made = self.made(operator)
        return f"{operator.kind} {operator.index}" + (f" ({made[0].short_name})" if made else "")


@dataclass(frozen=True, slots=True)
class TfliteSignature:
    """A named way to call a graph: names of inputs and outputs, with tensor indices."""

    key: str
    graph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TfliteFile:
    """Everything a .tflite file says about itself."""

    version: int
    description: str
    graphs: tuple[TfliteGraph, ...]
    signatures: tuple[TfliteSignature, ...]
    metadata: Mapping[str, memoryview]
    """Content by name, for example `TFLITE_METADATA`."""

    @property
    def main(self) -> TfliteGraph:
        """The graph that a caller runs."""
        return self.graphs[0]


def read_tflite(path: Path) -> TfliteFile:
    """Read a model file. Raises: BadModel when it cannot be read or is not a whole TensorFlow Lite file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadModel(f"read {path.name}", error.strerror or str(error), "check the path") from error
    return parse_tflite(content, path.name)


def parse_tflite(content: bytes, name: str) -> TfliteFile:
    """Read a model from memory.

    Args:
        content: the whole file.
        name: what errors call it.

    Raises:
        BadModel: not a whole TensorFlow Lite file, or the schema of the format is not installed.
    """
    schema = _schema()
    if content[4:8] != IDENTIFIER:
        raise BadModel(f"read {name}", "it is not a TensorFlow Lite file", "name a .tflite file")
    try:
        return _Reader(schema, content).read()
    except BadModel:
        raise
    except Exception as error:  # a wrong offset ends in whatever class the bytes there happen to provoke
        greedy = f": {error}" if isinstance(error, _Greedy) else ""
        because = f"it is not a whole TensorFlow Lite file ({len(content)} bytes){greedy}"
        raise BadModel(f"read {name}", because, _EXPORT_AGAIN, code="truncated") from error


class _Greedy(ValueError):
    """A small file that would cost whoever reads it more than any real one does."""


def _schema() -> Any:
    """The generated schema: it needs flatbuffers and numpy and loads no engine."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        because, remedy = "ai-edge-litert is not installed", "pip install 'edgefleet[litert]'"
        raise BadModel("read TensorFlow Lite files", because, remedy) from error
    return schema_py_generated


class _Reader:
    """One file being read: what has been promised so far must fit into it."""

    def __init__(self, schema: Any, content: bytes) -> None:
        self._schema = schema
        self._content = content
        self._view = memoryview(content)
        self._model = schema.Model.GetRootAs(content, 0)
        self._parts = self._numbers = self._ports = self._weights = 0
        self._places: dict[tuple[int, int], memoryview] = {}
        self._kinds = _names_of(schema.BuiltinOperator)
        self._types = _names_of(schema.TensorType)

    def read(self) -> TfliteFile:
        model = self._model
        buffers = self._each(model.BuffersLength(), model.Buffers)
        codes = [self._code(code) for code in self._each(model.OperatorCodesLength(), model.OperatorCodes)]
        contents = [self._content_of(buffer) for buffer in buffers]
        graphs = tuple(
            self._graph(graph, contents, codes) for graph in self._each(model.SubgraphsLength(), model.Subgraphs)
        )
        if not graphs or not graphs[0].operators:
            raise ValueError("no graph")
        signatures = self._each(model.SignatureDefsLength(), model.SignatureDefs)
        metadata = {
            self._text(entry.Name()): contents[entry.Buffer()] or memoryview(b"")
            for entry in self._each(model.MetadataLength(), model.Metadata)
        }
        return TfliteFile(
            version=model.Version(),
            description=self._text(model.Description()),
            graphs=graphs,
            signatures=tuple(self._signature(one, graphs) for one in signatures),
            metadata=MappingProxyType(metadata),
        )

    def _each(self, count: int, item: Callable[[int], Any]) -> list[Any]:
        """The tables of a vector; one that claims more than any file has is refused before the first is read."""
        self._parts += count
        if self._parts > _MOST_PARTS:
            raise _Greedy(f"it claims more than {_MOST_PARTS} parts")
        return [item(number) for number in range(count)]

    def _measured(self, vector: Any) -> Any:
        """A vector of numbers or letters, once it is counted; an absent one is the number 0 in the generated code."""
        self._numbers += len(vector) if isinstance(vector, np.ndarray | bytes | list) else 0
        if self._numbers > _MOST_NUMBERS:
            raise _Greedy(f"it claims more than {_MOST_NUMBERS} numbers and letters beside its weights")
        return vector

    def _text(self, raw: bytes | None) -> str:
        return self._measured(raw).decode("utf-8", errors="replace") if raw else ""

    def _whole(self, vector: Any) -> tuple[int, ...]:
        return tuple(self._measured(vector).tolist()) if isinstance(vector, np.ndarray) else ()

    def _indices(self, vector: Any, count: int, *, lowest: int) -> tuple[int, ...]:
        found = self._whole(vector)
        self._ports += len(found)
        if self._ports > _MOST_PORTS:
            raise _Greedy(f"its operators read more than {_MOST_PORTS} tensors")
        if found and not lowest <= min(found) <= max(found) < count:
            raise ValueError("tensor index out of range")
        return found

    def _code(self, code: Any) -> tuple[str, bool, int]:
        # Codes above 127 stand in the newer field, others in the older one.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        is_custom = number == self._schema.BuiltinOperator.CUSTOM
        kind = self._text(code.CustomCode()) if is_custom else self._kinds.get(number, f"BUILTIN_{number}")
        return kind, is_custom, code.Version()

    def _content_of(self, buffer: Any) -> memoryview | None:
        """The bytes of a buffer: one object for all buffers at one place, and places never overlap."""
        if (found := self._bytes_of(buffer)) is None:
            return None
        place = np.frombuffer(found, np.uint8).ctypes.data, found.nbytes
        if place not in self._places:
            self._weights += found.nbytes
            if self._weights > len(self._content):
                raise _Greedy("its weights overlap")
        return self._places.setdefault(place, found)

    def _bytes_of(self, buffer: Any) -> memoryview | None:
        if buffer.Offset() > 1:
            # Files over 2 GB keep their weights behind the flatbuffer.
            return _inside(self._view, buffer.Offset(), buffer.Size())
        data = buffer.DataAsNumpy() if buffer.DataLength() else None
        return None if data is None else memoryview(data)

    def _graph(self, graph: Any, contents: Sequence[memoryview | None], codes: Sequence[Any]) -> TfliteGraph:
        tensors = tuple(
            self._tensor(number, tensor, contents)
            for number, tensor in enumerate(self._each(graph.TensorsLength(), graph.Tensors))
        )
        operators = tuple(
            self._operator(number, operator, codes, len(tensors))
            for number, operator in enumerate(self._each(graph.OperatorsLength(), graph.Operators))
        )
        return TfliteGraph(
            name=self._text(graph.Name()),
            tensors=tensors,
            operators=operators,
            inputs=self._indices(graph.InputsAsNumpy(), len(tensors), lowest=0),
            outputs=self._indices(graph.OutputsAsNumpy(), len(tensors), lowest=0),
        )

    def _tensor(self, index: int, tensor: Any, contents: Sequence[memoryview | None]) -> TfliteTensor:
        shape = self._whole(tensor.ShapeAsNumpy())
        signature = self._whole(tensor.ShapeSignatureAsNumpy())
        if len(shape) > _MOST_AXES or any(size < 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
            raise ValueError("impossible shape")
        kind = self._types.get(tensor.Type(), f"type_{tensor.Type()}").lower()
        return TfliteTensor(
            index=index,
            name=self._text(tensor.Name()),
            dtype=kind,
            shape=shape,
            free_axes=tuple(axis for axis, size in enumerate(signature) if size < 0),
            affine=self._affine(tensor.Quantization()),
            # Buffer 0 is empty by the schema's own rule: it stands for "no content".
            content=contents[tensor.Buffer()] if tensor.Buffer() else None,
            is_variable=bool(tensor.IsVariable()),
        )

    def _affine(self, parameters: Any) -> Affine | None:
        if parameters is None or not parameters.ScaleLength():
            return None
        scales = tuple(self._measured(parameters.ScaleAsNumpy()).tolist())
        # The schema lets writers leave zero points out when all are 0.
        zeros = self._whole(parameters.ZeroPointAsNumpy()) or (0,)
        zeros *= len(scales) if len(zeros) == 1 else 1
        if len(zeros) != len(scales):
            raise ValueError("scales and zero points do not pair")
        return Affine(scales, zeros, parameters.QuantizedDimension())

    def _operator(self, index: int, operator: Any, codes: Sequence[Any], tensors: int) -> TfliteOperator:
        kind, is_custom, version = codes[operator.OpcodeIndex()]
        return TfliteOperator(
            index=index,
            kind=kind,
            is_custom=is_custom,
            version=version,
            inputs=self._indices(operator.InputsAsNumpy(), tensors, lowest=-1),
            outputs=self._indices(operator.OutputsAsNumpy(), tensors, lowest=0),
            options=self._options(operator),
        )

    def _options(self, operator: Any) -> Mapping[str, Option]:
        create = self._schema.BuiltinOptionsCreator
        found = create(operator.BuiltinOptionsType(), operator.BuiltinOptions())
        if found is None:
            return MappingProxyType({})
        return MappingProxyType({name: self._option(value) for name, value in vars(found).items()})

    def _option(self, value: Any) -> Option:
        if isinstance(value, np.ndarray | list):
            return tuple(item.item() if isinstance(item, np.generic) else item for item in self._measured(value))
        if isinstance(value, bytes):
            return self._text(value)
        return value if isinstance(value, str | int | float | bool) else None

    def _signature(self, signature: Any, graphs: Sequence[TfliteGraph]) -> TfliteSignature:
        graph = graphs[signature.SubgraphIndex()]
        return TfliteSignature(
            key=self._text(signature.SignatureKey()),
            graph=signature.SubgraphIndex(),
            inputs=self._named(signature.InputsLength(), signature.Inputs, graph),
            outputs=self._named(signature.OutputsLength(), signature.Outputs, graph),
        )

    def _named(self, count: int, item: Callable[[int], Any], graph: TfliteGraph) -> Mapping[str, int]:
        found = {self._text(one.Name()): graph.tensors[one.TensorIndex()].index for one in self._each(count, item)}
        return MappingProxyType(found)


def _inside(view: memoryview, offset: int, size: int) -> memoryview:
    if offset + size > view.nbytes:
        raise ValueError("weights lie behind the end of the file")
    return view[offset : offset + size]


def _names_of(enumeration: Any) -> Mapping[int, str]:
    return {number: name for name, number in vars(enumeration).items() if not name.startswith("_")}


_NUMPY: Final = frozenset(
    {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"}
)
