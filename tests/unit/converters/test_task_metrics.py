"""Metrics of detectors, segmenters, regressors and anomaly detectors, beside the libraries everybody uses."""

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import jaccard_score, r2_score, roc_auc_score

from converters.data.truth import MaskFile, TrueBoxes, Truth
from converters.errors import BadDataset, BadRecipe
from converters.evaluation.metrics.detection import BoxAgreement, MeanAveragePrecision
from converters.evaluation.metrics.metric import Metric, Reply, Score
from converters.evaluation.metrics.own_function import own_metric
from converters.evaluation.metrics.ranking import Auc
from converters.evaluation.metrics.regression import R2, MeanAbsoluteError, NumbersAgreement
from converters.evaluation.metrics.segmentation import MeanIou, PixelAgreement, read_mask
from edge_runtime.inference.checks.agreement import resized_map
from edge_runtime.inference.postprocessing.question_results import NO_CLASS, Anomaly, Boxes, Mask
from edge_runtime.inference.postprocessing.results import Result, Scored, Values

PICTURES = 6
NAN = float("nan")


def said(result: Result, **tensors: float) -> Reply:
    return Reply({name: np.array([[value]]) for name, value in tensors.items()}, {"out": result})


def judged(metric: Metric, *pairs: tuple[Result, Truth]) -> Score:
    for result, truth in pairs:
        metric.add(said(result), truth)
    return metric.score()


def boxes(*found: tuple[list[float], int, float]) -> Boxes:
    """Of (corners, class, score), best first."""
    corners = np.array([one[0] for one in found], np.float64).reshape(-1, 4)
    classes = tuple(one[1] for one in found)
    return Boxes(corners, classes, tuple(map(str, classes)), tuple(one[2] for one in found))


def true_boxes(*known: tuple[list[float], int], crowd: bool = False) -> TrueBoxes:
    corners = np.array([one[0] for one in known], np.float64).reshape(-1, 4)
    return TrueBoxes(corners, tuple(one[1] for one in known), (crowd,) * len(known))


def scene(seed: int) -> tuple[Boxes, TrueBoxes]:
    """Some objects, and what a detector that is often a little wrong makes of them."""
    rng = np.random.default_rng(seed)
    known: list[tuple[list[float], int]] = []
    found: list[tuple[list[float], int, float]] = []
    for _ in range(int(rng.integers(0, 5))):
        left, top = rng.uniform(0, 200, 2)
        corners = [left, top, left + rng.uniform(10, 90), top + rng.uniform(10, 90)]
        known.append((corners, int(rng.integers(0, 3))))
        if rng.uniform() < 0.8:
            moved = [edge + rng.normal(0, 6) for edge in corners]
            found.append((moved, known[-1][1] if rng.uniform() < 0.8 else 3, float(rng.uniform())))
    return boxes(*sorted(found, key=lambda one: -one[2])), true_boxes(*known)


