"""The demo's three releases: one built with care, one carelessly, one from a model that learned nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.layout import LayoutFolder
from examples.fleet_on_a_laptop.stage import DemoFailure, Stage

RECIPES: Final = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class BuiltRelease:
    """A release folder and its digest."""

    folder: Path
    version: str
    digest: Digest
    table: str


def launch_build(stage: Stage, number: int, folder: Path, *options: str | Path) -> None:
    """Start `edge-convert build` on one of the recipes; it goes on while the fleet does something else."""
    recipe = RECIPES / f"release-{number}.toml"
    stage.launch(folder.name, "converters.cli", "build", "--recipe", recipe, "-o", folder, "--no-cache", *options)


def collect_build(stage: Stage, folder: Path) -> BuiltRelease:
    """Wait for a build. Raises: DemoFailure with what it said."""
    finished = stage.collect(folder.name)
    if finished.status != 0:
        raise DemoFailure(f"edge-convert build {folder.name}: {finished.errors.strip()[-400:]}")
    return read_built(folder, finished.output)


def read_built(folder: Path, table: str = "") -> BuiltRelease:
    """A release that an earlier run built."""
    release = LayoutFolder(folder).open()
    return BuiltRelease(folder, release.manifest.version, release.digest, table)


def waivers(release: BuiltRelease) -> list[str]:
    """The defences that somebody switched off when the release was built, as its manifest records them."""
    return [waiver.check for waiver in LayoutFolder(release.folder).open().manifest.waivers]


def calibration_name(release: BuiltRelease) -> str | None:
    """The calibration folder's name, as the manifest records it."""
    calibration = LayoutFolder(release.folder).open().manifest.calibration
    return None if calibration is None else calibration.name
