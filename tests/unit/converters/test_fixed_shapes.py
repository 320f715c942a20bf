import pytest

from converters.errors import BadModel
from converters.model.fixed_shapes import fix_shapes
from converters.reading import read_source
from tests.fakes.onnx_models import conv_classifier, saved


def test_the_named_sizes_are_fixed_in_a_copy() -> None:
    model = conv_classifier()

    fixed = fix_shapes(model, {"input": [2, 3, 8, 8]})

    assert [size.dim_value for size in fixed.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 8, 8]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_without_sizes_the_model_is_not_copied() -> None:
    model = conv_classifier()

    assert fix_shapes(model, {}) is model


def test_sizes_that_the_model_contradicts_are_refused_with_what_it_says() -> None:
    with pytest.raises(BadModel, match=r"the model says \['N', 3, 8, 8\]"):
        fix_shapes(conv_classifier(), {"input": [1, 3, 9, 8]})


def test_a_build_reads_the_model_with_the_sizes_that_were_fixed(tmp_path) -> None:
    path = saved(conv_classifier(), tmp_path / "m.onnx")

    assert read_source(path).input("input").shape == (None, 3, 8, 8)
    assert read_source(path, {"input": [1, 3, 8, 8]}).input("input").shape == (1, 3, 8, 8)
