"""What a slot did, window by window and build by build."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.agent.source import read_folder
from edge_runtime.agent.windows import Observation, WindowRecorder
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import SlotId, VariantId

OLD, NEW = digest_of(b"old"), digest_of(b"new")
FP32 = VariantId("ort-fp32")


def test_each_build_has_its_own_window_and_an_empty_window_is_no_sample() -> None:
    recorder = WindowRecorder(SlotId("main"))
    assert recorder.cut(1.0, dict) == []

    recorder.record(Observation(OLD, FP32, 2.0, confidence=0.9, correct=True), 10.0)
    recorder.record(Observation(OLD, FP32, 4.0, confidence=0.8, correct=False), 11.0)
    recorder.record(Observation(NEW, FP32, 3.0, error="inference"), 12.0)
    old, new = recorder.cut(20.0, lambda: {"rss_bytes": 5.0})

    assert (old.release, old.requests, old.correct, old.total) == (OLD, 2, 1, 2)
    assert (old.start, old.end, old.gauges) == (10.0, 20.0, {"rss_bytes": 5.0})
    assert (new.release, new.requests, new.errors) == (NEW, 1, {"inference": 1})
    assert (new.correct, new.total, new.confidence) == (None, None, None)
    assert recorder.cut(30.0, dict) == []


def test_a_build_that_failed_before_another_one_answered_has_the_fault_in_its_own_window() -> None:
    recorder = WindowRecorder(SlotId("main"))

    recorder.fail(NEW, FP32, "engine_failed", 10.0)
    recorder.record(Observation(NEW, VariantId("cpu"), 3.0, confidence=0.9), 10.0)
    failed, answered = recorder.cut(20.0, dict)

    assert (failed.variant, failed.requests, failed.errors) == (FP32, 1, {"engine_failed": 1})
    assert (answered.variant, answered.requests, answered.errors) == ("cpu", 1, {})


def test_a_folder_gives_its_images_by_name_with_the_labels_that_are_known(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "labels.csv").write_text("file,label\nb.png,seven\n")

    assert [(image.path.name, image.label) for image in read_folder(tmp_path)] == [("a.jpg", None), ("b.png", "seven")]


@pytest.mark.parametrize("labels", ["name,label\na.png,x\n", "file\na.png\n", "\udcff"])
def test_labels_that_cannot_be_read_are_refused(tmp_path: Path, labels: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_bytes(labels.encode(errors="surrogateescape"))

    with pytest.raises(ContractError, match=r"file,label"):
        read_folder(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no images"):
        read_folder(tmp_path)
    with pytest.raises(ContractError, match="not a folder"):
        read_folder(tmp_path / "missing")
