"""Weights that lie beside the model: they must have come along, and may lie nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto

from converters.preflight.findings import Finding


def find_external_data(model: Any, path: Path) -> Iterator[Finding]:
    """Missing, short and misplaced files of weights."""
    folder = path.resolve().parent
    needed: dict[str, int] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not location or not (folder / location).resolve().is_relative_to(folder):
            yield Finding("error", "external_data", f"weight {tensor.name} points outside the model's folder",
                          "save the model again with its weights beside it", (tensor.name,))  # fmt: skip
            continue
        end = _number(entries.get("offset")) + _number(entries.get("length"))
        needed[location] = max(needed.get(location, 0), end)
    for location, size in sorted(needed.items()):
        yield from _file(folder, location, size)


def _file(folder: Path, location: str, size: int) -> Iterator[Finding]:
    file = folder / location
    if not file.is_file():
        yield Finding("error", "external_data", f"the weights file {location} is not beside the model",
                      f"copy {location} into {folder.name}/")  # fmt: skip
    elif file.stat().st_size < size:
        yield Finding("error", "external_data",
                      f"the weights file {location} has {file.stat().st_size} bytes, the model needs {size}",
                      "it is truncated or a Git LFS pointer; copy it again")  # fmt: skip


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
