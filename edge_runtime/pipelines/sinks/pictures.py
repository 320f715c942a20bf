"""Annotated pictures, one file each."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

from edge_runtime.contract.errors import InferenceError
from edge_runtime.pipelines.annotate import annotate
from edge_runtime.pipelines.description import PicturesSink
from edge_runtime.pipelines.records import Frame, Record


class PictureFiles:
    """Writes `SOURCE-NUMBER.jpg`, or the original name for sources of files; whole or not at all.

    Args:
        described: folder, format, and how many are left out.
    """

    def __init__(self, described: PicturesSink) -> None:
        self._described = described
        self._seen = 0

    def deliver(self, record: Record) -> bool:
        """Write one picture, or leave it out by `every`. Raises: InferenceError when the disk refuses."""
        place = self._seen
        self._seen += 1
        if place % self._described.every:
            return False
        from PIL import Image

        buffer = io.BytesIO()
        try:
            Image.fromarray(annotate(record)).save(buffer, self._described.format, quality=90)
        except OSError as error:
            frame, encoding = record.frame, self._described.format
            because = f"it is {frame.width} by {frame.height}, and no {encoding} is so large"
            raise InferenceError(f"write a picture of {frame.source}", because, 'write format = "png"') from error
        target = self._described.path / self._name(record.frame)
        # Whoever watches the folder must not find half a picture.
        part = target.with_name(target.name + ".part")
        try:
            self._described.path.mkdir(parents=True, exist_ok=True)
            part.write_bytes(buffer.getvalue())
            part.replace(target)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            # The same for every picture, so that a disk that stays full is one line for a person.
            because = error.strerror or str(error)
            raise InferenceError(f"write pictures to {self._described.path}", because, "check the disk") from error
        return True

    def close(self) -> None:
        """Nothing is held."""

    def _name(self, frame: Frame) -> str:
        suffix = "jpg" if self._described.format == "jpeg" else "png"
        middle = f"-{Path(frame.file).stem}" if frame.file is not None else ""
        return f"{frame.source}-{frame.number:06d}{middle}.{suffix}"
