"""What flows through a pipeline: frames in, records out, and a record as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.inference.postprocessing.rendering import Json, as_json
from edge_runtime.inference.postprocessing.results import Answer, Classes


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of one source."""

    source: str
    number: int
    """From 0; of a live source it counts the frames that were dropped as well."""
    picture: Array
    """uint8 [H, W, 3], RGB, upright."""
    at: float
    """When it was read, in seconds of Unix time."""
    file: str | None = None
    """Where it comes from, for sources of files."""
    position_s: float | None = None
    """Where in the video it stands."""

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.picture.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.picture.shape[0])


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that could not be had; the ones after it can."""

    source: str
    number: int
    because: str


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a frame that a model was asked about."""

    crops: str
    index: int
    """Place among the frame's crops of that name, from 0."""
    box: tuple[int, int, int, int]
    """x1, y1, x2, y2 in pixels of the frame; never empty."""
    label: str | None = None
    """What the detector called it."""
    score: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One answer of one model."""

    model: str
    answer: Answer
    """Boxes are in pixels of the frame, also where the model saw a crop."""
    region: Region | None = None
    """None: the whole frame."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A model that could not answer."""

    stage: str
    because: str


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """Everything that was found in one frame."""

    pipeline: str
    frame: Frame
    findings: tuple[Finding, ...]
    failures: tuple[Failure, ...] = ()

    def only(self, models: frozenset[str]) -> Record:
        """The record as far as these models go."""
        kept = tuple(finding for finding in self.findings if finding.model in models)
        return replace(self, findings=kept, failures=tuple(one for one in self.failures if one.stage in models))

    def labels(self, model: str) -> tuple[str, ...]:
        """What a model found, over all its crops: each object's label, or the best class."""
        return tuple(
            label
            for finding in self.findings
            if finding.model == model
            for part in finding.answer.values()
            for label in _labels(part)
        )


def record_bytes(record: Record) -> bytes:
    """A record as sinks write it: JSON in UTF-8, on one line."""
    text = json.dumps(record_json(record), ensure_ascii=False, separators=(",", ":"))
    # A file's name may hold bytes that are no text; Python's escape for what stands for them is JSON's own.
    return text.encode("utf-8", "backslashreplace")


def record_json(record: Record) -> dict[str, Json]:
    """A record as a document."""
    frame = record.frame
    document: dict[str, Json] = {
        "pipeline": record.pipeline,
        "source": frame.source,
        "frame": frame.number,
        "at": datetime.fromtimestamp(frame.at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "width": frame.width,
        "height": frame.height,
        "findings": [_finding_json(finding) for finding in record.findings],
    }
    if frame.file is not None:
        document["file"] = frame.file
    if frame.position_s is not None:
        document["position_s"] = round(frame.position_s, 3)
    if record.failures:
        document["failures"] = [{"model": one.stage, "because": one.because} for one in record.failures]
    return document


def _finding_json(finding: Finding) -> dict[str, Json]:
    document: dict[str, Json] = {"model": finding.model}
    if (region := finding.region) is not None:
        crop: dict[str, Json] = {"crops": region.crops, "index": region.index, "box": list(region.box)}
        if region.label is not None:
            crop["label"] = region.label
        if region.score is not None:
            crop["score"] = region.score
        document["crop"] = crop
    document["answer"] = {name: as_json(part) for name, part in finding.answer.items()}
    return document


def _labels(part: object) -> tuple[str, ...]:
    if isinstance(part, Boxes):
        return part.labels
    return part.labels[:1] if isinstance(part, Classes) else ()
