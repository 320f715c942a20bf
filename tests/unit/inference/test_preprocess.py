"""Steps to numbers: every chain against values worked out by hand or by the library whose semantics it claims."""

from __future__ import annotations

import io
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.image_steps import ColorStep, Decode, Resize
from edge_runtime.contract.tensor import TensorSpec
from edge_runtime.inference.preprocessing.images import center_crop, decode_image, open_picture, recolour, resize
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess
from edge_runtime.inference.preprocessing.quantising import Quantiser
from tests.fakes.models import BATCH_MAX, PREPROCESS, Build, release_manifest

RANDOM = np.random.default_rng(7)
PHOTO = RANDOM.integers(0, 256, (1, 37, 53, 3), dtype=np.uint8)
DECODE = Decode(id="d", color="rgb", exif="apply", reduced="never")


def release(steps, **tensor):
    manifest = release_manifest(["v"])
    changed = msgspec.structs.replace(manifest.tensors["x"], **tensor)
    return msgspec.structs.replace(manifest, preprocess={"x": steps}, tensors=manifest.tensors | {"x": changed})


def resize_step(mode="stretch", size=(20, 30), filter_="bilinear", antialias=True, **rest) -> Resize:
    return Resize(id="r", mode=mode, size=size, filter=filter_, antialias=antialias, **rest)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "pillow"),
    [("nearest", "NEAREST"), ("bilinear", "BILINEAR"), ("bicubic", "BICUBIC"), ("lanczos", "LANCZOS"), ("area", "BOX")],
)
def test_an_antialiased_resize_is_pillows(name: str, pillow: str) -> None:
    expected = np.asarray(Image.fromarray(PHOTO[0]).resize((30, 20), getattr(Image.Resampling, pillow)))

    assert np.array_equal(resize(PHOTO, resize_step(filter_=name))[0], expected)


@pytest.mark.parametrize("size", [(20, 30), (74, 106), (64, 64), (224, 17), (18, 26)])
@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_a_resize_without_antialiasing_is_opencvs(name: str, size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    flag = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR}[name]
    expected = cv2.resize(PHOTO[0], (size[1], size[0]), interpolation=flag)

    ours = resize(PHOTO, resize_step(size=size, filter_=name, antialias=False))[0]

    assert np.array_equal(ours, expected)


def test_pillows_and_opencvs_bilinear_are_told_apart() -> None:
    smooth, sharp = (resize(PHOTO, resize_step(size=(9, 13), antialias=flag)) for flag in (True, False))

    assert np.abs(smooth.astype(int) - sharp.astype(int)).max() > 20


def test_a_filter_without_antialiasing_that_is_not_built_is_refused_not_replaced() -> None:
    with pytest.raises(UnsupportedFeature, match="bicubic and antialias false"):
        resize(PHOTO, resize_step(filter_="bicubic", antialias=False))


def test_fit_pad_keeps_the_aspect_ratio_and_fills_the_rest() -> None:
    step = resize_step("fit_pad", (40, 40), pad_value=[114.0], pad_anchor="center")

    padded = resize(np.full((1, 10, 20, 3), 7, np.uint8), step)

    assert padded.shape == (1, 40, 40, 3)
    assert np.all(padded[0, :10] == 114)
    assert np.all(padded[0, 10:30] == 7)
    assert np.all(padded[0, 30:] == 114)


def test_fit_crop_fills_the_square_and_shortest_side_keeps_the_rest() -> None:
    assert resize(PHOTO, resize_step("fit_crop", (20, 20))).shape == (1, 20, 20, 3)
    assert resize(PHOTO, resize_step("shortest_side", (20, 20))).shape == (1, 20, 28, 3)


def test_resize_none_accepts_the_right_size_only() -> None:
    assert resize(PHOTO, resize_step("none", (37, 53))) is PHOTO
    with pytest.raises(InferenceError, match=r"it is 53 wide and 37 high .*; give one that is 30 wide and 20 high"):
        resize(PHOTO, resize_step("none"))


def test_a_crop_takes_the_middle_and_never_more_than_there_is() -> None:
    assert np.array_equal(center_crop(PHOTO, (35, 51)), PHOTO[:, 1:36, 1:52])
    with pytest.raises(InferenceError, match="smaller than the crop"):
        center_crop(PHOTO, (38, 51))


