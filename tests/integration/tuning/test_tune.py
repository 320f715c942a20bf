"""`edge-runtime tune` on a real engine: what wins is kept, used, and forgotten; what answers wrongly never wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge_runtime import Model
from edge_runtime.cli.main import assemble
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.layout import LayoutFolder, open_variant
from edge_runtime.inference.tuned import read_choices
from edge_runtime.tuning.target import open_target
from edge_runtime.tuning.tune import TuneSettings, tune
from tests.fakes.models import Build, four_pixel_classifier
from tests.fakes.pixels import picture, write_pixels

pytest.importorskip("onnxruntime")

REVERSED = four_pixel_classifier(np.eye(4, dtype=np.float32)[::-1].copy())
"""Loads, and answers wrongly."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound variant, and a broken one that would otherwise come first."""
    folder = tmp_path_factory.mktemp("release") / "pixels"
    write_pixels(folder, "1.0.0", builds=[Build("a-broken", content=REVERSED), Build("b-sound")])
    return folder


def ran(*arguments: str | Path) -> Any:
    line = ["tune", "--backend", "onnxruntime", "--seconds", "0.5", *map(str, arguments)]
    result = CliRunner().invoke(assemble(), line)
    if isinstance(result.exception, EdgeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def spoil(release: Path, digest: Digest) -> None:
    blob = release / "blobs" / "sha256" / str(digest).partition(":")[2]
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)


def photo(folder: Path) -> Path:
    Image.fromarray(picture(2)[:, :, 0]).save(folder / "photo.png")
    return folder / "photo.png"


def test_a_variant_that_answers_wrongly_never_wins_and_the_choice_is_used(release: Path, tmp_path: Path) -> None:
    document = json.loads(ran(release, "--state", tmp_path, "--json").stdout)

    (winner,) = [row for row in document["rows"] if row["is_winner"]]
    assert winner["variant"] == "b-sound"
    assert all("failed the golden check" in row["verdict"] for row in document["rows"] if row["variant"] == "a-broken")
    assert "a-broken" not in {row["variant"] for row in document["rows"] if row["ratio"] is not None}
    with Model.open(release, backends=["onnxruntime"], tuned=tmp_path) as model:
        assert model.variant_id == "b-sound"
    asked = ["run", release, photo(tmp_path), "--backend", "onnxruntime", "--json"]
    variants = [
        json.loads(CliRunner().invoke(assemble(), [*map(str, asked), *options]).stdout)["variant"]
        for options in ([], ["--tuned", str(tmp_path)])
    ]
    assert variants == ["a-broken", "b-sound"]
    described = CliRunner().invoke(assemble(), ["describe", str(release), "--tuned", str(tmp_path), "--json"])
    first = json.loads(described.stdout)["variants"][0]
    assert (first["id"], first["tuned"]["because"]) == ("b-sound", document["sentence"])


def test_a_person_reads_what_was_tried_and_why(release: Path, tmp_path: Path) -> None:
    output = ran(release, "--state", tmp_path, "--variant", "b-sound").stdout

    assert "pixels 1.0.0, asked 4 golden samples" in output
    assert "taken" in output
    assert f"kept in {tmp_path}" in output.replace("\n", "")


def test_what_there_was_no_time_for_is_said(release: Path, tmp_path: Path) -> None:
    target = open_target(release)
    settings = TuneSettings(tmp_path, variant="b-sound", backends=("onnxruntime",), seconds=0.0)

    report = tune(target, settings, lambda _what, _share: None)

    assert report.rows[0].is_winner
    assert {row.verdict for row in report.rows[1:]} == {"not tried: the time was up"}


def test_a_variant_that_does_not_load_is_said_and_another_taken(tmp_path: Path) -> None:
    write_pixels(tmp_path / "r", "1.0.0", builds=[Build("a-torn", content=b"no model"), Build("b-sound")])

    rows = json.loads(ran(tmp_path / "r", "--state", tmp_path / "s", "--json").stdout)["rows"]

    said = {row["variant"] for row in rows if row["verdict"].startswith("did not load: cannot open variant a-torn: ")}
    assert said == {"a-torn"}
    assert {row["variant"] for row in rows if row["is_winner"]} == {"b-sound"}


@pytest.mark.parametrize("corrupt", ["manifest", "file"])
def test_a_corrupt_variant_is_said_and_a_sound_one_taken(tmp_path: Path, corrupt: str) -> None:
    write_pixels(tmp_path / "r", "1.0.0", builds=[Build("a-torn", content=REVERSED), Build("b-sound")])
    folder = LayoutFolder(tmp_path / "r")
    entry = next(one for one in folder.open().index.variants if one.id == "a-torn")
    variant = open_variant(folder, entry)
    file = variant.layers.descriptor(variant.manifest.files[0].layer)
    spoil(tmp_path / "r", variant.digest if corrupt == "manifest" else file.digest)

    rows = json.loads(ran(tmp_path / "r", "--state", tmp_path / "s", "--json").stdout)["rows"]

    said = {row["variant"] for row in rows if row["verdict"].startswith("did not load: cannot accept blob ")}
    assert said == {"a-torn"}
    assert {row["variant"] for row in rows if row["is_winner"]} == {"b-sound"}


def test_of_several_providers_the_one_that_works_is_kept_and_used(tmp_path: Path) -> None:
    builds = [Build("two", providers=("openvino", "cpu"), options={"intra_op_threads": 1})]
    write_pixels(tmp_path / "r", "1.0.0", builds=builds)

    rows = json.loads(ran(tmp_path / "r", "--state", tmp_path / "s", "--json").stdout)["rows"]

    said = {row["provider"]: row["verdict"] for row in rows}
    assert "not OpenVINOExecutionProvider" in said["openvino"]
    assert not said["cpu"].startswith("did not load")
    with pytest.raises(EdgeError, match="does not run on provider 'cuda'"):
        Model.open(tmp_path / "r", provider="cuda")


def test_forgetting_is_said_and_the_usual_variant_is_back(release: Path, tmp_path: Path) -> None:
    ran(release, "--state", tmp_path)
    assert read_choices(tmp_path)

    assert "forgot what was tuned for pixels 1.0.0" in ran(release, "--state", tmp_path, "--forget").stderr
    assert read_choices(tmp_path) == ()
    assert "nothing was tuned for pixels 1.0.0" in ran(release, "--state", tmp_path, "--forget").stderr


def test_a_release_of_which_nothing_may_run_is_refused(tmp_path: Path) -> None:
    write_pixels(tmp_path / "r", "1.0.0", builds=[Build("broken", content=REVERSED)])

    with pytest.raises(EdgeError, match="cannot tune it: failed the golden check"):
        ran(tmp_path / "r", "--state", tmp_path / "s")
    assert not (tmp_path / "s").exists()
