"""Which parts of a frame are cut out, and where answers about them lie in the frame."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.pipelines.cutting import cut_boxes, cut_grid, in_frame
from edge_runtime.pipelines.description import BoxCrops, GridCrops
from edge_runtime.pipelines.records import Region
from tests.fakes.pipelines import boxes, classes

SIZE = (100, 80)


def test_boxes_are_cut_best_first_with_their_margin_and_within_the_frame() -> None:
    found = boxes(("face", 0.7, (10.4, 10, 30, 50)), ("face", 0.9, (90, 70, 120, 90)))

    regions = cut_boxes("face", BoxCrops(from_="faces", margin=0.1), found, SIZE)

    assert [one.index for one in regions] == [0, 1]
    assert [(one.box, one.score) for one in regions] == [((87, 68, 100, 80), 0.9), ((8, 6, 32, 54), 0.7)]


def test_only_the_wanted_labels_scores_sizes_and_numbers_are_cut() -> None:
    found = boxes(
        ("cat", 0.9, (0, 0, 50, 50)), ("face", 0.4, (0, 0, 50, 50)), ("face", 0.8, (0, 0, 4, 50)),
        ("face", 0.7, (0, 0, 50, 50)), ("face", 0.6, (9, 9, 50, 50)), ("face", 0.5, (5, 5, 50, 50)),
    )  # fmt: skip
    rule = BoxCrops(from_="faces", labels=["face"], min_score=0.5, min_side_px=5, max=2)

    assert [one.score for one in cut_boxes("face", rule, found, SIZE)] == [0.7, 0.6]


def test_a_box_that_is_no_box_is_never_cut() -> None:
    found = boxes(
        ("a", 0.9, (math.nan, 0, 5, 5)), ("a", 0.9, (0, 0, math.inf, 5)), ("a", 0.9, (200, 0, 300, 5)),
        ("a", 0.9, (5, 5, 5, 9)), ("a", math.nan, (0, 0, 5, 5)),
    )  # fmt: skip

    assert cut_boxes("a", BoxCrops(from_="d"), found, SIZE) == []


EDGES = st.floats(-300, 300) | st.floats()


@given(st.lists(st.tuples(st.just("a"), st.floats(), st.tuples(EDGES, EDGES, EDGES, EDGES))), st.floats(0, 4))
def test_whatever_a_detector_says_a_region_is_part_of_the_frame(found, margin: float) -> None:
    regions = cut_boxes("a", BoxCrops(from_="d", margin=margin), boxes(*found), SIZE)

    assert all(0 <= one.box[0] < one.box[2] <= 100 and 0 <= one.box[1] < one.box[3] <= 80 for one in regions)
    assert [one.index for one in regions] == list(range(len(regions)))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_tiles_cover_every_pixel_once(rows: int, columns: int, width: int, height: int) -> None:
    regions = cut_grid("cell", GridCrops(from_="s", rows=rows, columns=columns), (width, height))

    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one.box for one in regions)]
    assert sum(areas) == width * height
    assert all(areas)


def test_boxes_found_in_a_crop_are_said_in_pixels_of_the_frame() -> None:
    answer = {"objects": boxes(("eye", 0.9, (1, 2, 3, 4))), "kind": classes("cat")}

    moved = in_frame(answer, Region("face", 0, (20, 30, 40, 50)))

    objects = moved["objects"]
    assert isinstance(objects, Boxes)
    assert objects.boxes.tolist() == [[21, 32, 23, 34]]
    assert moved["kind"] == classes("cat")
