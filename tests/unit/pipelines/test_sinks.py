"""Sinks of files, functions and lines."""

from __future__ import annotations

import io
import json
import os
import resource
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.pipelines.description import JsonlSink, MqttSink, PicturesSink, VideoSink
from edge_runtime.pipelines.records import Failure, Finding, Frame, Record, Region
from edge_runtime.pipelines.sinks.callback import Callback, load_function
from edge_runtime.pipelines.sinks.jsonl import JsonlFile
from edge_runtime.pipelines.sinks.mqtt import MqttPublisher
from edge_runtime.pipelines.sinks.pictures import PictureFiles
from edge_runtime.pipelines.sinks.table import TableLines
from edge_runtime.pipelines.sinks.video import VideoFile
from tests.fakes.pipelines import boxes, classes, frame

FOUND = Finding("faces", {"objects": boxes(("face", 0.875, (4, 5, 20, 30)))})


def record(number: int = 0, *findings: Finding) -> Record:
    return Record("entrance", frame(number), findings or (FOUND,))


def lines(path: Path) -> list[int]:
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def test_a_record_is_one_line_of_json(tmp_path: Path) -> None:
    sink = JsonlFile(JsonlSink(path=tmp_path / "new" / "out.jsonl"))

    sink.deliver(record(3))
    sink.close()

    assert json.loads((tmp_path / "new" / "out.jsonl").read_text()) == {
        "pipeline": "entrance", "source": "door", "frame": 3, "at": "2023-11-14T22:13:23.000Z",
        "width": 64, "height": 48,
        "findings": [{"model": "faces", "answer": {"objects": [
            {"index": 0, "label": "face", "score": 0.875, "box": [4.0, 5.0, 20.0, 30.0]}]}}],
    }  # fmt: skip


def test_a_file_whose_name_is_no_text_costs_no_record(tmp_path: Path) -> None:
    named = Record("entrance", replace(frame(), file=os.fsdecode(b"/in/\xff\xc3\xa9.jpg")), ())
    sink = JsonlFile(JsonlSink(path=tmp_path / "out.jsonl"))

    sink.deliver(named)
    sink.close()

    assert os.fsencode(json.loads((tmp_path / "out.jsonl").read_text())["file"]) == b"/in/\xff\xc3\xa9.jpg"


def test_a_file_that_would_grow_too_large_is_rotated_and_only_so_many_stay(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonlFile(JsonlSink(path=path, max_bytes=4096, keep=2))

    for number in range(100):
        sink.deliver(record(number))
    sink.close()

    kept = [path.with_name("out.jsonl.2"), path.with_name("out.jsonl.1"), path]
    numbers = [number for one in kept for number in lines(one)]
    assert numbers == list(range(numbers[0], 100))
    assert all(one.stat().st_size <= 4096 for one in kept)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_line_is_whole_on_the_disk_when_it_is_delivered_and_a_new_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = JsonlFile(JsonlSink(path=path))
    first.deliver(record(0))
    assert lines(path) == [0]
    first.close()

    JsonlFile(JsonlSink(path=path)).deliver(record(1))

    assert lines(path) == [0, 1]


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InferenceError, match=r"cannot write .*out.jsonl: .*check the disk"):
        JsonlFile(JsonlSink(path=tmp_path / "file" / "out.jsonl")).deliver(record())
    with pytest.raises(InferenceError, match=r"cannot write pictures to .*file: ") as first:
        PictureFiles(PicturesSink(path=tmp_path / "file")).deliver(record())
    with pytest.raises(InferenceError) as second:
        PictureFiles(PicturesSink(path=tmp_path / "file")).deliver(record(1))
    # One reason for all of them: a disk that stays full is said once.
    assert str(first.value) == str(second.value)


def test_a_frame_that_the_format_cannot_hold_costs_one_picture(tmp_path: Path) -> None:
    wide = Frame("door", 0, np.zeros((1, 66_000, 3), np.uint8), 0.0)

    with pytest.raises(InferenceError, match=r'66000 by 1, and no jpeg is so large; write format = "png"'):
        PictureFiles(PicturesSink(path=tmp_path)).deliver(Record("entrance", wide, ()))

    assert list(tmp_path.iterdir()) == []


