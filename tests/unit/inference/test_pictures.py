"""The same pixels come out whatever is installed, and however short the way was that led to them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.image_steps import Decode, Normalize
from edge_runtime.contract.tensor import AxisRange
from edge_runtime.inference.preprocessing import images, opencv
from edge_runtime.inference.preprocessing.image_steps import build_image_step
from edge_runtime.inference.preprocessing.images import decode_image
from edge_runtime.inference.preprocessing.jpeg_header import read_jpeg_header
from edge_runtime.inference.preprocessing.pictures import prepare
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess
from edge_runtime.inference.preprocessing.reduction import Reduction, reducing_factor
from edge_runtime.inference.preprocessing.scaling import scale_bilinear, scale_nearest
from edge_runtime.inference.preprocessing.values import Value
from tests.fakes.models import release_manifest

cv2 = pytest.importorskip("cv2")

DECODE = Decode(id="decode", color="rgb", exif="apply", reduced="never")


def photo(height: int = 90, width: int = 131, seed: int = 0) -> np.ndarray:
    """Smooth colours with noise on them."""
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray, *, mode: str = "RGB", orientation: int | None = None, **wishes: Any) -> bytes:
    buffer = io.BytesIO()
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        wishes["exif"] = exif
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **wishes)
    return buffer.getvalue()


@pytest.fixture
def without_opencv(monkeypatch) -> Iterator[None]:
    for name in ("find_decoder", "_scaler"):
        monkeypatch.setattr(opencv, name, lambda *_: None)
    return


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 3]))
def test_our_own_resizing_is_opencvs_to_the_last_bit(
    height: int, width: int, wanted_h: int, wanted_w: int, channels: int
) -> None:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, channels)).astype(np.uint8)

    for ours, flag in ((scale_bilinear, cv2.INTER_LINEAR), (scale_nearest, cv2.INTER_NEAREST)):
        theirs = cv2.resize(pixels, (wanted_w, wanted_h), interpolation=flag).reshape(wanted_h, wanted_w, channels)
        assert np.array_equal(ours(pixels[None], wanted_h, wanted_w)[0], theirs)


def test_float_pictures_are_resized_as_opencv_does_within_rounding() -> None:
    pixels = np.random.default_rng(0).random((37, 53, 3), np.float32)

    theirs = cv2.resize(pixels, (80, 20), interpolation=cv2.INTER_LINEAR)

    assert np.abs(scale_bilinear(pixels[None], 20, 80)[0] - theirs).max() < 1e-5


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_a_jpeg_gives_the_same_pixels_with_and_without_opencv(
    monkeypatch, subsampling: int, progressive: bool, mode: str, color: str
) -> None:
    extra = {} if mode == "L" else {"subsampling": subsampling}
    content = jpeg(photo(), mode=mode, progressive=progressive, quality=85, **extra)
    step = msgspec.structs.replace(DECODE, color=color)

    sooner = decode_image(content, step, ["jpeg"])
    monkeypatch.setattr(opencv, "find_decoder", lambda _: None)
    by_pillow = decode_image(content, step, ["jpeg"])

    assert np.array_equal(sooner, by_pillow)


def test_common_files_take_the_short_way_and_uncommon_ones_do_not(monkeypatch) -> None:
    decoded = []
    real = opencv.decode_jpeg
    monkeypatch.setattr(opencv, "decode_jpeg", lambda content, *how: decoded.append(how[0]) or real(content, *how))

    decode_image(jpeg(photo()), DECODE, ["jpeg"])
    decode_image(jpeg(photo(), orientation=1), DECODE, ["jpeg"])
    for other in (jpeg(photo(), orientation=6), jpeg(photo(), mode="CMYK")):
        decode_image(other, DECODE, ["jpeg"])

    assert decoded == ["rgb", "rgb"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_a_turned_picture_stands_upright_where_the_release_wants_it(exif: str, orientation: int) -> None:
    content = jpeg(photo(), orientation=orientation)
    step = msgspec.structs.replace(DECODE, exif=exif)

    pixels = decode_image(content, step, ["jpeg"])

    turned = exif == "apply" and orientation >= 5
    assert pixels.shape == ((1, 131, 90, 3) if turned else (1, 90, 131, 3))


@pytest.mark.parametrize("cut", [1, 2, 100, 2000])
@pytest.mark.usefixtures("without_opencv")
def test_an_incomplete_file_is_refused_by_pillow(cut: int) -> None:
    with pytest.raises(InferenceError, match="not a complete JPEG"):
        decode_image(jpeg(photo())[:-cut], DECODE, ["jpeg"])


@pytest.mark.parametrize("cut", [100, 2000])
def test_an_incomplete_file_is_refused_with_opencv_too(cut: int) -> None:
    with pytest.raises(InferenceError, match="not a complete JPEG"):
        decode_image(jpeg(photo())[:-cut], DECODE, ["jpeg"])


def test_a_small_file_that_unfolds_into_gigabytes_is_refused_before_memory_is_taken(monkeypatch) -> None:
    content = bytearray(jpeg(photo()))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    monkeypatch.setattr(opencv, "decode_jpeg", None)

    with pytest.raises(InferenceError, match="65535 wide and 65535 high"):
        decode_image(bytes(content), DECODE, ["jpeg"])


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + struct.pack(">BH", marker, len(body) + 2) + body


@pytest.mark.parametrize("before", [b"\xff", b"\xff\xd0"], ids=["fill byte", "marker without a length"])
def test_a_header_cannot_be_hidden_from_whoever_looks_at_the_size(monkeypatch, before: bytes) -> None:
    # Taken for a length, what follows leads past the frame to another one.
    hidden = bytearray(before + segment(0xFE, bytes(65_000)) + segment(0xFE, bytes(20_000)))
    fake = segment(0xC0, b"\x08\0\x10\0\x10\x03" + bytes(9)) + segment(0xDA, bytes(4))
    for misread in {int.from_bytes(hidden[2:4], "big"), int.from_bytes(hidden[len(before) : len(before) + 2], "big")}:
        hidden[misread + 2 : misread + 2 + len(fake)] = fake
    whole = jpeg(photo())
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)

    with pytest.raises(InferenceError, match="131 wide and 90 high, over 1000"):
        decode_image(whole[:2] + bytes(hidden) + whole[2:], DECODE, ["jpeg"])


def turned_somewhere(how: str) -> bytes:
    """A JPEG that Pillow sets upright, though not because of the one usual EXIF segment before the frame."""
    whole, exif = jpeg(photo()), Image.Exif()
    exif[0x0112] = 6
    sideways = segment(0xE1, exif.tobytes())
    match how:
        case "XMP":
            packet = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
            return whole[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet) + whole[2:]
        case "a second EXIF":
            other = Image.Exif()
            other[0x010F] = "maker"
            return whole[:2] + sideways + segment(0xE1, other.tobytes()) + whole[2:]
        case _:
            scan = whole.index(b"\xff\xda")
            return whole[:scan] + sideways + whole[scan:]


@pytest.mark.parametrize("how", ["XMP", "a second EXIF", "EXIF behind the frame"])
def test_a_picture_stands_upright_with_and_without_opencv_whatever_turns_it(monkeypatch, how: str) -> None:
    content = turned_somewhere(how)

    sooner = decode_image(content, DECODE, ["jpeg"])
    monkeypatch.setattr(opencv, "find_decoder", lambda *_: None)
    by_pillow = decode_image(content, DECODE, ["jpeg"])

    assert by_pillow.shape == (1, 131, 90, 3)
    assert np.array_equal(sooner, by_pillow)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=8))
def test_no_bytes_confuse_the_reader_of_headers(noise: bytes, place: int, patch: bytes) -> None:
    content = bytearray(jpeg(photo(16, 16)))
    content[place : place + len(patch)] = patch

    for given_bytes in (noise, b"\xff\xd8" + noise + b"\xff\xd9", bytes(content)):
        header = read_jpeg_header(given_bytes)
        assert header is None or (header.height > 0 and header.width > 0)


def test_the_header_says_what_the_file_holds() -> None:
    header = read_jpeg_header(jpeg(photo(), orientation=3))

    assert header is not None
    assert (header.height, header.width, header.components) == (90, 131, 3)
    assert [one[:4] for one in header.metadata] == [b"Exif"]
    assert read_jpeg_header(jpeg(photo(), mode="L")).components == 1  # type: ignore[union-attr]


def chain(
    mode: str = "stretch", filter_: str = "bilinear", *, antialias: bool = True, color: str = "rgb",
    reduced: str = "never", post: str | None = None, sizes: Sequence[int | str] = ("H", "W"),
    axes: Mapping[str, AxisRange] | None = None,
) -> Preprocessor:  # fmt: skip
    """Decode, resize to 32 by 24, normalise, NCHW."""
    channels = 1 if color == "gray" else 3
    base = release_manifest(["v"])
    spec = msgspec.structs.replace(
        base.signature.inputs[0], shape=["N", *sizes, channels], color=color, accept=["jpeg", "png", "tensor"]
    )
    step = {
        "id": "resize", "op": "resize", "mode": mode, "size": [24, 32], "filter": filter_, "antialias": antialias,
        "pad_value": [114.0], "pad_anchor": "center",
    }  # fmt: skip
    steps = [
        {"id": "decode", "op": "decode", "from": "image", "color": color, "exif": "apply", "reduced": reduced},
        step,
        {"id": "norm", "op": "normalize", "scale": 1.0, "mean": [123.675], "std": [58.395]},
        {"id": "layout", "op": "layout", "to": "NCHW"},
    ]
    fed = ["N", channels, "h", "w"]
    release = msgspec.structs.replace(
        base,
        signature=msgspec.structs.replace(base.signature, inputs=[spec], axes={**base.signature.axes, **(axes or {})}),
        tensors={**base.tensors, "x": msgspec.structs.replace(base.tensors["x"], shape=fed)},
        preprocess={"x": steps},
        postprocess=base.postprocess if post is None else {name: [{"op": post}] for name in base.postprocess},
    )
    return compile_preprocess(release)


@pytest.mark.parametrize("mode", ["stretch", "fit_pad", "fit_crop", "shortest_side"])
@pytest.mark.parametrize("filter_", ["bilinear", "lanczos", "area"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("content", [jpeg(photo()), jpeg(photo(), orientation=6)], ids=["upright", "turned"])
def test_decoding_and_resizing_in_one_go_gives_the_same_numbers(
    mode: str, filter_: str, color: str, content: bytes
) -> None:
    preprocess = chain(mode, filter_, color=color)

    found = prepare(preprocess, {"image": content})

    assert np.array_equal(found.feeds["x"], preprocess({"image": content})["x"])
    decoded = preprocess.decode({"image": content})
    assert found.decoded["image"].shape == decoded["image"].shape
    assert preprocess.placement(found.decoded) == preprocess.placement(decoded)
    assert preprocess.count(found.decoded) == 1
    assert abs(found.seen["image"].mean() - decoded["image"].mean()) < 30


LARGE = photo(400, 600)
"""Of which a model of 32 by 24 needs a fraction: an eighth of it, or a quarter where it stands upright."""


def decoded_size(preprocess: Preprocessor, content: bytes) -> tuple[int, ...]:
    return preprocess.decode({"image": content})["image"].shape[1:3]


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_is_decoded_no_larger_than_a_permitted_resize_needs_and_hardly_looks_different(
    monkeypatch, antialias: bool, color: str, orientation: int
) -> None:
    content = {"image": jpeg(LARGE, orientation=orientation, mode="L" if color == "gray" else "RGB")}
    permitted, whole = (chain(antialias=antialias, color=color, reduced=name) for name in ("allowed", "never"))

    feeds = prepare(permitted, content).feeds["x"]
    in_two = permitted(content)["x"]
    monkeypatch.setattr(opencv, "find_decoder", lambda _: None)
    by_pillow = prepare(permitted, content).feeds["x"]

    assert decoded_size(permitted, content["image"]) == ((50, 75) if orientation == 1 else (150, 100))
    assert np.array_equal(feeds, in_two)
    assert np.array_equal(feeds, by_pillow)
    if antialias:
        assert np.abs(feeds - whole(content)["x"]).mean() * 58.395 < 2


@pytest.mark.parametrize(
    ("mode", "post", "size"),
    [("fit_pad", None, (400, 600)), ("stretch", "detect", (400, 600)), ("stretch", None, (50, 75))],
)
def test_a_picture_whose_own_size_matters_to_the_answer_is_decoded_whole(
    mode: str, post: str | None, size: tuple[int, int]
) -> None:
    assert decoded_size(chain(mode, reduced="allowed", post=post), jpeg(LARGE)) == size


@pytest.mark.parametrize(("size", "left"), [((192, 256), (24, 32)), ((48, 64), (24, 32)), ((200, 256), (200, 256))])
def test_where_only_an_exact_scale_is_permitted_nothing_else_is_reduced(
    size: tuple[int, int], left: tuple[int, int]
) -> None:
    assert decoded_size(chain(reduced="exact_scale"), jpeg(photo(*size))) == left


def test_a_file_of_several_pictures_is_reduced_with_and_without_opencv(monkeypatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(LARGE).save(buffer, "MPO", save_all=True, append_images=[Image.fromarray(LARGE[::-1])])
    preprocess, content = chain(antialias=False, reduced="allowed"), buffer.getvalue()

    sooner = preprocess.decode({"image": content})["image"]
    monkeypatch.setattr(opencv, "find_decoder", lambda *_: None)
    by_pillow = preprocess.decode({"image": content})["image"]

    assert sooner.shape[1:3] == (50, 75)
    assert np.array_equal(sooner, by_pillow)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("reduced", ["never", "exact_scale", "allowed"])
@pytest.mark.parametrize(
    ("sizes", "axes", "right", "wrong"),
    [
        ([96, 128], {}, (96, 128), (192, 256)),
        (["H", "W"], {"H": AxisRange(min=48, max=100)}, (96, 128), (192, 256)),
        (["H", "W"], {"W": AxisRange(min=40, max=500)}, (48, 64), (24, 32)),
    ],
    ids=["fixed", "at most", "at least"],
)
def test_pictures_that_a_release_takes_are_the_same_whether_they_are_reduced_or_not(
    antialias: bool, reduced: str, sizes: list[int | str], axes: dict[str, AxisRange],
    right: tuple[int, int], wrong: tuple[int, int],
) -> None:  # fmt: skip
    preprocess = chain(antialias=antialias, reduced=reduced, sizes=sizes, axes=axes)

    taken = prepare(preprocess, {"image": jpeg(photo(*right))})

    assert taken.feeds["x"].shape == (1, 3, 24, 32)
    with pytest.raises(InferenceError, match="cannot take input image"):
        prepare(preprocess, {"image": jpeg(photo(*wrong))})


def test_a_file_that_is_no_jpeg_is_decoded_whole() -> None:
    buffer = io.BytesIO()
    Image.fromarray(LARGE).save(buffer, "PNG")

    assert decoded_size(chain(reduced="allowed"), buffer.getvalue()) == (400, 600)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600), st.integers(1, 600))
def test_a_reduced_picture_keeps_what_must_be_left(height: int, width: int, least_h: int, least_w: int) -> None:
    factor = reducing_factor(Reduction((least_h, least_w), is_exact=False, most=(5000, 5000)), height, width)

    assert factor == 1 or (height // factor >= least_h and width // factor >= least_w)
    assert factor == 8 or height // (2 * factor) < least_h or width // (2 * factor) < least_w


def test_a_resize_in_one_go_does_not_take_the_whole_picture_out_of_pillow(monkeypatch) -> None:
    sizes = []
    real = images.pixels_of
    monkeypatch.setattr(images, "pixels_of", lambda picture: sizes.append(picture.size) or real(picture))

    prepare(chain(), {"image": jpeg(photo())})

    assert sizes == [(32, 24)]


def test_arrays_and_opencvs_resize_go_the_usual_way() -> None:
    pixels = photo()[None]
    for preprocess in (chain(), chain(antialias=False)):
        found = prepare(preprocess, {"image": pixels})
        assert np.array_equal(found.feeds["x"], preprocess({"image": pixels})["x"])
    content = jpeg(photo())
    feeds = prepare(chain(antialias=False), {"image": content}).feeds
    resized = cv2.resize(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB), (32, 24))
    normalised = (resized.astype(np.float32) - np.float32(123.675)) / np.float32(58.395)
    assert np.array_equal(feeds["x"][0], normalised.transpose(2, 0, 1))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xd9", jpeg(photo())[:-100], b"GIF89a"])
def test_what_is_no_picture_is_refused_in_one_go_as_well(content: bytes) -> None:
    with pytest.raises(InferenceError, match="not a complete JPEG"):
        prepare(chain(), {"image": content})


@pytest.mark.parametrize(("mean", "std"), [([0.0], [255.0]), ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])])
def test_normalising_by_table_gives_the_bits_that_arithmetic_gives(mean: list[float], std: list[float]) -> None:
    step = build_image_step(Normalize(id="norm", scale=0.5, mean=mean, std=std))
    pixels = photo()[None]

    by_table = step(Value(pixels, "NHWC", "rgb")).array

    computed = (pixels.astype(np.float32) * np.float32(0.5) - np.float32(mean)) / np.float32(std)
    assert by_table.dtype == np.float32
    assert np.array_equal(by_table, computed)
    assert by_table.transpose(0, 3, 1, 2).flags.c_contiguous


def test_a_build_of_opencv_that_answers_otherwise_is_not_used(monkeypatch) -> None:
    real = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda *given, **wishes: real(*given, **wishes) ^ 1)

    assert opencv._scaler.__wrapped__() is None
    monkeypatch.setattr(opencv, "_JPEG_PIXELS", dict.fromkeys((1, 2, 4, 8), 0))
    assert [opencv.find_decoder.__wrapped__(factor) for factor in (1, 2, 4, 8)] == [None] * 4


def test_this_build_of_opencv_is_used() -> None:
    assert opencv._scaler() is cv2
    assert all(opencv.find_decoder(factor) is cv2 for factor in (1, 2, 4, 8))
