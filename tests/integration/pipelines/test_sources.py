"""Frames from real files: pictures, watched folders, videos, a stream over HTTP that goes away and comes back."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.contract.errors import ContractError
from edge_runtime.pipelines.description import CameraSource, FilesSource, FolderSource, StreamSource, VideoSource
from edge_runtime.pipelines.records import Frame, Unreadable
from edge_runtime.pipelines.sources.capture import open_camera, open_stream, open_video, without_password
from edge_runtime.pipelines.sources.files import open_files, open_folder
from tests.fakes.pipelines import write_video

RUNNING = threading.Event()


def now() -> float:
    return 1_700_000_000.0


def tell(_: str) -> None:
    """Nobody listens."""


def save(path: Path, shade: int) -> Path:
    Image.fromarray(np.full((6, 8, 3), shade, np.uint8)).save(path)
    return path


def shades(count: int, *, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    return [np.full((*size, 3), 8 * number, np.uint8) for number in range(count)]


def test_files_come_in_the_order_of_their_names_and_a_broken_one_costs_only_itself(tmp_path: Path) -> None:
    save(tmp_path / "b.png", 20)
    save(tmp_path / "a.png", 10)
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    save(tmp_path / "z.png", 30)
    source = open_files("door", FilesSource(paths=["[a-c].png", "z.png"]), tmp_path, now)

    first, second, broken, last = source.frames(RUNNING)

    assert isinstance(first, Frame)
    assert (first.file, int(first.picture[0, 0, 0]), first.picture.shape) == (str(tmp_path / "a.png"), 10, (6, 8, 3))
    assert isinstance(second, Frame)
    assert isinstance(broken, Unreadable)
    assert broken.because.startswith(f"cannot read {tmp_path / 'c.png'}: ")
    assert isinstance(last, Frame)
    assert last.number == 3
    assert not source.left_early


def test_a_file_that_is_not_there_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"there is no file none\.png"):
        open_files("door", FilesSource(paths=["none.png"]), tmp_path, now)
    with pytest.raises(ContractError, match=r"there is no file \*\.png"):
        open_files("door", FilesSource(paths=["*.png"]), tmp_path, now)
    with pytest.raises(ContractError, match="holds no pictures"):
        open_folder("door", FolderSource(path=tmp_path), now)
    with pytest.raises(ContractError, match="is no folder"):
        open_folder("door", FolderSource(path=tmp_path / "none"), now)


def test_a_pipe_among_a_folders_pictures_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")

    with pytest.raises(ContractError, match="holds no pictures"):
        open_folder("door", FolderSource(path=tmp_path), now)


def test_a_watched_folder_gives_each_picture_once_and_a_changed_one_again(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 10)
    stopping = threading.Event()
    source = open_folder("door", FolderSource(path=tmp_path, watch=True, poll_s=0.01), now)
    frames = source.frames(stopping)

    def following() -> tuple[str, int]:
        frame = next(frames)
        assert isinstance(frame, Frame)
        assert frame.file is not None
        return Path(frame.file).name, int(frame.picture[0, 0, 0])

    assert following() == ("a.png", 10)
    save(tmp_path / "b.png", 20)
    assert following() == ("b.png", 20)
    (tmp_path / "notes.txt").write_text("no picture")
    save(tmp_path / "whole.png", 30).replace(tmp_path / "a.png")
    assert following() == ("a.png", 30)
    stopping.set()
    assert list(frames) == []


def test_a_file_that_still_grows_is_not_read_half(tmp_path: Path) -> None:
    content = save(tmp_path / "whole.bmp", 40).read_bytes()
    (tmp_path / "whole.bmp").unlink()
    looks: list[int] = []

    class Growing(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            # Between two looks another piece arrives.
            looks.append(len(looks))
            if 20 * len(looks) < len(content) + 20:
                (tmp_path / "slow.bmp").write_bytes(content[: 20 * len(looks)])
            return super().wait(0)

    source = open_folder("door", FolderSource(path=tmp_path, watch=True, poll_s=0.01), now)
    frames = source.frames(Growing())

    frame = next(frames)

    assert isinstance(frame, Frame)
    assert 20 * len(looks) >= len(content)


def test_every_frame_of_a_video_comes_once_in_order_with_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "door.avi", shades(20), fps=10)
    source = open_video("door", VideoSource(path=path), now)

    frames = [frame for frame in source.frames(RUNNING) if isinstance(frame, Frame)]

    assert [frame.number for frame in frames] == list(range(20))
    assert [round(float(frame.picture.mean()) / 8) for frame in frames] == list(range(20))
    assert frames[5].position_s == pytest.approx(0.5)
    source.close()


def test_colours_of_a_video_are_red_green_and_blue(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 220
    source = open_video("door", VideoSource(path=write_video(tmp_path / "red.avi", [red])), now)

    (frame,) = source.frames(RUNNING)

    assert isinstance(frame, Frame)
    assert frame.picture.mean(axis=(0, 1))[0] > 180 > 60 > frame.picture.mean(axis=(0, 1))[2]


def test_every_nth_frame_may_be_taken(tmp_path: Path) -> None:
    source = open_video("door", VideoSource(path=write_video(tmp_path / "d.avi", shades(20)), every=6), now)

    assert [frame.number for frame in source.frames(RUNNING)] == [0, 6, 12, 18]


def test_frames_in_the_middle_that_are_torn_are_said_and_the_next_ones_come(tmp_path: Path) -> None:
    path = write_video(tmp_path / "door.avi", shades(30))
    content = bytearray(path.read_bytes())
    frames = [found.start() for found in re.finditer(rb"00dc....\xff\xd8", content, re.DOTALL)]
    # One picture becomes something else; where it lies and how long it is stay as they were.
    content[frames[10] + 8 : frames[11]] = bytes(frames[11] - frames[10] - 8)
    path.write_bytes(content)

    read = list(open_video("door", VideoSource(path=path), now).frames(RUNNING))

    whole = [one for one in read if isinstance(one, Frame)]
    torn = [one for one in read if isinstance(one, Unreadable)]
    assert [round(float(one.picture.mean()) / 8) for one in whole] == [*range(10), *range(11, 30)]
    assert [one.because for one in torn] == [f"frame 10 of {path} cannot be decoded"]


def test_a_video_that_was_cut_off_says_so_once_and_a_whole_one_says_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "door.avi", shades(30))
    assert not any(isinstance(one, Unreadable) for one in open_video("d", VideoSource(path=path), now).frames(RUNNING))
    content = bytearray(path.read_bytes())
    frames = [found.start() for found in re.finditer(rb"00dc....\xff\xd8", content, re.DOTALL)]
    path.write_bytes(content[: frames[12]])

    read = list(open_video("door", VideoSource(path=path), now).frames(RUNNING))

    *whole, end = read
    assert [one.number for one in whole if isinstance(one, Frame)] == list(range(12))
    assert isinstance(end, Unreadable)
    assert end.because == f"{path} ends after 12 of its 30 frames"


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"nothing")

    with pytest.raises(ContractError, match="is no video that OpenCV can read"):
        open_video("door", VideoSource(path=tmp_path / "no.mp4"), now)
    with pytest.raises(ContractError, match="there is no file"):
        open_video("door", VideoSource(path=tmp_path / "none.mp4"), now)


class MjpegServer:
    """A camera on the network: MJPEG over HTTP, a few frames per connection."""

    def __init__(self, frames: int) -> None:
        self.connections = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for number in range(frames):
                    buffer = io.BytesIO()
                    Image.fromarray(np.full((48, 64, 3), 10 * number, np.uint8)).save(buffer, "JPEG")
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(buffer.getvalue())}\r\n\r\n"
                    self.wfile.write(head.encode() + buffer.getvalue() + b"\r\n")

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self._thread.join(10)


@pytest.fixture
def camera() -> Iterator[MjpegServer]:
    server = MjpegServer(frames=12)
    yield server
    server.close()


def test_a_stream_that_is_lost_is_opened_again_and_both_are_said(camera: MjpegServer) -> None:
    told: list[str] = []
    url = f"http://me:secret@127.0.0.1:{camera.http.server_port}/stream"
    source = open_stream("door", StreamSource(url=url, reconnect_max_s=0.01), now, told.append)
    stopping = threading.Event()
    frames = source.frames(stopping)

    read = [next(frames) for _ in range(30)]
    stopping.set()

    assert camera.connections >= 3
    assert [one.number for one in read] == list(range(30))
    assert told[0] == (
        f"source door: cannot read http://…@127.0.0.1:{camera.http.server_port}/stream: no frame came; "
        "it is tried again until it is back"
    )
    assert told[1] == f"source door: http://…@127.0.0.1:{camera.http.server_port}/stream is back"
    source.close()


@pytest.mark.parametrize("kind", ["camera", "stream"])
def test_a_source_that_never_answers_is_tried_until_somebody_stops(kind: str) -> None:
    stopping = threading.Event()
    told: list[str] = []

    def heard(line: str) -> None:
        told.append(line)
        stopping.set()

    if kind == "camera":
        source = open_camera("door", CameraSource(device="/dev/video-none", reconnect_max_s=0.01), now, heard)
    else:
        source = open_stream("door", StreamSource(url="http://127.0.0.1:9/none", reconnect_max_s=0.01), now, heard)

    assert list(source.frames(stopping)) == []
    assert len(told) == 1
    assert told[0].endswith("it does not answer; it is tried again until it is back")


def test_a_url_that_is_no_stream_is_refused() -> None:
    with pytest.raises(ContractError, match=r"is no stream; use http, https, rtsp, rtsps"):
        open_stream("door", StreamSource(url="file:///etc/passwd"), now, tell)
    with pytest.raises(ContractError, match=r"cannot open source door: its url is none \(Invalid IPv6 URL\)") as caught:
        open_stream("door", StreamSource(url="rtsp://me:secret@[1"), now, tell)
    assert "secret" not in str(caught.value)


def test_a_password_is_never_shown() -> None:
    assert without_password("rtsp://me:se@cret@camera:554/live?x=1") == "rtsp://…@camera:554/live?x=1"
    assert without_password("http://camera/live") == "http://camera/live"
