"""Descriptions, signatures, frames and parts of pipelines, and videos made of pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runtime.contract.tensor import InputSpec, OutputSpec, Signature
from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.inference.postprocessing.results import Answer, Classes
from edge_runtime.pipelines.description import Description
from edge_runtime.pipelines.reading import parse_description
from edge_runtime.pipelines.records import Frame, Record, Unreadable


def described(text: str, path: Path = Path("/p/entrance.toml")) -> Description:
    """A pipeline's file."""
    return parse_description(text.encode(), path)


def signature(*outputs: str, kind: str = "image") -> Signature:
    """A model of one picture; each output is called as its kind."""
    picture = InputSpec(name="image", kind=kind, dtype="uint8", shape=["N", "H", "W", 3], layout="NHWC", color="rgb")
    return Signature(inputs=[picture], outputs=[OutputSpec(name=one, kind=one) for one in outputs or ("classes",)])


def boxes(*found: tuple[str, float, tuple[float, float, float, float]]) -> Boxes:
    """What a detector found: label, score, corners."""
    corners = np.array([one[2] for one in found], np.float64).reshape(-1, 4)
    return Boxes(corners, tuple(range(len(found))), tuple(one[0] for one in found), tuple(one[1] for one in found))


def classes(label: str, score: float = 0.9) -> Classes:
    """One class."""
    return Classes((0,), (label,), (score,))


def frame(number: int = 0, *, width: int = 64, height: int = 48, source: str = "door", shade: int = 90) -> Frame:
    """A grey frame."""
    return Frame(source, number, np.full((height, width, 3), shade, np.uint8), at=1_700_000_000.0 + number)


def write_video(path: Path, pictures: Iterable[Any], *, fps: float = 25.0, codec: str = "MJPG") -> Path:
    """A video of RGB pictures of one size, all key frames."""
    writer = None
    for picture in pictures:
        if writer is None:
            writer = cv2.VideoWriter(
                str(path), cv2.VideoWriter_fourcc(*codec), fps, (picture.shape[1], picture.shape[0])
            )
            assert writer.isOpened()
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert writer is not None
    writer.release()
    return path


class ListedFrames:
    """A source of given frames."""

    def __init__(self, frames: Iterable[Frame | Unreadable]) -> None:
        self._frames = list(frames)
        self.given = 0
        self.is_closed = False

    @property
    def left_early(self) -> bool:
        return self.given < len(self._frames)

    def frames(self, stopping: threading.Event) -> Iterator[Frame | Unreadable]:
        for one in self._frames:
            if stopping.is_set():
                return
            self.given += 1
            yield one

    def close(self) -> None:
        self.is_closed = True


class Answering:
    """A model that answers with a function of the picture."""

    def __init__(self, answer: Callable[[Any], Answer]) -> None:
        self._answer = answer
        self.asked: list[Any] = []
        self.batches: list[int] = []
        self.is_closed = False

    def ask(self, picture: Any) -> Answer:
        self.asked.append(picture)
        return self._answer(picture)

    def ask_all(self, pictures: Sequence[Any]) -> list[Answer]:
        self.batches.append(len(pictures))
        return [self.ask(picture) for picture in pictures]

    def close(self) -> None:
        self.is_closed = True


class Collecting:
    """A sink that remembers; `before` runs before each record is taken."""

    def __init__(self, before: Callable[[Record], None] | None = None) -> None:
        self.records: list[Record] = []
        self.is_closed = False
        self._before = before

    def deliver(self, record: Record) -> None:
        if self._before is not None:
            self._before(record)
        self.records.append(record)

    def close(self) -> None:
        self.is_closed = True
