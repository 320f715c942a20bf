import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import BadModel
from converters.model.tflite_file import parse_tflite, read_tflite
from tests.fakes.greedy_tflite import greedy_tflite
from tests.fakes.tflite_models import Tensor, int8_classifier

CONTENT = int8_classifier(metadata={"note": b"hello"}, signature="serving_default").content()


def test_a_file_is_read_with_operators_options_and_names() -> None:
    model = parse_tflite(CONTENT, "m.tflite")

    (operator,) = model.main.operators
    assert (operator.kind, operator.version, operator.is_custom) == ("CONV_2D", 3, False)
    assert operator.options["strideW"] == 1
    assert model.main.label(operator) == "CONV_2D 0 (out)"
    assert [tensor.name for tensor in model.main.given(operator) if tensor] == ["image", "w", "b"]
    assert model.signatures[0].inputs == {"image": 0}
    assert bytes(model.metadata["note"]) == b"hello"


def test_tensors_say_how_they_are_quantised_and_what_they_hold() -> None:
    image, weights, bias, out = parse_tflite(CONTENT, "m.tflite").main.tensors

    assert (image.dtype, image.shape, image.is_constant) == ("int8", (1, 8, 8, 3), False)
    assert image.affine is not None
    assert image.affine.zero_points == (-128,)
    assert weights.affine is not None
    assert weights.affine.is_per_channel
    assert weights.values() is not None
    assert bias.size_bytes == 16
    assert out.values() is None


def test_free_axes_are_told_from_the_signature() -> None:
    tensors = [Tensor("image", (1, 8, 8, 3), signature=(-1, 8, 8, 3)), *int8_classifier().tensors[1:]]

    image = parse_tflite(int8_classifier(tensors=tensors).content(), "m.tflite").main.tensors[0]

    assert image.free_axes == (0,)


def test_a_file_cut_off_anywhere_is_one_clear_error() -> None:
    for length in range(len(CONTENT) - 4):
        with pytest.raises(BadModel, match=r"cannot read m\.tflite"):
            parse_tflite(CONTENT[:length], "m.tflite")


@given(st.lists(st.tuples(st.integers(8, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_whatever_bytes_a_file_holds_it_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for position, byte in changes:
        content[position] = byte

    # Any other exception, or a hang, fails the test.
    with contextlib.suppress(BadModel):
        assert parse_tflite(bytes(content), "m.tflite").main.operators


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"tensors": 60_000}, "more than 50000 parts"),
        ({"operators": 40_000, "reads": 60}, "more than 1000000 tensors"),
        ({"operators": 40_000, "tensors": 50, "name": 100_000}, "numbers and letters"),
    ],
)
def test_a_file_that_points_at_one_piece_many_times_is_refused_with_the_reason(shares, says: str) -> None:
    content = greedy_tflite(**shares)

    with pytest.raises(BadModel, match=says):
        parse_tflite(content, "m.tflite")


def test_a_name_that_fills_the_file_is_shortened_where_people_read_it() -> None:
    graph = parse_tflite(greedy_tflite(operators=9, name=100_000), "m.tflite").main

    assert max(len(graph.label(operator)) for operator in graph.operators) < 200


def test_content_that_buffers_share_is_one_object_so_that_it_is_looked_at_once() -> None:
    tensors = parse_tflite(greedy_tflite(tensors=9, content=100), "m.tflite").main.tensors

    assert len({id(tensor.content) for tensor in tensors}) == 1
    assert tensors[0].size_bytes == 400


def test_a_small_file_that_claims_billions_of_parts_is_refused_at_once() -> None:
    content = np.frombuffer(CONTENT, np.uint8).copy()
    words = content[: len(content) // 4 * 4].view(np.uint32)

    # Whatever word is a count claims the most there can be.
    for position in range(2, len(words)):
        before = words[position]
        words[position] = 0x7FFFFFFF
        with contextlib.suppress(BadModel):
            assert parse_tflite(content.tobytes(), "m.tflite").main.operators
        words[position] = before


def test_a_missing_file_and_another_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="No such file"):
        read_tflite(tmp_path / "nothing.tflite")
    with pytest.raises(BadModel, match="not a TensorFlow Lite file"):
        parse_tflite(b"PK\x03\x04 and more", "m.tflite")


def test_reading_a_file_loads_no_engine() -> None:
    code = """
import sys
from converters.model.tflite_file import parse_tflite
parse_tflite(bytes.fromhex(sys.stdin.read()), "m.tflite")
print([name for name in sys.modules if name.startswith("ai_edge_litert.")])
"""
    done = subprocess.run([sys.executable, "-c", code], input=CONTENT.hex(), capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['ai_edge_litert.schema_py_generated']"


@pytest.mark.needs_shared
def test_every_real_file_is_read(shared: Path) -> None:
    files = sorted((shared / "models" / "tflite").glob("*.tflite"))

    models = {path.name: read_tflite(path) for path in files}

    assert len(models) == 21
    detector = models["ssd_mobilenet_v1_coco_quant.tflite"].main
    assert [one.kind for one in detector.operators if one.is_custom] == ["TFLite_Detection_PostProcess"]
    assert sum(tensor.size_bytes for tensor in models["mobilenet_v2_1.0_224_quant.tflite"].main.tensors) > 3_400_000


@pytest.mark.parametrize("shape", [(1,) * 17, (2**31 - 1,) * 3], ids=["axes", "elements"])
def test_a_shape_that_no_tensor_can_have_is_refused(shape: tuple[int, ...]) -> None:
    tensors = [Tensor("image", shape), *int8_classifier().tensors[1:]]

    with pytest.raises(BadModel, match="not a whole TensorFlow Lite file"):
        parse_tflite(int8_classifier(tensors=tensors).content(), "m.tflite")
