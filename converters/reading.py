"""Reads a source model, whatever its format; each importer is imported only when its format comes along."""

from __future__ import annotations

from pathlib import Path

from converters.model.fixed_shapes import Shapes, fix_shapes
from converters.model.source import Imported, SourceFacts
from converters.model.tflite_file import IDENTIFIER


def read_source(path: Path, shapes: Shapes | None = None) -> Imported:
    """The model in a file, with nothing changed yet but the sizes that an engineer fixed. Raises: BadModel."""
    if is_tflite(path):
        from converters.importers.tflite import import_tflite

        return import_tflite(path)
    from converters.importers.onnx import describe, import_onnx
    from converters.passes.strip_inputs import strip_initialiser_inputs

    return describe(fix_shapes(strip_initialiser_inputs(import_onnx(path).model), shapes or {}))


def facts_of(path: Path) -> SourceFacts:
    """What a plan must know about a model; a file that cannot be read is left to preflight. Raises: BadModel."""
    return read_source(path).facts if is_tflite(path) else SourceFacts()


def is_tflite(path: Path) -> bool:
    """Whether a file says of itself that it is a TensorFlow Lite file; False when it cannot be read."""
    try:
        with path.open("rb") as source:
            return source.read(8)[4:] == IDENTIFIER
    except OSError:
        return False