def test_a_line_that_the_disk_takes_in_part_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonlFile(JsonlSink(path=path))
    sink.deliver(record(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    # A limit on the size of files ends a write in its middle, as a disk does that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        for number in (1, 2):
            with pytest.raises(InferenceError, match=r"cannot write .*out\.jsonl: the disk took a part"):
                sink.deliver(record(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.deliver(record(3))
    sink.close()

    assert lines(path) == [0, 3]


def test_a_video_that_cannot_have_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InferenceError, match=r"cannot write .*out\.mp4: (File exists|Not a directory)"):
        VideoFile("film", VideoSink(path=tmp_path / "file" / "out.mp4")).deliver(record())


@pytest.mark.parametrize(
    ("described", "because"),
    [
        (MqttSink(host=""), "'' is no host"),
        (MqttSink(host="bro\0ker"), "is no host"),
        (MqttSink(host="broker", topic=""), "'' is no topic"),
        (MqttSink(host="broker", topic="edge/#"), "'edge/#' is no topic to publish on"),
        (MqttSink(host="broker", topic="é" * 20_000), "is no topic"),
    ],
)
def test_a_broker_or_topic_that_no_client_takes_is_refused_before_a_frame_is_read(
    described: MqttSink, because: str
) -> None:
    with pytest.raises(ContractError, match=f"cannot open sink mine: .*{because}"):
        MqttPublisher("mine", described, lambda _: None, threading.Event())


def test_every_nth_picture_becomes_a_file_that_is_never_half(tmp_path: Path) -> None:
    sink = PictureFiles(PicturesSink(path=tmp_path / "out", format="png", every=2))

    delivered = [sink.deliver(record(number)) for number in range(3)]

    assert delivered == [True, False, True]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["door-000000.png", "door-000002.png"]
    with Image.open(tmp_path / "out" / "door-000000.png") as image:
        assert np.asarray(image).std() > 0, "the box is drawn"


def test_a_person_reads_one_line_per_answer_with_nothing_that_steers_a_terminal() -> None:
    output = io.StringIO()
    crop = Finding("kind", {"classes": classes("cat\x1b[2J")}, Region("face", 1, (0, 0, 9, 9)))
    table = TableLines(output)

    table.deliver(Record("entrance", frame(7), (FOUND, crop), (Failure("scene", "cannot answer: torn"),)))

    head, *rows = output.getvalue().splitlines()
    assert head.split() == ["SOURCE", "FRAME", "MODEL", "ANSWER"]
    assert [row.split(maxsplit=2)[2] for row in rows] == [
        "faces             face (0.875) at [4, 5, 20, 30]", r"kind 2            cat\x1b[2J (0.900)",
        "scene             cannot answer: torn",
    ]  # fmt: skip


def test_what_a_function_raises_costs_one_record() -> None:
    taken: list[int] = []

    def take(one: Record) -> None:
        if one.frame.number == 1:
            raise KeyError("door")
        taken.append(one.frame.number)

    sink = Callback("mine", take)

    sink.deliver(record(0))
    with pytest.raises(InferenceError, match=r"cannot call sink mine: it raised KeyError: .*door"):
        sink.deliver(record(1))
    sink.deliver(record(2))
    assert taken == [0, 2]


def test_a_function_that_draws_into_the_picture_of_all_sinks_is_told_to_copy_it() -> None:
    one, drawn = record(), []

    def draw(given: Record) -> None:
        copy = given.frame.picture.copy()
        copy[:] = 255
        drawn.append(copy)
        given.frame.picture[:] = 255

    before = one.frame.picture.copy()
    with pytest.raises(InferenceError, match="read-only"):
        Callback("mine", draw).deliver(one)

    assert np.array_equal(one.frame.picture, before)
    assert (drawn[0] == 255).all()


@pytest.mark.parametrize(
    ("function", "because"),
    [
        ("json", "is not module:function"),
        ("no_such_module_x:f", r"cannot be loaded \(ModuleNotFoundError"),
        ("json:no_such", r"cannot be loaded \(AttributeError"),
        ("json:__name__", "is a str"),
    ],
)
def test_a_function_that_is_none_is_refused(function: str, because: str) -> None:
    with pytest.raises(ContractError, match=because):
        load_function("mine", function, Path())
    assert load_function("mine", "json:dumps", Path()) is json.dumps
