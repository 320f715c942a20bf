"""The guides about data, metrics and other frameworks: their recipes are recipes, their tables complete."""

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from typer.main import get_command

from converters.cli.main import app
from converters.evaluation.metrics.choose import METRICS, USUAL
from converters.planning.recipe import check_recipe, parse_recipe
from converters.planning.recipe_outputs import OutputKind

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
JUDGE, FRAMEWORKS = ((GUIDES / name).read_text() for name in ("judge-a-model.md", "scikit-learn-and-pytorch.md"))
WHOLE: dict[str, Any] = {
    "model": "m.onnx", "name": "m", "version": "1", "task": "t", "targets": ["cpu"], "precisions": ["float32"],
    "inputs": {"x": {"tensor": "x", "kind": "tensor"}}, "outputs": {"y": {"tensor": "y", "kind": "tensor"}},
    "evaluation": {"folder": "e"},
}  # fmt: skip


def blocks(page: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("block", blocks(JUDGE))
def test_a_part_of_a_recipe_on_the_page_fits_into_one(block: str) -> None:
    raw = {**WHOLE, **msgspec.toml.decode(block)}

    check_recipe(parse_recipe(msgspec.json.encode(raw), ".json"))


def test_the_recipe_of_a_pipeline_is_a_recipe() -> None:
    (block,) = blocks(FRAMEWORKS)

    assert parse_recipe(block.encode(), ".toml").model == "iris.skops"


def test_the_table_of_metrics_names_each_with_the_usual_one_first() -> None:
    rows = re.findall(r"^\| (`[a-z`, ]+) \| (.+?) \| .+ \|$", JUDGE, re.MULTILINE)
    told = {kind: re.findall(r"`(\w+)`", metrics) for kinds, metrics in rows for kind in re.findall(r"`(\w+)`", kinds)}

    assert told.keys() == set(get_args(OutputKind))
    assert {name for metrics in told.values() for name in metrics} == set(METRICS)
    families = {"detections": "boxes", "segmentation": "mask"}
    assert all(metrics[:1] == [USUAL[families.get(kind, kind)]] for kind, metrics in told.items() if metrics)  # type: ignore[index]


@pytest.mark.parametrize("page", [JUDGE, FRAMEWORKS])
def test_every_option_on_the_page_exists(page: str) -> None:
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    known = {flag for command in commands for parameter in command.params for flag in parameter.opts}

    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", page)) <= known
