"""The guide to metrics names exactly those that there are, with their labels."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.client.local import LocalClient
from edge_runtime.doors.local.door import LocalDoor
from edge_runtime.doors.metrics import EventCounter, ServingMetrics
from edge_runtime.serving.events import Happened
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.seating import ServedState
from tests.fakes.pixels import picture, write_pixels

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "watch-a-server-with-prometheus.md"
SELECTED = re.compile(r"(edge_runtime_\w+)(?:\{(\w+)=~?\"([\w|]+)\"\})?")
ROW = re.compile(r"^\| `(edge_runtime_\w+)` \| ([\w, ]*) ?\| (.*) \|$", re.MULTILINE)


def test_the_guide_names_every_metric_with_its_labels(tmp_path: Path) -> None:
    write_pixels(tmp_path / "release", "1.0.0")
    events = EventCounter()
    with (
        ModelHost(on_event=events) as host,
        LocalDoor(host, tmp_path / "s") as door,
        LocalClient(str(door.path)) as client,
    ):
        host.load(tmp_path / "release")
        client.infer("pixels", {"image": picture(0)[None]})
        page = ServingMetrics(host, events, lambda: [door]).page().decode()

    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    for expression in re.findall(r"(?:expr: |^)(.*edge_runtime_\w+.*[>=)].*)$", GUIDE.read_text(), re.MULTILINE):
        for name, label, values in () if expression.startswith("|") else SELECTED.findall(expression):
            found = [sample for sample in samples if sample.name == name]
            told_values = {sample.labels.get(label) for sample in found}
            assert found, expression
            assert not label or set(values.split("|")) <= told_values, expression
    there = {
        re.sub(r"_(bucket|count|sum)$", "", sample.name) if family.type == "histogram" else sample.name: {
            label for label in sample.labels if label != "le"
        }
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("edge_runtime")
    }
    rows = ROW.findall(GUIDE.read_text())
    told = {name: {label for label in labels.strip().split(", ") if label} for name, labels, _ in rows}
    assert told == there


def test_the_guide_names_every_state_event_and_outcome() -> None:
    text = GUIDE.read_text()

    for value in (*(one.value for one in ServedState), *(one.value for one in Happened)):
        assert f"`{value}`" in text, value
