"""The guide to pipelines: what it shows is a pipeline, its tables are complete, its code runs, its options exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from edge_runtime.cli.main import assemble
from edge_runtime.pipelines.description import Crops, Sink, Source
from edge_runtime.pipelines.planner import plan
from edge_runtime.pipelines.reading import parse_description
from edge_runtime.pipelines.records import Finding, Record, Region, record_json
from tests.fakes.pipelines import boxes, classes, frame, signature

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "run-a-camera-pipeline.md").read_text()
EXAMPLE = ROOT / "examples" / "camera_counter"


def block(language: str) -> str:
    """The last one: the first pipeline has a test of its own."""
    return str(re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[-1])


def test_the_first_pipeline_on_the_page_reads_a_folder_of_digits(reader: Path) -> None:
    (reader / "digits.toml").write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])

    done = CliRunner().invoke(assemble(), ["pipeline", "digits.toml"])

    assert done.exit_code == 0
    answers = [json.loads(line) for line in (reader / "digits.jsonl").read_text().splitlines()]
    assert len(answers) == len(list((EXAMPLE.parent / "fleet_on_a_laptop" / "model" / "live").glob("*.png")))
    assert f"delivered {len(answers)} to screen, {len(answers)} to archive" in done.stderr


@pytest.mark.parametrize(("kind", "title"), [(Source, "source"), (Crops, "crop"), (Sink, "sink")])
def test_every_key_of_every_kind_has_its_row(kind: Any, title: str) -> None:
    table = re.search(rf"^\| {title} \| key \|.*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
    assert table is not None
    told: dict[str, set[str]] = {}
    owner = ""
    for first, keys in re.findall(r"^\| (.*?) ?\| (.*?) ?\|", table[0], re.MULTILINE)[1:]:
        owner = first.strip("` ") or owner
        told.setdefault(owner, set()).update(re.findall(r"`(\w+)`", keys))
    shared = told.pop("each", set())

    there = {str(one.__struct_config__.tag): set(one.__struct_encode_fields__) for one in get_args(kind)}

    assert {owner: keys | shared for owner, keys in told.items()} == there


def a_record() -> Record:
    found = Finding("people", {"objects": boxes(("person", 0.91, (4, 9, 20, 40)), ("person", 0.7, (30, 9, 50, 40)))})
    region = Region("person", 0, (3, 8, 22, 43), "person", 0.91)
    return Record("entrance", frame(17), (found, Finding("helmet", {"classes": classes("helmet", 0.97)}, region)))


def test_the_pipeline_on_the_page_can_be_planned() -> None:
    planned = plan(
        parse_description(block("toml").encode(), Path("/p/entrance.toml")),
        {"people": signature("detections"), "helmet": signature()},
    )

    assert len(planned.routes[0].steps) == 3


@pytest.mark.parametrize(("kind", "title"), [(Source, "sources"), (Crops, "crops"), (Sink, "sinks")])
def test_every_kind_has_its_row(kind: Any, title: str) -> None:
    table = re.search(rf"^\| {title} \|.*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
    assert table is not None

    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]+)\|", table[0], re.MULTILINE)))

    assert set(named) == {str(one.__struct_config__.tag) for one in get_args(kind)}


def test_the_record_on_the_page_has_the_fields_of_a_real_one() -> None:
    shown = json.loads(block("json"))
    real = json.loads(json.dumps(record_json(a_record())))

    assert shown.keys() == real.keys()
    for one, other in zip(shown["findings"], real["findings"], strict=True):
        assert one.keys() == other.keys()
    assert shown["findings"][1]["crop"].keys() == real["findings"][1]["crop"].keys()


def test_the_function_on_the_page_counts(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)

    names["count"](a_record())

    assert capsys.readouterr().out == "frame 17: 2 people, 1 helmets\n"


def test_every_option_on_the_page_exists() -> None:
    command = get_command(assemble()).commands["pipeline"]  # type: ignore[attr-defined]
    known = {flag for parameter in command.params for flag in parameter.opts}

    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", PAGE)) <= known


@pytest.mark.parametrize("name", ["digits.toml", "objects.toml"])
def test_the_pipelines_of_the_example_can_be_planned(name: str) -> None:
    described = parse_description((EXAMPLE / name).read_bytes(), EXAMPLE / name)

    assert plan(described, {model: signature("detections") for model in described.models}).routes
