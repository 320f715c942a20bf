"""The shell around a plan: order, back-pressure, what is dropped, what one failure costs."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.pipelines.planner import plan
from edge_runtime.pipelines.records import Frame, Record, Unreadable, record_json
from edge_runtime.pipelines.runner import FILES_WAITING, Parts, Pipeline
from tests.fakes.pipelines import Answering, Collecting, ListedFrames, boxes, classes, described, frame, signature

ONE = """
[sources.door]
kind = "files"
paths = ["*.png"]
[models.scene]
release = "scene"
from = "door"
[sinks.out]
kind = "table"
"""
CASCADE = """
[sources.door]
kind = "files"
paths = ["*.png"]
[models.faces]
release = "faces"
from = "door"
[crops.face]
kind = "boxes"
from = "faces"
margin = 0.5
[models.eyes]
release = "eyes"
from = "face"
[sinks.out]
kind = "table"
[sinks.only_eyes]
kind = "table"
from = ["eyes"]
"""
BRIGHT = {"classes": classes("bright")}


def build(text: str, frames, models, sinks=None, *, live: bool = False) -> tuple[Pipeline, dict, list[str]]:
    text = text.replace('kind = "files"\npaths = ["*.png"]', 'kind = "camera"') if live else text
    outputs = {"faces": signature("detections"), "eyes": signature("detections"), "scene": signature()}
    planned = plan(described(text), {name: outputs[name] for name in models})
    sinks = sinks or {one.sink: Collecting() for one in planned.deliveries}
    told: list[str] = []
    return Pipeline(planned, Parts({"door": frames}, models, sinks), told.append), sinks, told


def test_every_frame_of_a_file_source_is_delivered_in_order() -> None:
    source, model = ListedFrames(frame(number) for number in range(30)), Answering(lambda _: BRIGHT)
    pipeline, sinks, _ = build(ONE, source, {"scene": model})

    report = pipeline.run()

    assert [record.frame.number for record in sinks["out"].records] == list(range(30))
    assert report.summary().startswith("entrance: 30 frames in ")
    assert (report.lost, report.is_complete) == (0, True)
    assert [one.is_closed for one in (source, model, sinks["out"])] == [True] * 3


def test_the_crops_of_a_frame_are_asked_at_once() -> None:
    eyes = Answering(lambda picture: {"detections": boxes(("eye", 0.5, (0, 0, 1, float(picture[0, 0, 0]))))})
    two = Answering(lambda _: {"detections": boxes(("face", 0.9, (0, 0, 4, 4)), ("face", 0.8, (8, 4, 12, 8)))})
    pipeline, sinks, _ = build(CASCADE, ListedFrames([frame(0)]), {"faces": two, "eyes": eyes})

    report = pipeline.run()

    assert eyes.batches == [2]
    assert report.of("model")[1].done == 2
    assert [finding.region.index for finding in sinks["only_eyes"].records[0].findings] == [0, 1]


def test_a_crop_that_a_model_cannot_answer_costs_itself_alone() -> None:
    def picky(picture) -> dict:
        if picture.shape[0] != picture.shape[1]:
            raise InferenceError("answer", "it is not square")
        return BRIGHT

    two = Answering(lambda _: {"detections": boxes(("face", 0.9, (0, 0, 4, 4)), ("face", 0.8, (4, 4, 12, 8)))})
    text = CASCADE.replace("margin = 0.5", "")
    pipeline, sinks, told = build(text, ListedFrames([frame(0)]), {"faces": two, "eyes": Answering(picky)})

    report = pipeline.run()

    (record,) = sinks["only_eyes"].records
    assert (len(record.findings), len(record.failures)) == (1, 1)
    assert report.lost == 1
    assert told == ["model eyes: cannot answer: it is not square"]


def test_a_slow_sink_holds_a_file_source_back() -> None:
    source, gate = ListedFrames(frame(number) for number in range(60)), threading.Event()
    slow = Collecting(lambda _: gate.wait(10) and None)
    pipeline, _, _ = build(ONE, source, {"scene": Answering(lambda _: BRIGHT)}, {"out": slow})
    running = threading.Thread(target=pipeline.run)
    running.start()

    waited = threading.Event()
    while not waited.wait(0.01) and pipeline.report().of("model")[0].done < 17:
        pass
    ahead = source.given
    gate.set()
    running.join(20)

    # One in the sink's hands, its line full, one in the worker's hands, the frames' line full, one in the reader's.
    assert ahead <= 1 + 16 + 1 + FILES_WAITING + 1
    assert len(slow.records) == 60


def test_of_a_live_source_the_newest_frame_wins_and_drops_are_counted() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slowly(picture: np.ndarray):
        asked.set()
        assert go_on.wait(10)
        return BRIGHT

    class Camera(ListedFrames):
        left_early = False  # type: ignore[assignment]

        def frames(self, stopping):
            yield frame(0)
            assert asked.wait(10)
            for number in range(1, 10):
                yield frame(number)
            go_on.set()

    pipeline, sinks, _ = build(ONE, Camera([]), {"scene": Answering(slowly)}, live=True)

    report = pipeline.run()

    assert [record.frame.number for record in sinks["out"].records] == [0, 9]
    assert report.of("source")[0].dropped == 8
    assert "8 dropped" in report.summary()


def test_a_cascade_asks_about_crops_and_answers_in_pixels_of_the_frame() -> None:
    faces = Answering(lambda _: {"detections": boxes(("face", 0.9, (10, 10, 20, 20)))})
    eyes = Answering(lambda _: {"detections": boxes(("eye", 0.8, (1, 2, 3, 4)))})
    pipeline, sinks, _ = build(CASCADE, ListedFrames([frame()]), {"faces": faces, "eyes": eyes})

    pipeline.run()

    assert eyes.asked[0].shape == (20, 20, 3)
    (record,) = sinks["out"].records
    found = record.findings[1].answer["detections"]
    assert isinstance(found, Boxes)
    assert found.boxes.tolist() == [[6, 7, 8, 9]]
    assert record_json(record)["findings"][1]["crop"] == {  # type: ignore[index,call-overload]
        "crops": "face", "index": 0, "box": [5, 5, 25, 25], "label": "face", "score": 0.9,
    }  # fmt: skip
    assert [one.model for one in sinks["only_eyes"].records[0].findings] == ["eyes"]
    assert record.labels("eyes") == ("eye",)


def test_a_broken_frame_is_counted_and_the_next_one_answered() -> None:
    frames = [frame(0), Unreadable("door", 1, "cannot read 1.png: torn"), frame(2)]
    pipeline, sinks, told = build(ONE, ListedFrames(frames), {"scene": Answering(lambda _: BRIGHT)})

    report = pipeline.run()

    assert [record.frame.number for record in sinks["out"].records] == [0, 2]
    assert report.lost == 1
    assert told == ["source door: cannot read 1.png: torn"]
    assert "1 unreadable (door)" in report.summary()


def test_a_model_that_fails_costs_its_own_answer_and_what_depends_on_it() -> None:
    def fail(_: object):
        raise InferenceError("run the model", "it broke")

    eyes = Answering(lambda _: BRIGHT)
    pipeline, sinks, told = build(CASCADE, ListedFrames([frame(0), frame(1)]), {"faces": Answering(fail), "eyes": eyes})

    report = pipeline.run()

    assert [len(record.failures) for record in sinks["out"].records] == [1, 1]
    assert [record.failures for record in sinks["only_eyes"].records] == [(), ()]
    assert eyes.asked == []
    assert told == ["model faces: cannot run the model: it broke"], "said once, though it went on"
    assert "2 not answered (faces)" in report.summary()


def test_a_sink_that_refuses_loses_its_record_and_no_other_sink_does() -> None:
    def refuse(record: Record) -> None:
        if record.frame.number == 1:
            raise InferenceError("write", "the disk is full")

    text = ONE + '[sinks.second]\nkind = "table"\n'
    sinks = {"out": Collecting(refuse), "second": Collecting()}
    pipeline, _, told = build(
        text, ListedFrames(frame(number) for number in range(3)), {"scene": Answering(lambda _: BRIGHT)}, sinks
    )

    report = pipeline.run()

    assert [record.frame.number for record in sinks["out"].records] == [0, 2]
    assert len(sinks["second"].records) == 3
    assert told == ["sink out: cannot write: the disk is full"]
    assert report.lost == 1


def test_stopping_answers_what_was_read_and_says_that_more_was_there() -> None:
    source = ListedFrames(frame(number) for number in range(1000))
    sinks = {"out": Collecting(lambda record: pipeline.stop() if record.frame.number == 3 else None)}
    pipeline, _, _ = build(ONE, source, {"scene": Answering(lambda _: BRIGHT)}, sinks)

    report = pipeline.run()

    assert not report.is_complete
    numbers = [record.frame.number for record in sinks["out"].records]
    assert numbers == list(range(source.given))
    assert len(numbers) < 1000


def test_a_defect_ends_the_run_and_is_not_swallowed() -> None:
    def defect(_: object):
        raise ZeroDivisionError

    source = ListedFrames(frame(number) for number in range(1000))
    pipeline, _, _ = build(ONE, source, {"scene": Answering(defect)})

    with pytest.raises(ZeroDivisionError):
        pipeline.run()


def test_frames_know_their_size() -> None:
    assert (frame(width=64, height=48).width, frame(width=64, height=48).height) == (64, 48)
    assert isinstance(frame(), Frame)
