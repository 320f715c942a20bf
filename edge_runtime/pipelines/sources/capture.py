"""Frames through OpenCV: V4L2 cameras, streams by URL, video files. Its only door for sources."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from edge_runtime.contract.errors import ContractError, EdgeError
from edge_runtime.contract.ids import shown
from edge_runtime.pipelines.description import CameraSource, StreamSource, VideoSource
from edge_runtime.pipelines.ports import Tell
from edge_runtime.pipelines.records import Frame, Unreadable

_SCHEMES: Final = frozenset({"http", "https", "rtsp", "rtsps"})
_FIRST_PAUSE_S: Final = 0.5
_BROKEN_IN_A_ROW: Final = 25
"""A video file in which so many frames one after the other cannot be decoded has ended."""
_COUNT_IS_OFF_BY: Final = 2
"""Frames, and per cent of them, by which a file's own count may be wrong."""


class SourceLost(EdgeError):
    """A camera or stream gave no frame; it may come back."""

    default_code = "source_lost"


@dataclass(frozen=True, slots=True)
class _Way:
    """How to open a live source, and what to call it in messages (never with its password)."""

    title: str
    open: Callable[[], Any]
    reconnect_max_s: float


class LiveFrames:
    """A camera or a stream: opened again, with growing pauses, whenever it is lost.

    Args:
        name: of the source.
        way: how to open it.
        now: Unix time.
        tell: hears when the source is lost and when it is back.
    """

    left_early = False

    def __init__(self, name: str, way: _Way, now: Callable[[], float], tell: Tell) -> None:
        self._name = name
        self._way = way
        self._now = now
        self._tell = tell
        self._capture: Any = None

    def frames(self, stopping: threading.Event) -> Iterator[Frame | Unreadable]:
        """Frames until somebody stops the pipeline."""
        number, pause_s, was_lost = 0, _FIRST_PAUSE_S, False
        while not stopping.is_set():
            try:
                picture = self._next_picture()
            except SourceLost as error:
                self.close()
                # Jittered: cameras behind one switch come back together, and must not be asked in step.
                wait_s = min(pause_s, self._way.reconnect_max_s) * random.uniform(0.5, 1)
                if not was_lost:
                    self._tell(f"source {self._name}: {error}; it is tried again until it is back")
                was_lost, pause_s = True, min(pause_s * 2, self._way.reconnect_max_s)
                stopping.wait(wait_s)
                continue
            if was_lost:
                self._tell(f"source {self._name}: {self._way.title} is back")
            was_lost, pause_s = False, _FIRST_PAUSE_S
            yield Frame(self._name, number, picture, self._now())
            number += 1

    def close(self) -> None:
        """Let go of the device or connection."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _next_picture(self) -> Any:
        if self._capture is None:
            self._capture = self._way.open()
        if not self._capture.isOpened():
            raise SourceLost(f"open {self._way.title}", "it does not answer")
        is_there, picture = self._capture.read()
        if not is_there:
            raise SourceLost(f"read {self._way.title}", "no frame came")
        return to_rgb(picture)


class VideoFrames:
    """A video file, frame by frame; played in real time when it stands in for a camera.

    Args:
        name: of the source.
        described: the file, and which frames are taken.
        capture: OpenCV's, open.
        now: Unix time.
    """

    def __init__(self, name: str, described: VideoSource, capture: Any, now: Callable[[], float]) -> None:
        import cv2

        self._name = name
        self._described = described
        self._capture = capture
        self._now = now
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        self._fps = fps if 0 < fps <= 1000 else 25.0
        self._count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.left_early = False

    def frames(self, stopping: threading.Event) -> Iterator[Frame | Unreadable]:
        """Every frame, or every n-th."""
        began, place, missing = time.monotonic(), 0, 0
        while True:
            if stopping.is_set():
                self.left_early = not self._described.realtime
                return
            is_there, picture = self._capture.read()
            if not is_there:
                # OpenCV says the same of a frame that it cannot decode and of the end; what follows tells.
                missing += 1
                if place + missing > self._count or missing > _BROKEN_IN_A_ROW:
                    yield from self._early_end(place)
                    return
                continue
            yield from (self._undecodable(place + number) for number in range(missing))
            place, missing = place + missing, 0
            if place % self._described.every == 0:
                position_s = place / self._fps
                if self._described.realtime and stopping.wait(max(began + position_s - time.monotonic(), 0)):
                    return
                yield Frame(self._name, place, to_rgb(picture), self._now(), position_s=position_s)
            place += 1

    def _undecodable(self, place: int) -> Unreadable:
        return Unreadable(self._name, place, f"frame {place} of {self._described.path} cannot be decoded")

    def _early_end(self, place: int) -> Iterator[Unreadable]:
        """Nothing where the file ended as it promised: the count of many formats is an estimate."""
        if self._count - place > max(_COUNT_IS_OFF_BY, self._count * _COUNT_IS_OFF_BY // 100):
            because = f"{self._described.path} ends after {place} of its {self._count} frames"
            yield Unreadable(self._name, place, because)

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


def open_camera(name: str, described: CameraSource, now: Callable[[], float], tell: Tell) -> LiveFrames:
    """A camera; that it is there shows when it is read. Raises: ContractError without OpenCV."""
    cv2 = load_opencv(f"open source {name}")
    wishes = {
        cv2.CAP_PROP_FRAME_WIDTH: described.width,
        cv2.CAP_PROP_FRAME_HEIGHT: described.height,
        cv2.CAP_PROP_FPS: described.fps,
        # One buffer: a camera's queue of old frames would be answered first.
        cv2.CAP_PROP_BUFFERSIZE: 1,
    }

    def opened() -> Any:
        capture = cv2.VideoCapture(described.device, cv2.CAP_V4L2)
        for wish, value in wishes.items():
            if value is not None:
                capture.set(wish, value)
        return capture

    return LiveFrames(name, _Way(f"camera {described.device}", opened, described.reconnect_max_s), now, tell)


def open_stream(name: str, described: StreamSource, now: Callable[[], float], tell: Tell) -> LiveFrames:
    """A stream; that it is there shows when it is read. Raises: ContractError for another kind of URL, or no OpenCV."""
    try:
        title, scheme = without_password(described.url), urlsplit(described.url).scheme
    except ValueError as error:
        # Not shown: it may hold a password, and nobody can tell where.
        raise ContractError(f"open source {name}", f"its url is none ({error})", "correct url") from error
    if scheme not in _SCHEMES:
        raise ContractError(f"open source {name}", f"{shown(title)} is no stream", f"use {', '.join(sorted(_SCHEMES))}")
    cv2 = load_opencv(f"open source {name}")
    limit_ms = round(described.timeout_s * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]

    def opened() -> Any:
        return cv2.VideoCapture(described.url, cv2.CAP_FFMPEG, limits)

    return LiveFrames(name, _Way(title, opened, described.reconnect_max_s), now, tell)


def open_video(name: str, described: VideoSource, now: Callable[[], float]) -> VideoFrames:
    """A video file. Raises: ContractError when OpenCV is missing or cannot open it."""
    if not described.path.is_file():
        raise ContractError(f"open source {name}", f"there is no file {described.path}", "correct path")
    cv2 = load_opencv(f"open source {name}")
    capture = cv2.VideoCapture(str(described.path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        because = f"{described.path} is no video that OpenCV can read"
        raise ContractError(f"open source {name}", because, "convert it, for example to MP4 with H.264")
    return VideoFrames(name, described, capture, now)


def load_opencv(cannot: str) -> Any:
    """OpenCV, quiet. Raises: ContractError when it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise ContractError(cannot, "OpenCV is not installed", "pip install 'edgefleet[vision]'") from error
    # What matters is told in our own words; OpenCV and FFmpeg (-8 is AV_LOG_QUIET) would write to stderr besides.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}"))


def to_rgb(picture: Any) -> Any:
    """OpenCV's BGR (or grey) as uint8 [H, W, 3] RGB."""
    import cv2

    if picture.ndim == 2 or picture.shape[2] == 1:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
