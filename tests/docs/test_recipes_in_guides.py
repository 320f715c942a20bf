"""Recipes in the guides are recipes, whole or as the parts they show."""

import json
import re
import tomllib
import typing
from pathlib import Path

import pytest

from converters.planning.recipe import parse_recipe
from edge_runtime.contract.question_steps import Detect
from edge_runtime.contract.steps import POSTPROCESS, PREPROCESS
from tests.unit.converters.test_recipe import GOOD

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PARTS = [
    (page, number, block)
    for page in ("describe-inputs-and-answers.md", "quantise-a-detector.md")
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", (GUIDES / page).read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "number", "block"), PARTS)
def test_a_part_of_a_recipe_on_a_page_fits_into_a_recipe(page: str, number: int, block: str) -> None:
    recipe = parse_recipe(json.dumps({**GOOD, **tomllib.loads(block)}).encode(), ".json")

    assert recipe.name == tomllib.loads(block).get("name", "cats"), (page, number)


def test_every_step_of_a_recipe_is_explained() -> None:
    page = (GUIDES / "describe-inputs-and-answers.md").read_text()
    detectors = (GUIDES / "quantise-a-detector.md").read_text()

    for op in (*PREPROCESS, *POSTPROCESS):
        assert op == "tokenize" or f"`{op}`" in page or f"`{op}`" in detectors, op


def test_every_family_of_detectors_is_explained() -> None:
    families = typing.get_args(typing.get_type_hints(Detect)["family"])

    assert set(families) <= set(re.findall(r"`([a-z0-9_]+)`", (GUIDES / "quantise-a-detector.md").read_text()))


@pytest.mark.parametrize("field", ["activation", "box_format", "box_units"])
def test_every_value_of_a_detectors_field_is_listed(field: str) -> None:
    values = typing.get_args(typing.get_type_hints(Detect)[field])
    page = (GUIDES / "quantise-a-detector.md").read_text()

    (row,) = re.findall(rf"^\| `{field}` \|(.*)\|$", page, re.MULTILINE)

    assert set(re.findall(r"`([a-z0-9_]+)`", row)) == set(values)
