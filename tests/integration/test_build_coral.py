"""A quantised model for Coral boards: looked at always, compiled where the compiler is, with its CPU file beside it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from converters.pipeline.build import BuildOptions, build
from converters.report.build_report import BuildReport
from edge_runtime.contract.codec import decode
from edge_runtime.contract.evidence import EVIDENCE_LAYER, EvidenceFile
from edge_runtime.contract.layout import LayoutFolder, open_variant, read_checked
from tests.fakes.four_pixels import four_pixel_folder, four_pixel_recipe

# Prints what the real one prints about such a model, and leaves a file where the real one does.
STAND_IN = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
{ cat "$1"; printf compiled; } > "$out/model_edgetpu.tflite"
echo 'Edge TPU Compiler version 16.0.384591198'
echo 'Model compiled successfully in 12 ms.'
echo 'On-chip memory used for caching model parameters: 1.50KiB'
echo 'Off-chip memory used for streaming uncached model parameters: 0.00B'
echo 'Total number of operations: 1'
echo 'Operator                       Count      Status'
echo
echo 'FULLY_CONNECTED                1          Mapped to Edge TPU'
"""
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="Coral makes its compiler for x86-64 only")


def built(base: Path, out: Path) -> BuildReport:
    recipe = four_pixel_recipe(targets=["coral"])
    return build(recipe, BuildOptions(base=base, out=out), lambda *_: None)


@pytest.fixture(scope="module")
def four_pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four_pixel_folder(tmp_path_factory.mktemp("four"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands alone on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def install(folder: Path, program: str) -> None:
    (folder / "edgetpu_compiler").write_text(program)
    (folder / "edgetpu_compiler").chmod(0o755)


def test_without_the_compiler_the_verdict_and_the_exact_command_are_said(
    four_pixels: Path, path: Path, tmp_path: Path
) -> None:
    report = built(four_pixels, tmp_path / "r")

    (note,) = [note for note in report.notes if "Edge TPU" in note]
    command = note.partition("run on x86-64 Linux: ")[2]
    assert note.startswith("litert-int8: an Edge TPU can compute 1 of 1 operators")
    assert command.endswith("model.tflite && edgetpu_compiler -s model.tflite")
    assert Path(command.split()[1]).read_bytes() == (four_pixels / "m.tflite").read_bytes()
    assert LayoutFolder(tmp_path / "r").open().manifest.variants == ["litert-int8"]


@needs_x86
def test_with_the_compiler_its_file_ships_beside_the_one_that_a_cpu_runs(
    four_pixels: Path, path: Path, tmp_path: Path
) -> None:
    install(path, STAND_IN)

    report = built(four_pixels, tmp_path / "r")

    folder = LayoutFolder(tmp_path / "r")
    release = folder.open()
    entry = next(one for one in release.index.variants if one.id == "coral-int8")
    manifest = open_variant(folder, entry).manifest
    assert sorted(release.manifest.variants) == ["coral-int8", "litert-int8"]
    assert (manifest.target.accelerator, manifest.target.provider) == ("edgetpu-v1", ["edgetpu"])
    assert manifest.fallback == "litert-int8"
    assert manifest.compiled
    assert (manifest.compiled.mapped, manifest.compiled.unmapped, manifest.compiled.on_chip_bytes) == (1, 0, 1536)
    assert [row.verdict for row in report.rows] == ["shipped", "shipped"]


@needs_x86
def test_a_compiled_variant_carries_no_number_that_nobody_measured(
    four_pixels: Path, path: Path, tmp_path: Path
) -> None:
    install(path, STAND_IN)

    built(four_pixels, tmp_path / "r")

    folder = LayoutFolder(tmp_path / "r")
    layer = folder.open().layers.descriptor(EVIDENCE_LAYER)
    evidence = decode(read_checked(folder, layer, max_bytes=1 << 20), EvidenceFile).variants["coral-int8"]
    assert evidence.latency_ms is None
    assert evidence.peak_bytes is None
    assert "not run on an Edge TPU" in (evidence.detail or "")


@needs_x86
def test_a_compiler_that_refuses_leaves_the_cpu_variant_and_its_own_words(
    four_pixels: Path, path: Path, tmp_path: Path
) -> None:
    install(path, "#!/bin/sh\necho 'Edge TPU Compiler version 16.0.384591198'\necho 'Model not quantized'\nexit 1\n")

    report = built(four_pixels, tmp_path / "r")

    assert LayoutFolder(tmp_path / "r").open().manifest.variants == ["litert-int8"]
    assert any("cannot compile for the Edge TPU: Model not quantized; quantise" in note for note in report.notes)