def test_bgr_is_rgb_reversed_and_grey_is_pillows_grey() -> None:
    content = encoded(Image.fromarray(PHOTO[0]), "PNG")

    assert np.array_equal(decode_image(content, DECODE, ["png"]), PHOTO)
    bgr = decode_image(content, msgspec.structs.replace(DECODE, color="bgr"), ["png"])
    assert np.array_equal(bgr, PHOTO[..., ::-1])
    grey = np.asarray(Image.fromarray(PHOTO[0]).convert("L"))
    assert np.array_equal(recolour(PHOTO, "rgb", "gray")[0, :, :, 0], grey)
    assert np.array_equal(recolour(bgr, "bgr", "gray")[0, :, :, 0], grey)


def test_a_camera_held_sideways_is_turned_only_when_the_release_says_so() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(PHOTO[0]), "JPEG", exif=exif)

    upright = decode_image(content, DECODE, ["jpeg"])
    sideways = decode_image(content, msgspec.structs.replace(DECODE, exif="ignore"), ["jpeg"])

    assert (upright.shape, sideways.shape) == ((1, 53, 37, 3), (1, 37, 53, 3))


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", encoded(Image.fromarray(PHOTO[0]), "PNG")[:200], encoded(Image.fromarray(PHOTO[0]), "BMP")],
)
def test_bytes_that_are_no_complete_image_of_an_accepted_kind_are_one_clear_error(content: bytes) -> None:
    with pytest.raises(InferenceError, match="cannot decode an image"):
        decode_image(content, DECODE, ["png"])


@pytest.mark.parametrize("codec", ["PNG", "BMP", "WEBP", "JPEG", "MPO"])
def test_a_picture_is_read_by_the_one_reader_that_its_beginning_names_as_pillow_itself_would(codec: str) -> None:
    wishes = {"save_all": True, "append_images": [Image.fromarray(PHOTO[0][::-1])]} if codec == "MPO" else {}
    content = encoded(Image.fromarray(PHOTO[0]), codec, **wishes)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))

    with open_picture(content, DECODE, ["webp", "bmp", "png", "jpeg"]) as picture:
        found = np.asarray(picture)

    assert np.array_equal(found, expected)


def test_an_image_that_would_unfold_into_gigabytes_is_refused_before_it_does() -> None:
    bomb = encoded(Image.new("1", (8200, 8200)), "PNG")

    with pytest.raises(InferenceError, match="8200 wide and 8200 high, over"):
        decode_image(bomb, DECODE, ["png"])


def test_normalising_is_scale_then_mean_then_std() -> None:
    steps = [PREPROCESS[0], {"id": "n", "op": "normalize", "scale": 0.5, "mean": [10.0], "std": [4.0]}]
    image = np.array([[[[40], [20]], [[0], [8]]]], dtype=np.uint8)

    feeds = compile_preprocess(release(steps, shape=["N", 2, 2, 1], layout="NHWC"))({"image": image})

    assert feeds["x"].dtype == np.float32
    assert feeds["x"].ravel().tolist() == [2.5, 0.0, -2.5, -1.5]


def test_layout_moves_channels_before_rows() -> None:
    manifest = release_manifest(["v"])
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)

    feeds = compile_preprocess(manifest)({"image": image})

    assert feeds["x"].shape == (1, 1, 2, 2)
    assert np.allclose(feeds["x"].ravel() * 255, [0, 1, 2, 3])


def test_what_the_graph_absorbs_is_not_done_twice() -> None:
    variant = Build("v", absorbs=("norm", "layout")).manifest()
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)

    feeds = compile_preprocess(release_manifest(["v"]), variant)({"image": image})

    assert feeds["x"].dtype == np.uint8
    assert np.array_equal(feeds["x"], image)


def test_absorbing_anything_but_the_last_steps_is_refused() -> None:
    variant = Build("v", absorbs=("norm",)).manifest()

    with pytest.raises(ContractError, match="not the last steps"):
        compile_preprocess(release_manifest(["v"]), variant)


def test_quantising_rounds_half_to_even_and_saturates() -> None:
    variant = Build("v").manifest()
    binding = msgspec.structs.replace(variant.io.inputs["x"], dtype="int8", scale=2.0, zero_point=10)
    variant = msgspec.structs.replace(variant, io=msgspec.structs.replace(variant.io, inputs={"x": binding}))
    image = np.array([1, 3, 4, 255], dtype=np.uint8).reshape(1, 2, 2, 1)

    feeds = compile_preprocess(release([PREPROCESS[0], PREPROCESS[2]]), variant)({"image": image})

    assert feeds["x"].dtype == np.int8
    assert feeds["x"].ravel().tolist() == [10, 12, 12, 127]


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.floats(1e-4, 1e3), st.integers(-128, 127), st.sampled_from(["int8", "uint8", "int16"]),
)  # fmt: skip
def test_quantising_is_what_the_vocabulary_says(
    numbers: list[float], scale: float, zero_point: int, dtype: str
) -> None:
    array, limits = np.array(numbers, np.float32), np.iinfo(dtype)
    asked = array.copy()

    stored = Quantiser(scale, zero_point, np.dtype(dtype))(asked)

    wide = np.rint(array.astype(np.float64) / scale) + zero_point
    assert stored.dtype == dtype
    assert np.array_equal(stored, np.clip(wide, limits.min, limits.max).astype(dtype))
    assert np.array_equal(asked, array)


