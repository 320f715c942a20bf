"""The demo's three releases, built from the committed model with less evaluation, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from converters.pipeline.build import build
from converters.pipeline.finishing import BuildOptions
from converters.planning.recipe import Recipe, parse_recipe
from converters.report.build_report import BuildReport

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "fleet_on_a_laptop" / "recipes"


@dataclass(frozen=True)
class BuiltDigits:
    """A release folder and what was found while it was built."""

    folder: Path
    report: BuildReport


def recipe_of(number: int, **changes: object) -> Recipe:
    """One of the demo's recipes, for ONNX Runtime alone and with sixty evaluation samples."""
    path = RECIPES / f"release-{number}.toml"
    recipe = parse_recipe(path.read_bytes(), path.suffix)
    small = msgspec.structs.replace(recipe.evaluation, max_samples=60)
    return msgspec.structs.replace(recipe, **{"engines": ["onnxruntime"], "evaluation": small, **changes})


def build_digits(out: Path, recipe: Recipe, **options: Any) -> BuiltDigits:
    """Build a recipe of the demo into a new folder."""
    return BuiltDigits(out, build(recipe, BuildOptions(base=RECIPES, out=out, **options), lambda *_: None))


def build_all(folder: Path) -> Path:
    """All three releases, as the demo's `--built` option wants them; returns the folder."""
    careful = build_digits(folder / "release-1", recipe_of(1))
    build_digits(folder / "release-2", recipe_of(2), accuracy_gate=False)
    build_digits(folder / "release-3", recipe_of(3), golden_from=careful.folder, allow_failed_golden=True)
    return folder
