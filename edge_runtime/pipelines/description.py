"""A pipeline as its file describes it: every table typed, unknown keys refused, nothing opened yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Union

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
PerSecond = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the file."""


class _Source(Table, frozen=True, kw_only=True, tag_field="kind"):
    pass


class FilesSource(_Source, frozen=True, kw_only=True, tag="files"):
    """Pictures by name, once, in this order."""

    paths: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Names, or patterns with `*` and `?`."""


class FolderSource(_Source, frozen=True, kw_only=True, tag="folder"):
    """A folder's pictures, by name; watched: new ones as they appear, until somebody ends the pipeline."""

    path: Path
    watch: bool = False
    recursive: bool = False
    poll_s: Seconds = 1.0
    """How often a watched folder is looked at."""


class CameraSource(_Source, frozen=True, kw_only=True, tag="camera"):
    """A V4L2 camera; the newest frame wins."""

    device: int | str = 0
    """Number, or `/dev/video0`."""
    width: Pixels | None = None
    height: Pixels | None = None
    fps: PerSecond | None = None
    reconnect_max_s: Seconds = 30.0
    """Longest pause between two attempts."""


class StreamSource(_Source, frozen=True, kw_only=True, tag="stream"):
    """A live stream by URL (RTSP, or MJPEG over HTTP); the newest frame wins."""

    url: str
    timeout_s: Seconds = 5.0
    """For opening, and for each frame; then the connection is made anew."""
    reconnect_max_s: Seconds = 30.0


class VideoSource(_Source, frozen=True, kw_only=True, tag="video"):
    """A video file; no frame is lost unless it is played in real time."""

    path: Path
    every: Count = 1
    """Take every n-th frame."""
    realtime: bool = False
    """Play it as a camera would, at its own frame rate: the newest frame wins."""


class Model(Table, frozen=True, kw_only=True):
    """One release, asked about whole pictures or about crops."""

    release: Path
    """Folder that edge-convert wrote, or an agent's state_dir."""
    from_: str | list[str] = msgspec.field(name="from")
    """Sources, or one table of `crops`."""
    variant: str | None = None
    threads: Count | None = None
    batch: Count | None = None
    """Crops that are asked at once; 1: one by one. Left out: as `edge-runtime tune` found, else a few small ones."""
    backends: list[Literal["onnxruntime", "openvino", "litert", "tensorrt", "tflite_runtime"]] = []
    tuned: Path | None = None
    """Folder of `edge-runtime tune --state`; left out: the user's own."""
    slot: str = "main"
    """With a state_dir: which of the device's models."""


class _Crops(Table, frozen=True, kw_only=True, tag_field="kind"):
    from_: str = msgspec.field(name="from")


class BoxCrops(_Crops, frozen=True, kw_only=True, tag="boxes"):
    """What a detector found, cut out of the picture, best first."""

    output: str | None = None
    """The detector's output; needed only where it has several with boxes."""
    labels: list[str] = []
    """Only these; empty: all."""
    min_score: Share = 0.0
    margin: Annotated[float, msgspec.Meta(ge=0, le=4)] = 0.0
    """Added at each side, as a share of the box's own width and height."""
    max: Count = 16
    min_side_px: Pixels = 1
    """Smaller boxes are left out."""


class GridCrops(_Crops, frozen=True, kw_only=True, tag="grid"):
    """The picture cut into equal tiles, row after row."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=64)]
    columns: Annotated[int, msgspec.Meta(ge=1, le=64)]


class _Sink(Table, frozen=True, kw_only=True, tag_field="kind"):
    from_: list[str] = msgspec.field(name="from", default_factory=list)
    """Models whose answers it gets; empty: all."""


class MqttSink(_Sink, frozen=True, kw_only=True, tag="mqtt"):
    """One message per frame to a broker."""

    host: str
    port: Port = 1883
    topic: str = "edgefleet/{pipeline}/{source}"
    """`{pipeline}` and `{source}` are replaced."""
    qos: Literal[0, 1] = 1
    retain: bool = False
    client_id: str = ""
    """Empty: one by chance."""
    ca_file: Path | None = None
    """Authority of the broker's certificate; given: TLS."""
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    in_flight: Count = 64
    """Messages that may wait for the broker's acknowledgement; then the sink waits."""


class WebhookSink(_Sink, frozen=True, kw_only=True, tag="webhook"):
    """Records as JSON to a URL; what cannot be sent at once waits."""

    url: str
    """`https://…`, or `http://…` where no secret is sent with it."""
    token_file: Path | None = None
    """Holds the bearer token."""
    secret_file: Path | None = None
    """Holds the key by which each request is signed."""
    ca_file: Path | None = None
    """Authority of the server's certificate; left out: the system's."""
    batch: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    """Above 1: requests carry a list, of up to so many records that wait already."""
    waiting: Count = 1000
    """Records that may wait; then the oldest one of a live source is dropped, and files are held back."""
    timeout_s: Seconds = 10.0
    """For connecting, and for each piece that is sent or received; six times as long for a request as a whole."""
    patience_s: Seconds = 60.0
    """How long a request is tried again before its records are given up."""


class JsonlSink(_Sink, frozen=True, kw_only=True, tag="jsonl"):
    """One line of JSON per frame in a file, which is rotated."""

    path: Path
    max_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 64 * 1024 * 1024
    """Before the file would grow beyond it, it becomes `PATH.1`."""
    keep: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 4
    """How many older files stay."""


class PicturesSink(_Sink, frozen=True, kw_only=True, tag="pictures"):
    """Annotated pictures, one file each."""

    path: Path
    format: Literal["jpeg", "png"] = "jpeg"
    every: Count = 1
    """Of the frames that reach it, every n-th."""


class VideoSink(_Sink, frozen=True, kw_only=True, tag="video"):
    """An annotated video of one source."""

    path: Path
    fps: PerSecond = 25.0
    codec: Annotated[str, msgspec.Meta(min_length=4, max_length=4)] = "mp4v"
    """Four letters, as OpenCV names it."""


class CallbackSink(_Sink, frozen=True, kw_only=True, tag="callback"):
    """A Python function that is called with each record; run only with `--trust-code`."""

    function: str
    """`module:function`."""


class TableSink(_Sink, frozen=True, kw_only=True, tag="table"):
    """Lines on standard output."""


Source = Union[FilesSource, FolderSource, CameraSource, StreamSource, VideoSource]  # noqa: UP007 (msgspec, 3.10)
Crops = Union[BoxCrops, GridCrops]  # noqa: UP007
Sink = Union[MqttSink, WebhookSink, JsonlSink, PicturesSink, VideoSink, CallbackSink, TableSink]  # noqa: UP007


class Description(Table, frozen=True, kw_only=True):
    """The whole file."""

    name: str
    sources: dict[str, Source]
    models: dict[str, Model]
    crops: dict[str, Crops] = {}
    sinks: dict[str, Sink]


def is_live(source: Source) -> bool:
    """Whether frames come at their own pace, so that the newest one wins."""
    return isinstance(source, (CameraSource, StreamSource)) or (isinstance(source, VideoSource) and source.realtime)