def by_pycocotools(scenes: list[tuple[Boxes, TrueBoxes]], folder: Path) -> list[float]:
    """Precision from files, as its own documentation says."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for number, (found, known) in enumerate(scenes):
        for corners, label in zip(known.corners.tolist(), known.classes, strict=True):
            size = [corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]]
            annotations.append({"id": 100 + len(annotations), "image_id": number, "category_id": label, "bbox": size,
                                "area": size[2] * size[3], "iscrowd": 0})  # fmt: skip
        for corners, label, score in zip(found.boxes.tolist(), found.indices, found.scores, strict=True):
            size = [corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]]
            results.append({"image_id": number, "category_id": label, "bbox": size, "score": score})
    instances = {"images": [{"id": number} for number in range(len(scenes))], "annotations": annotations,
                 "categories": [{"id": label} for label in range(3)]}  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        known_set = COCO(str(folder / "instances.json"))
        evaluation = COCOeval(known_set, known_set.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:2]]


def test_mean_average_precision_equals_pycocotools(tmp_path, capsys) -> None:
    scenes = [scene(number) for number in range(12)]

    ours = [judged(MeanAveragePrecision(name, "out"), *scenes).value for name in ("map", "map50")]

    assert ours == pytest.approx(by_pycocotools(scenes, tmp_path), abs=1e-12)
    assert 0.1 < ours[0] < ours[1] < 1.0
    assert capsys.readouterr().out == ""


def test_a_detector_that_finds_everything_has_precision_one_and_a_blind_one_none() -> None:
    known = true_boxes(([10, 10, 50, 60], 2))

    perfect = judged(MeanAveragePrecision("map", "out"), (boxes(([10, 10, 50, 60], 2, 0.4)), known))
    blind = judged(MeanAveragePrecision("map", "out"), (boxes(), known))

    assert (perfect.value, blind.value) == (pytest.approx(1.0), 0.0)


def test_pictures_without_any_box_cannot_be_judged() -> None:
    with pytest.raises(BadDataset, match="no picture of the evaluation set has a box"):
        judged(MeanAveragePrecision("map", "out"), (boxes(([0, 0, 9, 9], 0, 0.9)), true_boxes()))


def test_detectors_agree_on_the_share_of_objects_that_both_find() -> None:
    first = boxes(([0, 0, 10, 10], 1, 0.9), ([50, 50, 60, 60], 2, 0.8), ([80, 0, 90, 9], 1, 0.3))
    moved = boxes(([1, 0, 11, 10], 1, 0.9), ([50, 50, 60, 60], 3, 0.8), ([80, 0, 90, 9], 1, 0.2))
    agreement = BoxAgreement("out", min_score=0.5)

    agreement.add(said(first), said(moved))

    assert agreement.score().value == 2 * 1 / 4


def test_detectors_that_find_nothing_agree() -> None:
    agreement = BoxAgreement("out", min_score=0.5)

    agreement.add(said(boxes()), said(boxes(([0, 0, 9, 9], 0, 0.4))))

    assert agreement.score().value == 1.0


def mask_file(folder: Path, classes: np.ndarray) -> MaskFile:
    path = folder / f"{len(list(folder.iterdir()))}.png"
    Image.fromarray(classes.astype(np.uint8)).save(path)
    return MaskFile(path)


@given(seed=st.integers(0, 1000))
def test_mean_iou_equals_scikit_learns_over_all_pixels(tmp_path_factory, seed: int) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("masks")
    known, found = rng.integers(0, 4, (2, 3, 5, 6))

    pairs = [
        (Mask(said_, (), frozenset()), mask_file(folder, right)) for right, said_ in zip(known, found, strict=True)
    ]
    score = judged(MeanIou("out"), *pairs)

    marked = np.unique(known)
    assert score.value == pytest.approx(jaccard_score(known.ravel(), found.ravel(), average="macro", labels=marked))
    assert score.ci95 is not None
    assert score.ci95[0] <= score.ci95[1]


def test_void_pixels_and_pixels_outside_the_crop_are_not_judged(tmp_path) -> None:
    known = mask_file(tmp_path, np.array([[1, 255], [1, 0]]))
    found = Mask(np.array([[1, 3], [-1, 0]]), (), frozenset())

    assert judged(MeanIou("out"), (found, known)).value == 1.0


def test_a_class_map_of_another_size_is_compared_by_its_nearest_pixels() -> None:
    small = np.array([[1, 2], [3, 4]])

    assert resized_map(small, (4, 4)).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_a_coloured_picture_is_no_mask(tmp_path) -> None:
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "a.png")

    with pytest.raises(BadDataset, match="its pixels are RGB, not class numbers"):
        judged(MeanIou("out"), (Mask(np.zeros((2, 2), int), (), frozenset()), MaskFile(tmp_path / "a.png")))


def test_segmenters_agree_on_the_share_of_equal_pixels() -> None:
    agreement = PixelAgreement("out")

    agreement.add(said(Mask(np.array([[1, 2], [3, -1]]), (), frozenset())),
                  said(Mask(np.array([[1, 2], [0, 5]]), (), frozenset())))  # fmt: skip

    assert agreement.score().value == pytest.approx(2 / 3)

    nothing = said(Mask(np.full((2, 2), NO_CLASS), (), frozenset()))
    agreement.add(said(Mask(np.array([[0, 1], [1, 1]]), (), frozenset())), nothing)

    assert agreement.score().value == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=3, max_size=30))
def test_r2_equals_scikit_learns(pairs) -> None:
    right, answers = np.array(pairs).T
    assume(np.ptp(right) > 1e-3)

    score = judged(R2("out"), *((Values((answer,), ""), (true,)) for answer, true in zip(answers, right, strict=True)))

    assert score.value == pytest.approx(r2_score(right, answers), rel=1e-6, abs=1e-6)


def test_the_mean_absolute_error_has_a_unit_and_an_interval_and_less_is_better() -> None:
    score = judged(
        MeanAbsoluteError("out"), (Values((1.0, 2.0), "m"), (2.0, 4.0)), (Values((0.0, 0.0), "m"), (0.5, 0.0))
    )

    assert (score.value, score.is_error) == (pytest.approx((1.5 + 0.25) / 2), True)
    assert score.ci95 is not None
    assert score.ci95[0] < score.value < score.ci95[1]


@pytest.mark.parametrize(
    ("result", "truth", "says"),
    [
        (Values((1.0,), ""), (1.0, 2.0), "answers 1, the truth has 2"),
        (Values((1.0,), ""), 3, "answer or truth are none"),
    ],
)
def test_numbers_that_cannot_be_compared_are_refused(result, truth, says) -> None:
    with pytest.raises(BadDataset, match=says):
        judged(R2("out"), (result, truth))


def test_equal_truths_have_no_variance_to_explain() -> None:
    with pytest.raises(BadDataset, match="all right answers are the same number"):
        judged(R2("out"), (Values((1.0,), ""), (5.1,)), (Values((2.0,), ""), (5.1,)))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=4, max_size=40))
def test_the_area_under_the_curve_equals_scikit_learns(pairs) -> None:
    labels = [label for label, _ in pairs]
    assume(0 < sum(labels) < len(labels))

    score = judged(Auc("out"), *((Anomaly(float(value), None), label) for label, value in pairs))

    assert score.value == pytest.approx(roc_auc_score(labels, [value for _, value in pairs]))
    assert score.ci95 is None or score.ci95[0] <= score.value <= score.ci95[1]


def test_delongs_interval_is_that_of_a_worked_example() -> None:
    # Won shares 1, 1, 2/3 and lost shares 0, 0, 1/3: variance (1/27)/3 + (1/27)/3, by hand.
    high, low = [3.0, 4.0, 1.5], [1.0, 0.0, 2.0]

    score = judged(Auc("out"), *((Scored(value), 1) for value in high), *((Scored(value), 0) for value in low))

    half = 1.959964 * (2 / 81) ** 0.5
    assert score.value == pytest.approx(8 / 9)
    assert score.ci95 == (pytest.approx(8 / 9 - half), 1.0)


@pytest.mark.parametrize(("labels", "says"), [([1, 1], "all samples are of one kind"), ([0, 2], "0 .normal. or 1")])
def test_an_anomaly_detector_needs_both_kinds_of_samples(labels, says) -> None:
    with pytest.raises(BadDataset, match=says):
        judged(Auc("out"), *((Anomaly(0.5, None), label) for label in labels))


@pytest.mark.parametrize(("other", "agrees"), [(1.0, 1.0), (NAN, 0.0), (2.0, None)])
def test_single_numbers_agree_by_the_variance_that_they_share(other, agrees) -> None:
    agreement = NumbersAgreement("y")

    for factor in (1.0, 2.0, 3.0):
        agreement.add(said(Values((), ""), y=factor), said(Values((), ""), y=factor * other))

    value = agreement.score().value
    assert value == agrees if agrees is not None else value < 0


def own(folder: Path, text: str, name: str) -> Metric:
    module = f"metric_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(text)
    return own_metric(f"{module}:{name}", "out", folder)


def test_a_function_of_the_engineers_is_averaged_over_the_samples(tmp_path) -> None:
    text = "def off_by(answer, truth):\n    return abs(answer.values[0] - truth[0])\noff_by.is_error = True\n"

    score = judged(own(tmp_path, text, "off_by"), (Values((1.0,), ""), (3.0,)), (Values((4.0,), ""), (3.0,)))

    assert (score.value, score.count, score.is_error) == (1.5, 2, True)


def test_a_class_of_the_engineers_says_what_is_no_mean(tmp_path) -> None:
    text = (
        "class Worst:\n    def __init__(self):\n        self.worst = 0.0\n"
        "    def add(self, answer, truth):\n        self.worst = max(self.worst, abs(answer.values[0] - truth[0]))\n"
        "    def score(self):\n        return self.worst\n"
    )

    score = judged(own(tmp_path, text, "Worst"), (Values((1.0,), ""), (3.0,)), (Values((4.0,), ""), (3.0,)))

    assert (score.value, score.count) == (2.0, 2)


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("x = 1", "missing", "has no attribute 'missing'"),
        ("1 / 0", "any", "ZeroDivisionError"),
        ("x = 1", "x", "neither a function nor a class"),
        ("def f(a, t):\n    return 'good'", "f", "it returned 'good'; return a finite number"),
        ("def f(a, t):\n    return float('nan')", "f", "it returned 'nan'"),
        ("def f(a, t):\n    raise KeyError('k')", "f", "it raised KeyError"),
    ],
)
def test_code_of_the_engineers_that_fails_is_named(tmp_path, text, name, says) -> None:
    with pytest.raises(BadRecipe, match=says):
        judged(own(tmp_path, text, name), (Values((1.0,), ""), (1.0,)))


def png(width: int, height: int, *, head: int = 0) -> bytes:
    """A grey picture that says of itself to be this large, and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    said = struct.pack(">IIBBBBB", width, height, 8, head, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", said) + chunk(b"PLTE", b"\0" * 800) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [png(40_000, 40_000), png(9_000, 9_000), png(4, 4), png(4, 4, head=3), b""])
def test_a_damaged_or_huge_mask_is_one_clear_error(tmp_path, content) -> None:
    (tmp_path / "m.png").write_bytes(content)

    with pytest.raises(BadDataset, match=r"cannot read mask m\.png"):
        read_mask(MaskFile(tmp_path / "m.png"))
