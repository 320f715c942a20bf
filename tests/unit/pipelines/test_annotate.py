"""What is drawn onto a picture: seen on any ground, within the picture, its photo else untouched."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_runtime.inference.postprocessing.question_results import OUTSIDE, Mask
from edge_runtime.pipelines.annotate import PALETTE, annotate, colour_of
from edge_runtime.pipelines.records import Failure, Finding, Record, Region
from tests.fakes.pipelines import boxes, classes, frame

BOX = (100.0, 80.0, 220.0, 200.0)


def drawn(*findings: Finding, shade: int = 90, width: int = 400, height: int = 300, failures=()):
    picture = frame(width=width, height=height, shade=shade)
    return picture.picture, annotate(Record("entrance", picture, findings, failures))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before.astype(int) != after).any(axis=2)


def luma(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(float) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("index", range(len(PALETTE)))
@pytest.mark.parametrize("shade", [0, 90, 128, 200, 255])
def test_a_box_stands_out_on_every_ground_in_every_colour(shade: int, index: int) -> None:
    found = Finding("faces", {"objects": msgspec.structs.replace(boxes(("face", 0.9, BOX)), indices=(index,))})

    before, after = drawn(found, shade=shade)

    line = after[140, 90:110]
    assert np.abs(luma(line) - shade).max() >= 60
    assert (after[140, 110:210] == before[140, 110:210]).all(), "the photo inside is untouched"


def test_the_colour_of_a_class_is_its_own() -> None:
    assert len({colour_of(index) for index in range(len(PALETTE))}) == len(PALETTE)
    assert colour_of(0) == colour_of(len(PALETTE))


@pytest.mark.parametrize("box", [(0, 0, 400, 300), (-50, -50, 10, 10), (390, 290, 500, 500), (5, 5, 5, 5)])
def test_a_box_at_the_edge_keeps_its_text_in_the_picture(box) -> None:
    before, after = drawn(Finding("faces", {"objects": boxes(("a long label of a thing", 0.9, box))}))

    ink = changed(before, after)
    assert after.shape == before.shape
    assert ink.sum() > 400, "text and line are there"


def test_texts_of_neighbours_do_not_cover_each_other() -> None:
    near = boxes(("first", 0.9, BOX), ("second", 0.8, (102, 82, 222, 202)), ("third", 0.7, (98, 84, 218, 204)))

    _, after = drawn(Finding("faces", {"objects": near}))

    for index in range(3):
        fill = (after == colour_of(index)).all(axis=2)
        assert fill.sum() > 300, f"the ground of text {index} is seen"


def test_what_another_model_said_about_a_crop_stands_at_its_box() -> None:
    face = Finding("faces", {"objects": boxes(("face", 0.9, BOX))})
    region = Region("face", 0, (95, 75, 225, 205), "face", 0.9)
    alone, both = drawn(face)[1], drawn(face, Finding("smile", {"classes": classes("smiling")}, region))[1]

    ground = [(one == colour_of(0)).all(axis=2).sum() for one in (alone, both)]
    assert ground[1] > ground[0] * 1.2, "a second line made the ground larger"


def test_a_mask_tints_its_pixels_and_leaves_background_and_ignored_ones_clear() -> None:
    where = np.zeros((300, 400), np.int32)
    where[100:200, 100:200], where[220:260, 100:200], where[:, 390:] = 1, 2, OUTSIDE
    mask = Mask(where, ("background", "cat", "wall"), frozenset({2}))

    before, after = drawn(Finding("shape", {"mask": mask}))

    ink = changed(before, after)
    assert ink[105:195, 105:195].all()
    assert not ink[225:255, 105:195].any()
    assert not ink[60:95, 250:].any()


def test_a_mask_of_another_size_is_stretched_over_its_crop() -> None:
    mask = Mask(np.array([[1, 0], [0, 0]], np.int32), ("background", "cat"), frozenset())

    before, after = drawn(Finding("shape", {"mask": mask}, Region("face", 0, (200, 100, 300, 200))))

    ink = changed(before, after)
    assert ink[110:140, 210:240].all()
    assert not ink[160:190, 260:290].any()


def test_answers_about_the_whole_picture_and_failures_stand_in_its_corner() -> None:
    whole = Finding("scene", {"classes": classes("street")})
    before, after = drawn(whole, failures=(Failure("faces", "it broke"),))

    ink = changed(before, after)
    assert ink[:20, :60].all()
    assert not ink[150:].any()


def test_a_tiny_picture_is_drawn_on_as_well() -> None:
    found = Finding("faces", {"objects": boxes(("face", 0.9, (1, 1, 3, 3)))})

    before, after = drawn(found, Finding("scene", {"classes": classes("street")}), width=4, height=3)

    assert after.shape == before.shape
