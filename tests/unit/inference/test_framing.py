"""Sound in pieces becomes the rows that the whole sound becomes: every tail, centred frames, stacks."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.contract.errors import EdgeError, InferenceError, UnsupportedFeature
from edge_runtime.contract.release import StreamSpec
from edge_runtime.contract.tensor import TensorSpec
from edge_runtime.inference.preprocessing.framing import FrameBuffer, Framing, compile_framing
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess
from tests.fakes.streams import Hearing


def preprocessor(*steps: dict[str, Any], width: int, channels: int = 1, dtype: str = "float32") -> Preprocessor:
    """Of a release whose stream goes through these steps into a tensor [N, width]."""
    release = Hearing().release()
    named = [{"id": str(number), **step} for number, step in enumerate(steps)]
    shape: list[int | str] = ["T"] if channels == 1 else ["T", channels]
    (sound,) = release.signature.inputs
    sound = msgspec.structs.replace(sound, shape=shape, channels=channels, dtype=dtype)
    release = msgspec.structs.replace(
        release,
        signature=msgspec.structs.replace(release.signature, inputs=[sound]),
        tensors={"input": TensorSpec(dtype="float32", shape=["N", width])},
        preprocess={"input": [{**named[0], "from": "audio"}, *named[1:]]},
        states=[],
        stream=StreamSpec(unit="frame", session="required"),
    )
    return compile_preprocess(release)


def framing_of(preprocess: Preprocessor) -> Framing:
    framing = compile_framing(preprocess)
    assert framing is not None
    return framing


def in_pieces(preprocess: Preprocessor, sound: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    framing = framing_of(preprocess)
    buffer, rows, start, turn = FrameBuffer(framing), [], 0, 0
    while start < len(sound):
        size = sizes[turn % len(sizes)]
        rows += buffer.push(framing.samples(framing.piece(sound[start : start + size])))
        start, turn = start + size, turn + 1
    return [*rows, *buffer.finish()]


SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any)


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 120), sizes=SIZES, length=st.integers(1, 20), hop=st.integers(1, 25),
    context=st.integers(0, 9), tail=st.sampled_from(["drop", "pad_zero", "reflect"]),
)  # fmt: skip
def test_frames_of_pieces_are_the_frames_of_the_whole(count, sizes, length, hop, context, tail) -> None:
    frame = {"op": "frame", "length": length, "hop": hop, "context": context, "tail": tail}
    preprocess = preprocessor(frame, width=length + context)
    sound = np.random.default_rng(count).standard_normal(count).astype(np.float32)

    try:
        whole = preprocess.after_decode({"audio": sound})["input"]
    except InferenceError as error:
        if "too few to reflect" in str(error):
            with pytest.raises(InferenceError, match="too few to reflect"):
                in_pieces(preprocess, sound, sizes)
        else:
            assert in_pieces(preprocess, sound, sizes) == []
        return
    rows = in_pieces(preprocess, sound, sizes)

    assert all(row.shape == (1, length + context) for row in rows)
    assert np.array_equal(np.concatenate(rows), whole)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(20, 200), sizes=SIZES, tail=st.sampled_from(["pad_zero", "reflect"]), length=st.integers(3, 16),
    frames=st.integers(1, 4), hop=st.integers(1, 3), centred=st.booleans(),
)  # fmt: skip
def test_features_of_stacked_frames_are_those_of_the_whole(count, sizes, tail, length, frames, hop, centred) -> None:
    preprocess = preprocessor(
        {"op": "amplitude", "mode": "none"},
        {"op": "frame", "length": length, "hop": 5, "tail": tail},
        {"op": "stft", "fft": 16, "window": "hann_periodic", "center": centred, "power": 1},
        {"op": "mel", "bins": 4, "fmin_hz": 0.0, "fmax_hz": 500.0, "scale": "htk", "norm": "none"},
        {"op": "log", "kind": "ln", "add": 1e-6},
        {"op": "stack", "frames": frames, "hop": hop},
        width=4 * frames,
    )
    sound = np.random.default_rng(count).standard_normal(count).astype(np.float32)

    try:
        whole = preprocess.after_decode({"audio": sound})["input"]
    except EdgeError:
        return
    once, again = in_pieces(preprocess, sound, sizes), in_pieces(preprocess, sound, [count])

    # Frame after frame rounds otherwise than all at once; the pieces themselves change nothing.
    assert np.allclose(np.concatenate(once), whole, atol=1e-5)
    assert np.array_equal(np.concatenate(once), np.concatenate(again))


def test_channels_and_whole_numbers_become_one_sound() -> None:
    preprocess = preprocessor(
        {"op": "mono"}, {"op": "amplitude", "mode": "int16_to_unit"},
        {"op": "frame", "length": 4, "hop": 4, "tail": "drop"},
        width=4, channels=2, dtype="int16",
    )  # fmt: skip
    sound = np.random.default_rng(0).integers(-32768, 32767, (40, 2)).astype(np.int16)

    whole = preprocess.after_decode({"audio": sound})["input"]

    assert np.allclose(np.concatenate(in_pieces(preprocess, sound, [7])), whole, atol=1e-7)


def test_a_buffer_keeps_no_more_than_the_next_frames_need() -> None:
    frame = {"op": "frame", "length": 8, "hop": 8, "context": 4, "tail": "reflect"}
    buffer = FrameBuffer(framing_of(preprocessor(frame, width=12)))

    for _ in range(50):
        list(buffer.push(np.zeros(1000, np.float32)))

    assert buffer._waiting.size < 40
    assert buffer.heard == 50000


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"op": "amplitude", "mode": "peak"}, r"step amplitude \(0\) must know the whole sound"),
        ({"op": "amplitude", "mode": "rms"}, "must know the whole sound"),
        ({"op": "resample", "rate_hz": 500, "quality": "linear"}, "give the stream in the model's own rate"),
    ],
)
def test_what_must_know_the_whole_sound_is_refused_for_a_stream(step, reason) -> None:
    preprocess = preprocessor(step, {"op": "frame", "length": 8, "hop": 8, "tail": "drop"}, width=8)

    with pytest.raises(UnsupportedFeature, match=reason):
        compile_framing(preprocess)
