"""`--source FOLDER`: asks the live model about a folder's images, over and over, as a camera would."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_runtime.agent.live import Answered, LiveModel
from edge_runtime.agent.windows import Observation, WindowRecorder
from edge_runtime.contract.errors import ContractError

LABELS_FILE: Final = "labels.csv"
_IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
_LABELS_MAX_ROWS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One picture of the folder; its label when somebody wrote it down."""

    path: Path
    label: str | None


def read_folder(folder: Path) -> tuple[LabelledImage, ...]:
    """The folder's images by name, with labels from `labels.csv` (columns `file,label`) where there is one.

    Raises:
        ContractError: no folder, no images, or a label file that cannot be used.
    """
    if not folder.is_dir():
        raise ContractError(f"use source {folder}", "it is not a folder", "name a folder of images")
    labels = _read_labels(folder / LABELS_FILE)
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES)
    if not images:
        raise ContractError(f"use source {folder}", "it holds no images", "put PNG, JPEG or BMP files there")
    return tuple(LabelledImage(path, labels.get(path.relative_to(folder).as_posix())) for path in images)


class FolderSource:
    """Feeds a folder to a live model in a thread of its own.

    Args:
        images: what to ask about, in a circle.
        live: the slot's model.
        recorder: where answers are counted.
        now: trusted time.
        interval_s: pause between two images.
    """

    def __init__(
        self,
        images: tuple[LabelledImage, ...],
        live: LiveModel,
        recorder: WindowRecorder,
        *,
        now: Callable[[], float],
        interval_s: float,
    ) -> None:
        self._images = images
        self._live = live
        self._recorder = recorder
        self._now = now
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the image in hand."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        position = 0
        while not self._stopping.wait(self._interval_s):
            image = self._images[position % len(self._images)]
            try:
                content = image.path.read_bytes()
            except OSError:
                # Someone took the picture away: the others are still there.
                position += 1
                continue
            answered = self._live.ask_encoded(content)
            if answered is None:
                continue
            self._recorder.record(_observed(answered, image.label), self._now())
            position += 1


def _observed(answered: Answered, label: str | None) -> Observation:
    activation = answered.activation
    if answered.answer is None:
        return Observation(activation.release, activation.variant, answered.elapsed_ms, error=answered.error)
    best, score = _best_class(answered.answer)
    correct = None if label is None else best == label
    return Observation(activation.release, activation.variant, answered.elapsed_ms, confidence=score, correct=correct)


def _best_class(answer: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """The first class of the first output that gives classes, which are written as `results.as_json` does."""
    for part in answer.values():
        match part:
            case [{"label": str(label), "score": score, **rest}, *_] if "box" not in rest:
                return label, score
    return None, None


def _read_labels(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    labels: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8") as source:
            for row in csv.DictReader(source):
                labels[row["file"]] = row["label"]
                if len(labels) > _LABELS_MAX_ROWS:
                    raise ContractError(f"use {path}", f"it has more than {_LABELS_MAX_ROWS} rows")
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        why = "it is not a CSV file with columns file,label"
        raise ContractError(f"use {path}", why, "write that header") from error
    return labels
