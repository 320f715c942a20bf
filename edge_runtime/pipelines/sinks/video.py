"""An annotated video, through OpenCV. Its only door for sinks."""

from __future__ import annotations

from typing import Any

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import Array
from edge_runtime.pipelines.annotate import annotate
from edge_runtime.pipelines.description import VideoSink
from edge_runtime.pipelines.records import Record
from edge_runtime.pipelines.sources.capture import load_opencv


class VideoFile:
    """Writes one video; the first record sets its size, and pictures of another size are fitted into it.

    Args:
        name: of the sink.
        described: file, frame rate, codec.

    Raises:
        ContractError: OpenCV is not installed.
    """

    def __init__(self, name: str, described: VideoSink) -> None:
        self._cv2 = load_opencv(f"open sink {name}")
        self._described = described
        self._writer: Any = None
        self._size = (0, 0)

    def deliver(self, record: Record) -> None:
        """Append one picture. Raises: InferenceError when OpenCV cannot write the file."""
        picture = annotate(record)
        if self._writer is None:
            # Most codecs halve colour in both directions and want even sides.
            self._size = (max(record.frame.width // 2 * 2, 2), max(record.frame.height // 2 * 2, 2))
            self._writer = self._opened()
        self._writer.write(self._cv2.cvtColor(self._fitted(picture), self._cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file: without its index most players refuse it."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _opened(self) -> Any:
        path, codec = self._described.path, self._described.codec
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InferenceError(f"write {path}", error.strerror or str(error), "check the disk") from error
        writer = self._cv2.VideoWriter(str(path), self._cv2.VideoWriter_fourcc(*codec), self._described.fps, self._size)
        if not writer.isOpened():
            remedy = 'try codec = "mp4v" with a name that ends in .mp4, or "MJPG" with .avi'
            raise InferenceError(f"write {path}", f"OpenCV cannot encode {codec} into it", remedy)
        return writer

    def _fitted(self, picture: Array) -> Array:
        if (picture.shape[1], picture.shape[0]) == self._size:
            return picture
        scale = min(self._size[0] / picture.shape[1], self._size[1] / picture.shape[0])
        inner = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
        small = self._cv2.resize(picture, inner, interpolation=self._cv2.INTER_AREA)
        canvas: Array = self._cv2.copyMakeBorder(
            small, 0, self._size[1] - inner[1], 0, self._size[0] - inner[0], self._cv2.BORDER_CONSTANT
        )
        return canvas
