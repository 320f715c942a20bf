"""The digits releases that the guides speak of, built once from the example's own recipe without its int8 variants."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from converters.pipeline.build import build
from converters.pipeline.finishing import BuildOptions
from converters.planning.recipe import parse_recipe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPE = EXAMPLES / "quantize_and_ship" / "recipe.toml"
PICTURES = EXAMPLES / "fleet_on_a_laptop" / "model" / "live"


@pytest.fixture(scope="session")
def digits_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `python -m examples.quantize_and_ship` leaves it, with two later versions; read only."""
    out = tmp_path_factory.mktemp("digits") / "digits-out"
    out.mkdir()
    recipe = parse_recipe(RECIPE.read_bytes(), RECIPE.suffix)
    assert recipe.evaluation is not None
    less = msgspec.structs.replace(recipe.evaluation, max_samples=40)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        one = msgspec.structs.replace(recipe, version=version, precisions=["float32"], evaluation=less)
        build(one, BuildOptions(base=RECIPE.parent, out=out / f"digits-{version}"), lambda *_: None)
    return out


@pytest.fixture
def reader(digits_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of somebody who pastes what a guide shows, and has the example's release."""
    settle(tmp_path, digits_out)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settle(folder: Path, digits_out: Path) -> None:
    """Links to what the guides name, and the picture that they ask about."""
    (folder / "digits-out").symlink_to(digits_out)
    (folder / "examples").symlink_to(EXAMPLES)
    (folder / "photo.png").write_bytes((PICTURES / "digit-0059.png").read_bytes())
