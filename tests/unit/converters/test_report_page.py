"""The page of a report: whole without anything else, and nothing in it speaks for itself."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from converters.caching.stages import StageEvent
from converters.evaluation.disagreement import Disagreements, Example
from converters.pipeline.pictures import data_uri
from converters.planning.sensitivity import CurvePoint, LayerError, Sensitivity
from converters.report.build_report import BuildReport, DataSet, Row, as_json
from converters.report.page import report_page
from converters.report.plot import Point, chart_of
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import Accuracy, By, CheckResult, Evidence, Latency, Where
from edge_runtime.contract.release import Limits, Source, Waiver

EVIL = "<script>alert(1)</script>\"'&{{7*7}}"
WHERE = Where(arch="x86_64", isa=["avx2"], cpu="AMD EPYC", execution="native", engine="onnxruntime 1.32.0")


def evidence(verdict: str, value: float, p50: float, where: Where = WHERE) -> Evidence:
    return Evidence(
        variant=Digest("sha256:1"), release=None, at="2026-01-01T00:00:00Z", by=By(kind="build"), where=where,
        verdict=verdict, accuracy=Accuracy(metric="top1", value=value, count=60, agreement=0.9, own_snr_db=5.6),
        latency_ms=Latency(p50=p50, p95=p50 * 1.2, ratio_to_float=0.5), peak_bytes=3_000_000, size_bytes=1000,
        checks=[CheckResult(against="own", metric="snr_db", value=None, passed=False, min=30.0)],
    )  # fmt: skip


def report(text: str = "plain", **changes: object) -> BuildReport:
    rows = [
        Row(variant="ort-float32", engine="onnxruntime", precision="float32", arch=["x86_64"], verdict="shipped",
            size_bytes=4000, drop=0.0, evidence=evidence("shipped", 0.99, 2.0)),
        Row(variant=text, engine="onnxruntime", precision="int8", arch=[], verdict="refused:kernel_mismatch",
            because=text, size_bytes=1000, drop=0.6, method=text,
            evidence=evidence("refused", 0.37, 0.5, msgspec.structs.replace(WHERE, cpu=text)),
            sensitivity=Sensitivity(
                samples=8, base_db=6.0, weights_db=9.0, curve=[CurvePoint(nodes=[text], snr_db=12.0)],
                layers=[LayerError(node=text, op="Conv", alone_db=7.5, gain_db=0.5)],
            ),
            worst=[Example(position=3, distance=0.5, source=text, candidate=text, name=text)]),
        Row(variant="openvino-int8", engine="openvino", precision="int8", arch=[], verdict="refused:compile_failed",
            because="an operator is unknown"),
        Row(variant="ort-int8-entropy", engine="onnxruntime", precision="int8", arch=[], verdict="skipped:not_needed",
            because=text),
    ]  # fmt: skip
    made = BuildReport(
        release=text, version="1.0.0", out="out", digest=Digest("sha256:2"), metric="top1", reference=0.9944, count=60,
        where=WHERE, rows=rows, notes=[text], waivers=[Waiver(check="accuracy_gate", detail=text)],
        failed_targets={"coral-usb": text}, targets={"x86-64-cpu": ["ort-float32"], "coral-usb": []},
        limits=Limits(max_drop={"*": 0.01}), source=Source(digest=Digest("sha256:3"), format="onnx", opset=13),
        calibration=DataSet(name=text, count=64), evaluation=DataSet(name=text, count=60), tools={text: text},
        command=f"edge-convert build {text}", preprocess={"input": [{"op": "decode", "color": text}]},
        stages=[StageEvent(kind="compile", subject=text, state="cached")],
        pictures={"3": data_uri(np.zeros((1, 8, 8, 1), np.uint8))},
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


class Outside(HTMLParser):
    """Collects whatever a page would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "object", "embed", "base", "form"}:
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in {"src", "href", "srcset"} and not (value or "").startswith("data:")):
                self.found.append(f"{tag} {name}={value}")


def outside(page: str) -> list[str]:
    parser = Outside()
    parser.feed(page)
    return parser.found + re.findall(r"@import|url\(", page)


def test_the_page_runs_nothing_and_fetches_nothing_even_when_names_try_to() -> None:
    assert outside(report_page(report(EVIL))) == []
    assert outside("<script></script><img src='http://a/b.png' onload='x'>") != []


def test_names_from_models_stand_in_the_page_as_text() -> None:
    page = report_page(report(EVIL))

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{7*7}}" in page


