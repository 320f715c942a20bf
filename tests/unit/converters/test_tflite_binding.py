"""A file made for LiteRT stores what the source model promises in other names, axes and numbers; bindings say how."""

from __future__ import annotations

import pytest

from converters.building.tflite_binding import bind_tflite, full_ranges
from converters.errors import CompileFailed
from converters.importers.onnx import describe
from converters.release.draft import Draft, draft_release
from edge_runtime.contract.digest import digest_of
from tests.fakes.onnx_models import conv_classifier
from tests.fakes.tflite_models import Model, Operator, Tensor
from tests.unit.converters.test_recipe import GOOD, parsed

SOURCE = describe(conv_classifier())
NAMES = {"input_0": SOURCE.inputs[0].name, "output_0": SOURCE.outputs[0].name}


def drafted(mean: float = 0.0, std: float = 255.0) -> Draft:
    image = {**GOOD["inputs"]["image"], "normalize": {"scale": 1.0, "mean": [mean], "std": [std]}}
    return draft_release(parsed(inputs={"image": image}), SOURCE, digest_of(b""), is_labelled=True)


def compiled(shape: tuple[int, ...] = (1, 8, 8, 3), scale: float = 1 / 255, output: str = "output_0") -> bytes:
    """A file with the right ports; what it computes does not matter here."""
    return Model(
        tensors=[
            Tensor("input_0", shape, "INT8", (scale,), (-128,)),
            Tensor(output, (1, 1, 1, 4), "INT8", (0.25,), (3,)),
        ],
        operators=[Operator("ANYTHING", ("input_0",), (output,))],
        inputs=("input_0",),
        outputs=(output,),
    ).content()


def test_channels_last_integers_are_bound_to_channels_first_real_numbers() -> None:
    bound = bind_tflite(drafted(mean=3.0), compiled(), NAMES)

    taken, given = bound.inputs[SOURCE.inputs[0].name], bound.outputs[SOURCE.outputs[0].name]
    assert (taken.tensor, taken.dtype, taken.layout, taken.zero_point) == ("input_0", "int8", "NHWC", -128)
    assert taken.scale == pytest.approx(1 / 255)
    assert taken.absorbs == []
    assert (given.tensor, given.dtype, given.layout, given.scale, given.zero_point) == (
        "output_0", "int8", "NHWC", 0.25, 3,
    )  # fmt: skip


def test_normalisation_and_axis_order_are_absorbed_together_where_both_are_exact() -> None:
    bound = bind_tflite(drafted(), compiled(), NAMES)

    assert bound.inputs[SOURCE.inputs[0].name].absorbs == ["norm", "layout"]
    assert bound.inputs[SOURCE.inputs[0].name].exact


def test_a_file_whose_tensors_are_not_the_promised_ones_is_refused() -> None:
    with pytest.raises(CompileFailed, match=r"has shape \[1, 8, 3, 8\]"):
        bind_tflite(drafted(), compiled(shape=(1, 8, 3, 8)), NAMES)
    with pytest.raises(CompileFailed, match="no tensor for"):
        bind_tflite(drafted(), compiled(output="elsewhere"), NAMES)


def test_half_a_step_is_absorbed_and_declared_and_a_whole_one_more_is_left_to_the_runtime() -> None:
    half = bind_tflite(drafted(mean=0.5), compiled(), NAMES).inputs[SOURCE.inputs[0].name]
    two = bind_tflite(drafted(mean=2.0), compiled(), NAMES).inputs[SOURCE.inputs[0].name]

    assert half.absorbs == ["norm", "layout"]
    assert not half.exact
    assert two.absorbs == []


def test_the_range_of_a_picture_is_what_black_and_white_become() -> None:
    name = SOURCE.inputs[0].name

    assert full_ranges(drafted(mean=127.5, std=127.5)) == {name: (-1.0, 1.0)}
    assert full_ranges(drafted(mean=0.0, std=-255.0)) == {name: (-1.0, 0.0)}


def test_channels_that_are_normalised_apart_have_no_common_range() -> None:
    image = {**GOOD["inputs"]["image"], "normalize": {"scale": 1.0, "mean": [1.0, 2.0, 3.0], "std": [255.0]}}
    draft = draft_release(parsed(inputs={"image": image}), SOURCE, digest_of(b""), is_labelled=True)

    assert full_ranges(draft) == {}
