"""A trained model as a build sees it, whatever its format: its ports, and how the file itself stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from converters.errors import BadModel

SourceFormat = Literal["onnx", "tflite"]
"""Formats a build works on; importers turn every other one into ONNX."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a plan must know about a model before it is read."""

    format: SourceFormat = "onnx"
    is_quantised: bool = False
    """Its inputs or outputs are integers that stand for real numbers."""


FLOAT_ONNX: Final = SourceFacts()


@dataclass(frozen=True, slots=True)
class Stored:
    """How a file stores a port whose numbers it quantises: real = (stored − zero_point) × scale."""

    dtype: str
    """numpy name."""
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a model."""

    name: str
    dtype: str
    """numpy name of the real numbers: `float32` for a quantised port."""
    shape: tuple[int | None, ...]
    """None for a free axis."""
    stored: Stored | None = None
    """None: the file stores the numbers as they are."""

    @property
    def is_vector(self) -> bool:
        """Whether a sample's numbers may lie along one axis: [N, C], [N, C, 1, 1]; not [N, A, C]."""
        return len([size for size in self.shape[1:] if size not in {None, 1}]) <= 1

    @property
    def width(self) -> int | None:
        """How many numbers a sample has where they lie along one axis; None where that is not known."""
        sizes = [size for size in self.shape[1:] if size != 1]
        if len(self.shape) < 2 or len(sizes) > 1:
            return None
        return sizes[0] if sizes else 1


@dataclass(frozen=True, slots=True)
class Imported:
    """A model in memory, with its public ports."""

    model: Any
    """ONNX model, or the bytes of a TFLite file."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int | None
    """None where the format has none."""
    ir: int | None
    format: SourceFormat = "onnx"

    @property
    def facts(self) -> SourceFacts:
        """What a plan must know about it."""
        return SourceFacts(self.format, any(port.stored for port in (*self.inputs, *self.outputs)))

    def input(self, name: str) -> Port:
        """The input of that name. Raises: BadModel."""
        return _port(self.inputs, name, "input")

    def output(self, name: str) -> Port:
        """The output of that name. Raises: BadModel."""
        return _port(self.outputs, name, "output")


def _port(ports: tuple[Port, ...], name: str, what: str) -> Port:
    for port in ports:
        if port.name == name:
            return port
    known = ", ".join(port.name for port in ports)
    raise BadModel(f"use {what} {name!r}", f"the model has {known}", f"write one of these as the {what}'s tensor")
