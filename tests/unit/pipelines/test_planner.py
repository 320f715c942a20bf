"""From a description to routes: what cannot work is refused before anything is opened."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.errors import ContractError
from edge_runtime.pipelines.description import BoxCrops, Description, FilesSource, Model, TableSink
from edge_runtime.pipelines.planner import AskStep, CutStep, Plan, plan
from tests.fakes.pipelines import described, signature

CASCADE = """
[sources.door]
kind = "camera"
[sources.archive]
kind = "files"
paths = ["*.jpg"]
[models.faces]
release = "faces"
from = ["door", "archive"]
[crops.face]
kind = "boxes"
from = "faces"
[models.smile]
release = "smile"
from = "face"
[models.scene]
release = "scene"
from = "archive"
[sinks.lines]
kind = "jsonl"
path = "out.jsonl"
[sinks.smiles]
kind = "table"
from = ["smile"]
"""
SIGNATURES = {"faces": signature("detections"), "smile": signature(), "scene": signature()}


def changed(old: str, new: str) -> Description:
    assert old in CASCADE
    return described(CASCADE.replace(old, new))


def test_a_cascade_becomes_steps_in_the_order_in_which_they_can_run() -> None:
    planned = plan(described(CASCADE), SIGNATURES)

    door, archive = planned.routes
    assert [step.sentence for step in door.steps] == [
        "ask faces about the picture",
        "cut face: everything that faces finds with 0 or more, at most 16",
        "ask smile about each of face",
    ]
    assert door.is_live
    assert not archive.is_live
    assert {step.model for step in archive.steps if isinstance(step, AskStep)} == {"faces", "smile", "scene"}


def test_crops_of_a_label_that_the_detector_never_says_are_refused_with_the_near_ones() -> None:
    wanted = changed('from = "faces"\n[models.smile]', 'from = "faces"\nlabels = ["face", "kitten"]\n[models.smile]')
    known = {"faces": {"detections": ("face", "kite", "mitten")}}

    with pytest.raises(ContractError, match="such as mitten, kite") as refused:
        plan(wanted, SIGNATURES, known)

    assert "crops face cuts 'kitten', and none of the 3 labels of model faces is that" in str(refused.value)
    assert plan(wanted, SIGNATURES, {"faces": {"detections": (*known["faces"]["detections"], "kitten")}})
    assert plan(wanted, SIGNATURES, {})


def test_a_sink_gets_the_models_it_names_and_else_all() -> None:
    lines, smiles = plan(described(CASCADE), SIGNATURES).deliveries

    assert (lines.models, lines.sources) == ({"faces", "smile", "scene"}, {"door", "archive"})
    assert (smiles.models, smiles.sources) == ({"smile"}, {"door", "archive"})


@pytest.mark.parametrize(
    ("old", "new", "because"),
    [
        ('from = ["door", "archive"]', 'from = ["dor", "archive"]', "model faces takes 'dor'.*; write door"),
        ('from = "face"', 'from = "faces"', 'takes the model faces; cut what faces found: .crops.NAME. with from = "f'),
        ('from = "face"', 'from = ["face", "door"]', "takes crops face and something else"),
        ('from = ["door", "archive"]', 'from = ["door", "door"]', "takes the same twice"),
        ('from = ["door", "archive"]', "from = []", "model faces takes nothing"),
        ('from = "faces"', 'from = "door"', 'cuts boxes out of source door, which finds none; .*kind = "grid"'),
        ('from = "faces"', 'from = "scene"', r"needs boxes, and model scene answers classes \(classes\)"),
        ('kind = "boxes"', 'kind = "grid"\nrows = 2\ncolumns = 2', "cuts a grid out of model faces"),
        ('kind = "boxes"', 'kind = "boxes"\noutput = "detection"', "no output with boxes; write detections"),
        ('from = ["smile"]', 'from = ["smiles"]', "sink smiles takes 'smiles', .*; write smile"),
        ("[sinks.smiles]", "[sinks.smile]", "smile names one of models and one of sinks"),
        ('[models.scene]\nrelease = "scene"\nfrom = "archive"', "", None),
        ('[models.smile]\nrelease = "smile"\nfrom = "face"', "", "nothing takes crop face"),
        ('path = "out.jsonl"', 'path = "out.jsonl"\nfrom = ["faces"]', "nothing takes model scene"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_what_would(old: str, new: str, because: str | None) -> None:
    description = _without_smile_sink(changed(old, new), because)

    if because is None:
        assert isinstance(plan(description, SIGNATURES), Plan)
    else:
        with pytest.raises(ContractError, match=because):
            plan(description, SIGNATURES)


def _without_smile_sink(description: Description, because: str | None) -> Description:
    """Where the model is gone, the sink that names it is in the way of what is tested."""
    import msgspec

    if because != "nothing takes crop face":
        return description
    return msgspec.structs.replace(description, sinks={"lines": description.sinks["lines"]})


def test_a_circle_is_named() -> None:
    text = CASCADE.replace('from = ["door", "archive"]', 'from = "smiling"')
    text += '[crops.smiling]\nkind = "boxes"\nfrom = "smile"\n'
    signatures = {**SIGNATURES, "smile": signature("detections")}

    with pytest.raises(ContractError, match=r"feed each other in a circle: .*→") as refused:
        plan(described(text), signatures)

    assert set(re.findall(r"faces|smiling|smile|face", str(refused.value))) >= {"faces", "smiling", "smile"}


def test_a_source_that_nobody_looks_at_is_refused() -> None:
    with pytest.raises(ContractError, match="no model takes source door"):
        plan(changed('from = ["door", "archive"]', 'from = "archive"'), SIGNATURES)


def test_a_model_of_sounds_is_no_part_of_a_pipeline() -> None:
    with pytest.raises(ContractError, match=r"put model scene into a pipeline: it takes image \(audio\)"):
        plan(described(CASCADE), {**SIGNATURES, "scene": signature(kind="audio")})


def test_a_video_never_mixes_the_frames_of_two_sources() -> None:
    with pytest.raises(ContractError, match="mix the frames of archive, door in one video"):
        plan(changed('kind = "jsonl"', 'kind = "video"'), SIGNATURES)


NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=2, max_size=8)


@given(st.data())
def test_whatever_is_planned_feeds_every_step_before_it_runs(data: st.DataObject) -> None:
    names = data.draw(NAMES)
    models, crops = names[::2], names[1::2]
    description = Description(
        name="any",
        sources={"s0": FilesSource(paths=["x"]), "s1": FilesSource(paths=["y"])},
        models={
            name: Model(
                release="r",  # type: ignore[arg-type]
                from_=data.draw(st.sampled_from([*crops, "s0", "s1"]) | st.just(["s0", "s1"])),
            )
            for name in models
        },
        crops={name: BoxCrops(from_=data.draw(st.sampled_from(models))) for name in crops},
        sinks={"out": TableSink()},
    )
    try:
        planned = plan(description, {name: signature("detections") for name in models})
    except ContractError:
        return

    asked: set[str] = set()
    for route in planned.routes:
        done: set[str | None] = {None}
        for step in route.steps:
            if isinstance(step, CutStep):
                assert step.detector in done
                done.add(step.crops)
            else:
                assert step.crops in done
                done.add(step.model)
                asked.add(step.model)
    assert asked == set(models)
    assert planned.deliveries[0].models == set(models)