def test_the_page_says_what_ships_what_does_not_and_why() -> None:
    page = report_page(report("7 layers saturate"))

    for text in ("1 variant ships", "2 were refused", "1 of 2 targets are served", "kernel mismatch",
                 "7 layers saturate", "Switched off: accuracy_gate", "No variant for coral-usb", "AMD EPYC",
                 "edge-convert build 7 layers saturate", "1 more were not needed", "from the cache",
                 "7.5 dB", "an operator is unknown"):  # fmt: skip
        assert text in page, text


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": []},
        {"reference": None, "limits": Limits(), "source": None, "calibration": None},
        {"targets": {}, "pictures": {}, "stages": [], "tools": {}},
    ],
    ids=["nothing tried", "no labels", "bare"],
)
def test_what_is_not_known_is_left_out(changes: dict[str, object]) -> None:
    page = report_page(report(**changes))

    assert page.rstrip().endswith("</html>")
    assert "None" not in page


def test_pictures_are_in_the_page_and_never_in_the_json() -> None:
    made = report()

    assert "data:image/png;base64," in report_page(made)
    assert "base64" not in as_json(made)
    assert msgspec.json.decode(as_json(made), type=BuildReport).rows == made.rows


def test_large_pictures_become_small_ones() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (1, 900, 1200, 3), dtype=np.uint8)

    uri = data_uri(noise)

    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 20_000


def test_marks_lie_inside_the_chart_and_better_means_higher_and_further_left() -> None:
    slow, fast = Point("slow", 20.0, 0.9, 4000, True), Point("fast", 0.5, 0.95, 1000, True)

    chart = chart_of([slow, fast, Point("bad", 5.0, 0.2, 9, False)], [(0.94, "budget")])

    assert chart is not None
    marks = {mark.point.name: mark for mark in chart.marks}
    assert marks["fast"].x < marks["bad"].x < marks["slow"].x
    assert marks["fast"].y < marks["slow"].y < marks["bad"].y
    assert all(chart.left <= mark.x <= chart.right and chart.top <= mark.y <= chart.bottom for mark in chart.marks)
    assert all(chart.top <= level.y <= chart.bottom for level in chart.levels)
    assert len({tick.text for tick in chart.y_ticks}) == len(chart.y_ticks) >= 2


def test_labels_of_equal_candidates_do_not_cover_each_other() -> None:
    chart = chart_of([Point(str(number), 1.0 + number, 0.9, 100, True) for number in range(14)], [])

    assert chart is not None
    heights = sorted(mark.label_y for mark in chart.marks)
    assert all(later - earlier >= 16 for earlier, later in pairwise(heights))


def test_nothing_measured_gives_no_chart() -> None:
    assert chart_of([], []) is None
    assert chart_of([Point("x", 0.0, 0.9, 1, True), Point("y", 1.0, float("nan"), 1, True)], []) is None


def test_the_farthest_samples_are_kept_other_answers_first() -> None:
    found = Disagreements(kept=2)
    for position, (answer, text) in enumerate([(1.0, "8 (0.9)"), (1.4, "8 (0.8)"), (1.1, "3 (0.5)"), (1.2, "8 (0.7)")]):
        found.add(position, np.array([1.0]), np.array([answer]), lambda text=text: ("8 (0.9)", text))

    worst = found.worst()

    assert [example.position for example in worst] == [2, 1]
    assert [example.differs for example in worst] == [True, False]
    assert worst[1].distance == pytest.approx(0.4)


def test_an_answer_that_is_not_a_number_is_the_farthest_and_equal_ones_are_none() -> None:
    found = Disagreements()
    found.add(0, np.array([1.0]), np.array([1.0]), lambda: ("a", "a"))
    found.add(1, np.array([1.0]), np.array([np.nan]), lambda: ("a", "a"))

    assert [(example.position, example.distance) for example in found.worst()] == [(1, None)]


def test_without_labels_agreement_is_one_column_and_no_score_is_claimed() -> None:
    unlabelled = report_page(report(metric="agreement", reference=None, ci95=[]))
    labelled = report_page(report())

    assert unlabelled.count('<th class="n">agreement</th>') == labelled.count('<th class="n">agreement</th>') == 1
    assert "agreement of the source model" not in unlabelled
    assert "<b>no labels</b>" in unlabelled
    for page in (unlabelled, labelled):
        heads, cells = (re.findall(f"<{tag}[ >]", block) for tag, block in (
            ("th", page.split("<h2>Candidates</h2>")[1].split("</tr>")[0]),
            ("td", page.split("<h2>Candidates</h2>")[1].split("</tr>")[1])))  # fmt: skip
        assert len(heads) == len(cells)
