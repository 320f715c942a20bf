"""One layer that int8 cannot hold, in a real classifier: it stays in float, and the rest ships in int8."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_runtime.inference.model import Model
from tests.fakes.digits import RECIPES, build_digits, recipe_of

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def spoilt_digits() -> onnx.ModelProto:
    """The demo's model, but huge weights that multiply a channel which is always 0 set every scale of conv_4."""
    model = onnx.load(str(RECIPES.parent / "model" / "digits.onnx"))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "conv_2_weight":
            values[0] = 0.0
        elif tensor.name == "conv_2_bias":
            values[0] = -1.0
        elif tensor.name == "conv_4_weight":
            values[:, 0] = 1000.0
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return model


def test_the_layer_at_fault_is_named_and_a_variant_with_it_in_float_ships(tmp_path: Path) -> None:
    onnx.save(spoilt_digits(), str(tmp_path / "spoilt.onnx"))
    recipe = recipe_of(1, model=str(tmp_path / "spoilt.onnx"), methods=None, prefer="latency")

    built = build_digits(tmp_path / "release", recipe)

    rows = {row.variant: row for row in built.report.rows}
    (mixed,) = [row for name, row in rows.items() if name.endswith("-mixed")]
    plain = rows[mixed.variant.removesuffix("-mixed")]
    assert plain.verdict == "refused:golden_failed"
    assert "conv_4" in plain.because
    assert "1 of 6 win most of it back" in plain.because
    assert mixed.verdict == "shipped"
    with Model.open(built.folder, variant=mixed.variant, threads=1) as model:
        assert model.variant.manifest.quantisation
        assert model.variant.manifest.quantisation.excluded == ["conv_4"]
        assert all(check.passed for check in model.golden_check())
