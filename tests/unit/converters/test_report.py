import io

import pytest
from rich.console import Console

from converters.report.build_report import BuildReport, Row, columns_that_fit, print_report
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import Accuracy, By, Evidence, Latency, Where
from edge_runtime.contract.release import Waiver


def test_brackets_and_colons_of_others_are_printed_as_they_are() -> None:
    report = BuildReport(
        release="cats", version="1", out="/tmp/[bold]out", digest=Digest("sha256:00"), metric="top1", reference=0.5,
        count=3, where=Where(arch="x86_64", isa=[], cpu="CPU [rev 2]", execution="native", engine=""),
        rows=[Row(variant="ov-int8", engine="openvino", precision="int8", arch=[], verdict="refused:x",
                  because="node [conv/1] of :warning: is refused")],
        notes=["openvino is left out (pip install 'edgefleet[openvino]')"],
        waivers=[Waiver(check="golden", detail="class [red] is wrong")],
        failed_targets={"cpu": "see [blue]"},
    )  # fmt: skip
    printed = io.StringIO()

    print_report(report, Console(file=printed, width=200))

    for text in ("edgefleet[openvino]", "CPU [rev 2]", "node [conv/1] of :warning: is", "[red]", "[blue]", "[bold]out"):
        assert text in printed.getvalue()


NAMES = ("ort-float32-with-normalisation", "openvino-int8-percentile")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_narrow_terminal_breaks_no_word_and_loses_whole_columns_instead(width: int) -> None:
    rows = [evidence_row(name, "refused:kernel_mismatch") for name in NAMES]
    printed = io.StringIO()

    print_report(small_report(rows), Console(file=printed, width=width))

    text = printed.getvalue()
    for name in NAMES:
        (line,) = [line for line in text.splitlines() if name in line and "refused:kernel_mismatch" in line]
        assert "0.8810" in line
    assert ("left out, the window is narrow" in text) is (width < 140)


def test_every_column_stays_where_there_is_room() -> None:
    columns = {name: ["x" * 10] for name in ("variant", "size", "SNR own", "peak", "verdict")}

    assert columns_that_fit(columns, 200) == list(columns)
    assert columns_that_fit(columns, 50) == ["variant", "size", "SNR own", "verdict"]
    assert columns_that_fit({**columns, "size": ["-"]}, 50) == ["variant", "SNR own", "peak", "verdict"]
    assert columns_that_fit(columns, 10) == ["variant", "verdict"]


def evidence_row(name: str, verdict: str) -> Row:
    found = Evidence(
        variant=Digest("sha256:00"),
        release=None,
        at="2026-01-01T00:00:00Z",
        by=By(kind="build"),
        verdict=verdict,
        where=Where(arch="x86_64", isa=[], cpu="CPU", execution="native", engine=""),
        accuracy=Accuracy(metric="top1", value=0.881, count=3, own_snr_db=45.5, float_snr_db=22.1),
        latency_ms=Latency(p50=12.345, p95=13.0, ratio_to_float=0.87),
        peak_bytes=7 * 1024**2,
    )
    return Row(variant=name, engine="openvino", precision="int8", arch=[], verdict=verdict, size_bytes=1234567,
               drop=0.0123, evidence=found)  # fmt: skip


def small_report(rows: list[Row]) -> BuildReport:
    return BuildReport(
        release="cats", version="1", out="out", digest=Digest("sha256:00"), metric="top1", reference=0.5, count=3,
        where=None, rows=rows,
    )  # fmt: skip