def test_a_file_given_to_a_model_that_takes_numbers_is_told_what_it_takes() -> None:
    manifest = release([PREPROCESS[1]])
    inputs = [msgspec.structs.replace(one, kind="tensor") for one in manifest.signature.inputs]
    manifest = msgspec.structs.replace(manifest, signature=msgspec.structs.replace(manifest.signature, inputs=inputs))

    with pytest.raises(InferenceError, match=r"takes uint8 numbers, not an encoded file; give an array, or a \.npy"):
        compile_preprocess(manifest)({"image": b"RIFF"})


def test_golden_inputs_skip_decoding_and_nothing_else() -> None:
    preprocess = compile_preprocess(release_manifest(["v"]))
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    content = encoded(Image.fromarray(image[0, :, :, 0]), "PNG")

    decoded = preprocess.decode({"image": content})

    assert np.array_equal(decoded["image"], image)
    assert np.array_equal(
        preprocess.after_decode({"image": decoded["image"][0]})["x"], preprocess({"image": image})["x"]
    )


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((1, 2, 2, 1), np.float32), "dtype is float32, not uint8"),
        (np.zeros((2, 2), np.uint8), r"shape is \[2, 2\], not \[N, 2, 2, 1\]"),
        (np.zeros((1, 2, 3, 1), np.uint8), r"a size is 3 where \[N, 2, 2, 1\] asks for 2"),
        (np.zeros((BATCH_MAX + 1, 2, 2, 1), np.uint8), "axis N is 200001; make it between 1 and 200000"),
        (np.zeros((0, 2, 2, 1), np.uint8), "axis N is 0"),
    ],
)
def test_an_array_that_breaks_the_signature_is_told_how(array, complaint: str) -> None:
    with pytest.raises(InferenceError, match=complaint):
        compile_preprocess(release_manifest(["v"]))({"image": array})


def test_a_constant_tensor_is_fed_by_the_runtime() -> None:
    manifest = release_manifest(["v"])
    rate = TensorSpec(dtype="int64", shape=[], constant=16000)

    feeds = compile_preprocess(msgspec.structs.replace(manifest, tensors=manifest.tensors | {"sr": rate}))(
        {"image": np.zeros((1, 2, 2, 1), np.uint8)}
    )

    assert feeds["sr"].dtype == np.int64
    assert feeds["sr"] == 16000


def test_a_step_that_is_not_built_yet_is_named() -> None:
    steps = [{"id": "words", "op": "tokenize", "from": "image", "tokenizer": "layer:t", "max_length": 8,
              "padding": "none", "truncation": "none", "outputs": ["ids"]}]  # fmt: skip

    with pytest.raises(UnsupportedFeature, match=r"step tokenize \(words\): text is reserved"):
        compile_preprocess(release(steps))


def test_colour_cannot_be_changed_where_none_is_declared() -> None:
    manifest = release_manifest(["v"])
    spec = msgspec.structs.replace(manifest.signature.inputs[0], color=None)
    manifest = msgspec.structs.replace(
        manifest,
        signature=msgspec.structs.replace(manifest.signature, inputs=[spec]),
        preprocess={"x": [msgspec.to_builtins(ColorStep(id="c", from_="image", to="gray"))]},
    )

    with pytest.raises(ContractError, match="does not say its colour"):
        compile_preprocess(manifest)({"image": np.zeros((1, 2, 2, 1), np.uint8)})


def test_damaged_metadata_of_a_picture_is_a_picture_that_cannot_be_read() -> None:
    # Held sideways, and -1 pixels wide: Pillow turns the picture, and cannot write its metadata again.
    entries = [(0x0112, 3, 1, b"\0\x06\0\0"), (0x0100, 9, 1, b"\xff\xff\xff\xff")]
    table = b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + table + bytes(4)
    damaged = encoded(Image.fromarray(PHOTO[0]), "JPEG", exif=exif)

    with pytest.raises(InferenceError, match="cannot decode an image"):
        decode_image(damaged, DECODE, ["jpeg"])
