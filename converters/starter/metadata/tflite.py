"""TensorFlow Lite metadata: normalisation, colour, sample rate, boxes, score threshold and label files of a .tflite.

Field numbers are those of tensorflow/tflite-support, metadata_schema.fbs (identifier M001).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from converters.errors import BadModel
from converters.model.source import Imported, Port
from converters.model.tflite_file import parse_tflite
from converters.starter.metadata.facts import AnswerFacts, Facts, PictureFacts, SoundFacts
from converters.starter.metadata.flatbuffer import Table
from edge_runtime.contract.steps import Color, RawStep

SOURCE: Final = "TFLite metadata"
ENTRY: Final = "TFLITE_METADATA"

_IMAGE, _BOXES, _AUDIO = 2, 3, 4
"""Content of a tensor."""
_NORMALISE, _THRESHOLD = 1, 3
"""Process units."""
_LABELS: Final = frozenset({2, 3})
"""Associated files that label an axis or a value."""
_COLORS: Final[dict[int, Color]] = {1: "rgb", 2: "gray"}
_BOUNDARIES, _CENTRE = 1, 3
_LABELS_MAX_BYTES: Final = 4 * 1024 * 1024
_BOUNDED: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Compressions whose unpacking can be stopped; the others hand out everything at once."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What the metadata says about one tensor."""

    content_kind: int
    content: Table | None
    units: tuple[tuple[int, Table | None], ...]
    labels: tuple[str, ...]
    """Names of its label files."""

    @classmethod
    def read(cls, table: Table) -> _Tensor:
        content = table.table(3)
        units = tuple((unit.number(0, "B"), unit.table(1)) for unit in table.tables(4))
        files = tuple(file.text(0) for file in table.tables(6) if file.number(2, "b") in _LABELS)
        return cls(content.number(0, "B") if content else 0, content.table(1) if content else None, units, files)

    def unit(self, kind: int) -> Table | None:
        """The process unit of that kind."""
        return next((options for own, options in self.units if own == kind), None)


def facts_of_tflite(imported: Imported) -> Facts | None:
    """What a TFLite file says about itself; None when it carries no metadata. Raises: BadModel."""
    if not isinstance(imported.model, bytes):
        return None
    entry = parse_tflite(imported.model, "the model").metadata.get(ENTRY)
    if entry is None:
        return None
    try:
        root = Table.root(bytes(entry))
        graph = next(iter(root.tables(3)), None)
        if graph is None:
            return None
        inputs, outputs = ([_Tensor.read(one) for one in graph.tables(field)] for field in (2, 3))
        licence = root.text(5).strip()
        answer = _answer(outputs, imported.outputs)
        picture = _picture(inputs[0]) if inputs else None
        sound = _sound(inputs[0]) if inputs else None
    except ValueError as error:
        because = f"its metadata is damaged ({error})"
        raise BadModel("read the TFLite metadata", because, "remove it, or write it again") from error
    names = [name for one in outputs for name in one.labels]
    return Facts(
        source=SOURCE,
        picture=picture,
        sound=sound,
        answer=answer,
        labels=_labels(imported.model, names),
        task="object_detection" if answer is not None and answer.kind == "detections" else None,
        licence=licence or None,
    )


def _picture(tensor: _Tensor) -> PictureFacts | None:
    if tensor.content_kind != _IMAGE or tensor.content is None:
        return None
    size, scaling = tensor.content.table(1), tensor.unit(_NORMALISE)
    return PictureFacts(
        color=_COLORS.get(tensor.content.number(0, "b")),
        size=(size.number(1, "I"), size.number(0, "I")) if size else None,
        scale=1.0 if scaling else None,
        mean=scaling.numbers(0, "f") if scaling else None,
        std=scaling.numbers(1, "f") if scaling else None,
    )


def _sound(tensor: _Tensor) -> SoundFacts | None:
    if tensor.content_kind != _AUDIO or tensor.content is None:
        return None
    return SoundFacts(tensor.content.number(0, "I"), tensor.content.number(1, "I") or None)


def _answer(outputs: Sequence[_Tensor], ports: Sequence[Port]) -> AnswerFacts | None:
    threshold = next((unit.number(0, "f") for one in outputs if (unit := one.unit(_THRESHOLD))), None)
    boxes = next((one for one in outputs if one.content_kind == _BOXES), None)
    if boxes is None or len(ports) != len(outputs):
        return AnswerFacts("classes", min_score=threshold) if any(one.labels for one in outputs) else None
    step = _detect(boxes, [port.name for port in ports], threshold)
    return AnswerFacts("detections", min_score=threshold, steps=(step,)) if step else None


def _detect(boxes: _Tensor, names: list[str], threshold: float | None) -> RawStep | None:
    """The four outputs of the postprocessing operator: boxes, classes, scores, how many."""
    assert boxes.content is not None
    order, kind = boxes.content.numbers(0, "I"), boxes.content.number(1, "b")
    forms = {(_BOUNDARIES, (1, 0, 3, 2)): "yxyx", (_BOUNDARIES, (0, 1, 2, 3)): "xyxy", (_BOUNDARIES, ()): "xyxy",
             (_CENTRE, (0, 1, 2, 3)): "cxcywh", (_CENTRE, ()): "cxcywh"}  # fmt: skip
    form = forms.get((kind, order))
    if form is None or len(names) != 4:
        return None
    return {
        "op": "detect", "family": "tflite_postprocess", "classes": names[1], "scores": names[2], "count": names[3],
        "score": "cls", "activation": "none", "box_format": form,
        "box_units": "input_px" if boxes.content.number(2, "b") else "normalized", "max": 100,
        **({"min_score": threshold} if threshold is not None else {}),
    }  # fmt: skip


def _labels(content: bytes, names: Sequence[str]) -> tuple[str, ...]:
    """The first label file of those names in the zip archive behind the model."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in names:
                if name not in archive.namelist() or archive.getinfo(name).compress_type not in _BOUNDED:
                    continue
                with archive.open(name) as member:
                    # Never the whole member at once: what its header says of its size may be a lie.
                    text = member.read(_LABELS_MAX_BYTES + 1)
                if len(text) <= _LABELS_MAX_BYTES:
                    return tuple(text.decode("utf-8").rstrip("\r\n").splitlines())
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OSError, RuntimeError):
        return ()
    return ()
