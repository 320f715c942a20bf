import io

from rich.console import Console

from converters.report.build_report import BuildReport, Row, print_report
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import Where
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
