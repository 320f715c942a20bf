import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.errors import BadModel
from converters.importers.onnx import describe
from converters.passes.bake_constants import bake_constants
from converters.passes.clamp_versions import clamp_versions
from converters.passes.prepend_normalise import Normalisation, free_name, prepend_normalise
from converters.passes.strip_inputs import strip_initialiser_inputs
from tests.fakes.onnx_models import conv_classifier
from tests.fakes.streams import RATE_HZ, remembering_model


def answer(model, feeds):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize(
    ("mean", "std", "scale"),
    [((0.0,), (255.0,), 1.0), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255), ((0.0,), (1.0,), 1.0)],
)
def test_a_prepended_normalisation_gives_the_same_answer(mean, std, scale) -> None:
    model = conv_classifier()
    picture = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    canonical = (picture.astype(np.float32) * np.float32(scale) - np.float32(mean)) / np.float32(std)

    extended = prepend_normalise(model, "input", Normalisation(scale, mean, std, "NCHW"), input_name="image")

    onnx.checker.check_model(extended, full_check=True)
    expected = answer(model, {"input": np.ascontiguousarray(canonical.transpose(0, 3, 1, 2))})
    assert np.allclose(answer(extended, {"image": picture}), expected, rtol=0, atol=1e-5)
    assert [entry.name for entry in model.graph.input] == ["input"]


def test_a_taken_name_is_refused_and_a_free_one_found() -> None:
    model = conv_classifier()
    normalisation = Normalisation(1.0, (0.0,), (255.0,), "NCHW")

    assert free_name(model, "c") == "c_u8"
    with pytest.raises(BadModel, match="uses that name"):
        prepend_normalise(model, "input", normalisation, input_name="c")
    with pytest.raises(BadModel, match="no such input"):
        prepend_normalise(model, "nothing", normalisation, input_name="image")


def test_initialisers_leave_the_input_list() -> None:
    model = conv_classifier(ir=3)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))

    stripped = strip_initialiser_inputs(model)

    assert [entry.name for entry in stripped.graph.input] == ["input"]
    assert stripped.ir_version >= 4


def test_an_old_opset_is_raised_only_as_far_as_needed_and_a_new_ir_is_lowered() -> None:
    clamped = clamp_versions(conv_classifier(opset=9, ir=14), min_opset=13, max_opset=21, max_ir=10)

    described = describe(clamped)

    assert (described.opset, described.ir) == (13, 10)


def test_versions_in_range_stay() -> None:
    described = describe(clamp_versions(conv_classifier(opset=15, ir=8), min_opset=13, max_opset=21, max_ir=10))

    assert (described.opset, described.ir) == (15, 8)


def test_a_constant_becomes_a_weight_and_the_answers_stay_the_same() -> None:
    model = onnx.load_from_string(remembering_model())
    rng = np.random.default_rng(0)
    fed = {"input": rng.standard_normal((1, 12)).astype(np.float32), "state": np.ones((1, 1, 3), np.float32)}

    baked = bake_constants(model, {"sr": RATE_HZ})

    assert [entry.name for entry in model.graph.input] == ["input", "state", "sr"]
    assert [entry.name for entry in baked.graph.input] == ["input", "state"]
    assert np.array_equal(answer(baked, fed), answer(model, {**fed, "sr": np.asarray(RATE_HZ)}))
