"""Sound files, whole and broken."""

from __future__ import annotations

import io
import struct
import wave

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.tensor import InputSpec
from edge_runtime.inference.preprocessing.wav import decode_audio

SPEC = InputSpec(
    name="audio", kind="audio", dtype="float32", shape=["T"], sample_rate_hz=16000, channels=1, accept=["wav"]
)


def spec(**changes) -> InputSpec:
    return msgspec.structs.replace(SPEC, **changes)


def wav(samples: bytes, *, channels=1, rate=16000, bits=16, code=1, extra=b"") -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def test_16_bit_samples_become_unit_floats_or_stay_as_they_are() -> None:
    content = wav(np.array([-32768, 16384, 0], "<i2").tobytes())

    assert decode_audio(content, SPEC).tolist() == [-1.0, 0.5, 0.0]
    exact = decode_audio(content, spec(dtype="int16"))
    assert (exact.dtype, exact.tolist()) == (np.int16, [-32768, 16384, 0])


def test_a_file_of_pythons_own_writer_is_read() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(16000)
        writer.writeframes(np.array([1, 2, 3, 4], "<i2").tobytes())

    signal = decode_audio(buffer.getvalue(), spec(channels=2, shape=["T", 2], dtype="int16"))

    assert signal.tolist() == [[1, 2], [3, 4]]


def test_other_sample_formats_mean_the_same_sound() -> None:
    wide = np.array([[0, 0, 64], [0, 0, 192]], np.uint8).tobytes()

    assert decode_audio(wav(wide, bits=24), SPEC).tolist() == [0.5, -0.5]
    assert decode_audio(wav(bytes([192, 64]), bits=8), SPEC).tolist() == [0.5, -0.5]
    assert decode_audio(wav(np.array([1 << 30], "<i4").tobytes(), bits=32), SPEC).tolist() == [0.5]
    assert decode_audio(wav(np.array([0.25], "<f4").tobytes(), bits=32, code=3), SPEC).tolist() == [0.25]
    guid = struct.pack("<HHI", 22, 16, 0) + struct.pack("<H", 1) + b"\0" * 14
    assert decode_audio(wav(np.array([16384], "<i2").tobytes(), code=0xFFFE, extra=guid), SPEC).tolist() == [0.5]


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (wav(b"\0\0", rate=8000), "it has 8000 samples a second, the model takes 16000"),
        (wav(b"\0\0\0\0", channels=2), "it has 2 channels, the model takes 1"),
        (wav(b"\0\0\0"), "its last sample is cut"),
        (wav(b"\0\0", bits=0), "it has 1 channels of 0 bits"),
        (wav(b"\0" * 5, bits=40), "it has 1 channels of 40 bits"),
        (wav(b"\0\0")[:-1], "it ends early"),
        (wav(b"\0\0", code=2), "format 2 with 16 bits is not plain PCM; save it as 16-bit PCM"),
        (b"ID3 and so on", "the model accepts wav"),
        (b"RIFF\0\0\0\0AVI ", "it is RIFF but no WAVE"),
        (b"RIFF\0\0\0\0WAVE", "it has no samples"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(content: bytes, because: str) -> None:
    with pytest.raises(InferenceError, match=because):
        decode_audio(content, SPEC)


def test_raw_samples_are_taken_where_the_model_says_so() -> None:
    assert decode_audio(b"\0\x40", spec(accept=["s16le"])).tolist() == [0.5]


@given(st.binary(max_size=80), st.integers(0, 60))
def test_no_damage_of_a_file_ends_in_anything_but_a_refusal(noise: bytes, position: int) -> None:
    whole = wav(np.arange(8, dtype="<i2").tobytes())

    try:
        signal = decode_audio(whole[:position] + noise + whole[position + len(noise) :], SPEC)
    except InferenceError:
        return
    assert signal.dtype == np.float32
