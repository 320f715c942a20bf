"""What `edge-runtime describe` says of a release, and that nothing is loaded for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters.release.signing import keygen, sign_release
from edge_runtime.cli.main import assemble
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.inference.description import describe
from edge_runtime.inference.model import Model
from edge_runtime.trust.keys import SigningKey
from tests.fakes.installed import write_state
from tests.fakes.models import Build, SpyBackend, write_release
from tests.fakes.pixels import write_pixels
from tests.fakes.tuned import tuned_here

NOW = 1_795_000_000.0


def said(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(assemble("describe"), ["describe", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def release(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "pixels"
    write_release(folder, [Build("ort-float32"), Build("other", engine="abacus"), Build("arm", arch=("armv9",))])
    return folder


def test_a_release_is_described_on_one_screen(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.rstrip() for line in said(monkeypatch, release).splitlines()]

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "release  pixels 1.0.0, image_classification, licence Apache-2.0" in lines
    assert "takes    image: image, uint8 [N, 2, 2, 1], gray, as png/tensor" in lines
    assert "answers  classes: classes, 4 labels, numbers as logits" in lines
    assert any(line.startswith("ort-float32 ") and line.endswith("fits, first choice") for line in lines)
    assert any(line.startswith("other ") and line.endswith("the device has no abacus") for line in lines)
    assert "it is built for armv9" in "\n".join(lines)


def test_a_program_gets_the_same(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(said(monkeypatch, release, "--json"))

    assert (document["name"], document["version"], document["signed"]) == ("pixels", "1.0.0", None)
    assert document["inputs"][0]["shape"] == ["N", 2, 2, 1]
    assert document["outputs"][0]["labels"] == 4
    assert [(one["id"], one["place"]) for one in document["variants"]] == [
        ("ort-float32", 1), ("other", None), ("arm", None),
    ]  # fmt: skip
    assert document["variants"][0]["size_bytes"] > 0


def test_no_engine_is_given_a_model(release: Path) -> None:
    spy = SpyBackend()
    layout = LayoutFolder(release)

    found = describe(layout.open(), layout, registry={"onnxruntime": spy})

    assert [one.place for one in found.variants] == [1, None, None]
    assert spy.parsed == []


def test_a_variant_whose_manifest_is_not_there_spoils_only_itself(release: Path) -> None:
    layout = LayoutFolder(release)
    entry = next(one for one in layout.open().index.variants if one.id == "other")
    layout.path_of(entry.digest).unlink()

    found = describe(layout.open(), layout)

    assert [one.id for one in found.variants if one.place] == ["ort-float32"]
    (lost,) = [one for one in found.variants if one.id == "other"]
    assert lost.because


def test_who_signed_is_said_where_the_metadata_stands_beside_it(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = keygen(tmp_path / "team")
    sign_release(release, SigningKey.load(tmp_path / "team.key"), None, None, now=NOW)

    shown = said(monkeypatch, release)

    assert f"signed   by {public.key_id[:12]} until 2027-11-18 (models-pixels.json)" in shown


def test_what_was_tuned_here_comes_first_with_its_settings_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    write_pixels(tmp_path / "r", "1.0.0", builds=[Build("a-usual"), Build("b-tuned")])
    why = "b-tuned with 2 threads: 1.40 times as fast as what runs without tuning"
    tuned_here(tmp_path / "r", tmp_path / "kept", variant="b-tuned", threads=2, batch=1, because=why)

    usual = said(monkeypatch, tmp_path / "r")
    tuned = said(monkeypatch, tmp_path / "r", "--tuned", tmp_path / "kept")
    document = json.loads(said(monkeypatch, tmp_path / "r", "--tuned", tmp_path / "kept", "--json"))

    assert "a-usual" in next(line for line in usual.splitlines() if line.rstrip().endswith("fits, first choice"))
    assert "tuned" not in usual.partition("variant")[0]
    assert "b-tuned" in next(line for line in tuned.splitlines() if line.rstrip().endswith("fits, first choice"))
    assert "tuned    b-tuned: 2 threads per call (tuned here on 2026-11-24 with onnxruntime" in tuned
    assert why in " ".join(tuned.split())
    first = document["variants"][0]
    assert (first["id"], first["tuned"]["threads"], first["tuned"]["because"]) == ("b-tuned", 2, why)
    with Model.open(tmp_path / "r", tuned=tmp_path / "kept") as model:
        assert model.variant_id == first["id"]


def test_of_a_device_only_what_its_agent_chose_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    write_pixels(tmp_path / "release", "1.2.0", builds=[Build("z-assigned"), Build("a-other")])
    state = write_state(tmp_path / "state", tmp_path / "release")
    tuned_here(tmp_path / "release", tmp_path / "kept", variant="a-other", threads=2, batch=1)

    document = json.loads(said(monkeypatch, state, "--tuned", tmp_path / "kept", "--json"))

    assert [(one["id"], one["place"], one["because"]) for one in document["variants"]] == [
        ("z-assigned", 1, ""), ("a-other", None, "it fits; the agent chose z-assigned"),
    ]  # fmt: skip


def test_what_a_device_runs_is_described_from_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    write_pixels(tmp_path / "release", "1.2.0")
    state = write_state(tmp_path / "state", tmp_path / "release")

    assert "release  pixels 1.2.0" in said(monkeypatch, state)
