"""Every real model built for a plain CPU: float variants repeat it, quantised ones stay within a step of it.

What ships is asked again here, beside the source file in its own engine, on real inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.building.workshop import open_source
from converters.pipeline.build import BuildOptions, build
from converters.planning.judge import PARITY
from converters.planning.recipe import parse_recipe
from converters.reading import read_source
from converters.release.draft import draft_release
from converters.report.build_report import Row
from edge_runtime import Model
from edge_runtime.contract.digest import digest_of
from edge_runtime.inference.backend import Array
from edge_runtime.inference.predictor import Predictor
from tests.fakes.shared_recipes import RECIPES
from tests.fakes.shared_sets import sets_of

pytestmark = [pytest.mark.needs_shared, pytest.mark.slow]

AGREEMENT = 0.98
LATER = pytest.mark.lab

FLOAT: list[Any] = [
    "onnx/mlperf_tiny_kws.onnx",
    *(
        pytest.param(name, marks=LATER)
        for name in (
            "onnx/fastestdet_coco_352.onnx", "onnx/mlperf_tiny_ad.onnx", "onnx/mlperf_tiny_ic.onnx",
            "onnx/mlperf_tiny_vww.onnx", "onnx/mnist-8.onnx", "onnx/mobilenet_v1_0.25_224_fp32.onnx",
            "onnx/ultraface_rfb320.onnx", "tflite/ad01_fp32.tflite", "tflite/hello_world_float.tflite",
            "tflite/keypoint_classifier.tflite", "tflite/kws_ref_model_float32.tflite",
            "tflite/mobilenet_v1_0.25_224_float.tflite", "tflite/resnet8_cifar10_float.tflite",
            "tflite/ultraface_rfb320.tflite", "tflite/vww_96_float.tflite",
        )
    ),
]  # fmt: skip
HYBRID = "tflite/kws_ref_model_float32.tflite"
"""Its weights are int8 and LiteRT rounds its activations to match, which OpenVINO does not."""

QUANTISED: list[Any] = [
    pytest.param("tflite/hello_world_int8.tflite", "shipped"),
    *(
        pytest.param(f"tflite/{name}.tflite", verdict, marks=LATER)
        for name, verdict in (
            ("ad01_int8", "shipped"),
            ("kws_ref_model_int8", "shipped"),
            ("mobilenet_v1_0.25_128_quant", "shipped"),
            ("mobilenet_v1_0.25_224_quant", "shipped"),
            # Close answers, of which one photo's best two change places.
            ("mobilenet_v2_1.0_224_quant", "refused:accuracy"),
            ("deeplabv3_mnv2_dm05_pascal_quant", "refused:accuracy"),
            ("resnet8_cifar10_int8", "refused:saturation"),
            ("vww_96_int8", "refused:saturation"),
            ("ssd_mobilenet_v1_coco_quant", "refused:compile_failed"),
        )
    ),
]
"""Files that came quantised, and what becomes of them on OpenVINO."""


def parsed(name: str, models: Path, work: Path, **told: Any) -> Any:
    described = RECIPES[name]
    raw = {"model": name, "name": "shared", "version": "1", "task": "any", "targets": ["cpu"], **described,
           **sets_of(name, described, models, work, count=16), "golden": {"count": 6},
           "limits": {"min_agreement": {"*": AGREEMENT}}, **told}  # fmt: skip
    return parse_recipe(json.dumps(raw).encode(), ".json")


def built(recipe: Any, models: Path, out: Path) -> dict[str, Row]:
    # Whether photos of a calibration set show what a model knows is not asked here, so its labels may be contradicted.
    options = BuildOptions(base=models, out=out, allow_failed_golden=True)
    return {row.variant: row for row in build(recipe, options, lambda *_: None).rows}


def source_of(recipe: Any, models: Path) -> Predictor:
    imported = read_source(models / recipe.model)
    return open_source(draft_release(recipe, imported, digest_of(b""), is_labelled=False), imported.model)


def answered(recipe: Any, models: Path, release: Path, variant: str) -> Iterator[tuple[str, Array, Array, float]]:
    """Tensor, the source file's numbers, the variant's, and one step of the source's quantisation."""
    with Model.open(release, variant=variant, threads=1) as model, closing(source_of(recipe, models)) as source:
        golden = model.golden_set()
        assert golden
        pairs = [(source.run_decoded(one.inputs), model.predictor.run_decoded(one.inputs)) for one in golden.samples]
        for name in pairs[0][0]:
            expected, found = (np.concatenate([pair[side][name].ravel() for pair in pairs]) for side in (0, 1))
            yield name, expected, found, source.variant.io.outputs[name].scale or 1.0


def test_the_tables_name_every_model_that_a_recipe_describes() -> None:
    listed = [getattr(entry, "values", (entry,))[0] for entry in (*FLOAT, *QUANTISED)]

    assert sorted(listed) == sorted(RECIPES)


@pytest.mark.parametrize("name", FLOAT)
def test_float_variants_repeat_the_source_file_in_its_own_engine(name: str, shared: Path, tmp_path: Path) -> None:
    models = shared / "models"
    recipe = parsed(name, models, tmp_path, precisions=["float32"])

    rows = built(recipe, models, tmp_path / "release")

    shipped = [row.variant for row in rows.values() if row.verdict == "shipped"]
    assert [variant.split("-")[0] for variant in shipped if "litert" not in variant] == (
        ["ort"] if "onnx" in name else []
    ) + (["openvino"] if name != HYBRID else [])
    for variant in shipped:
        for tensor, expected, found, _ in answered(recipe, models, tmp_path / "release", variant):
            error = np.abs(expected - found).max() / (expected.max() - expected.min())
            assert error <= PARITY, (variant, tensor)
    if name == HYBRID:
        assert "of its range" in rows["openvino-float32"].because


@pytest.mark.needs_qemu
@pytest.mark.parametrize(("name", "openvino"), QUANTISED)
def test_files_that_came_quantised_keep_their_answers(name: str, openvino: str, shared: Path, tmp_path: Path) -> None:
    models = shared / "models"
    recipe = parsed(name, models, tmp_path)

    rows = built(recipe, models, tmp_path / "release")

    assert {row.variant: row.verdict for row in rows.values()} == {"litert-int8": "shipped", "openvino-int8": openvino}
    for variant in [row.variant for row in rows.values() if row.verdict == "shipped"]:
        evidence = rows[variant].evidence
        assert evidence
        assert evidence.accuracy
        assert evidence.accuracy.agreement is not None
        assert evidence.accuracy.agreement >= AGREEMENT
        for tensor, expected, found, step in answered(recipe, models, tmp_path / "release", variant):
            assert np.median(np.abs(expected - found)) <= step * 1.001, (variant, tensor)
