"""The audio front end against definitions written out here, and against libraries of the same semantics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct as scipy_dct
from scipy.signal import resample_poly

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.steps import parse_preprocess
from edge_runtime.inference.preprocessing.audio_steps import build_audio_step, mel_bank
from edge_runtime.inference.preprocessing.values import Value

RANDOM = np.random.default_rng(5)
RATE = 16000


def run(array, *raw, layout="NT", rate_hz=RATE):
    steps = parse_preprocess([{"id": f"s{number}", **step} for number, step in enumerate(raw)])
    value = Value(np.asarray(array, np.float32), layout, None, rate_hz)
    for number, step in enumerate(steps):
        value = build_audio_step(step, steps[number + 1] if number + 1 < len(steps) else None)(value)
    return value


FRAME = {"op": "frame", "length": 4, "hop": 3, "tail": "drop"}
STFT = {"op": "stft", "fft": 8, "window": "hann_periodic", "center": False, "power": 1}


def test_whole_frames_are_cut_and_a_tail_is_dropped_or_filled_as_written() -> None:
    signal = [[1, 2, 3, 4, 5, 6, 7, 8, 9]]

    dropped = run(signal, FRAME).array
    filled = run(signal, FRAME | {"tail": "pad_zero"}).array
    mirrored = run(signal, FRAME | {"tail": "reflect"}).array

    assert dropped.tolist() == [[[1, 2, 3, 4], [4, 5, 6, 7]]]
    assert filled.tolist() == [[[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 0]]]
    assert mirrored.tolist() == [[[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 8]]]


def test_context_puts_the_samples_before_a_frame_in_front_of_it() -> None:
    framed = run([[1, 2, 3, 4]], {"op": "frame", "length": 2, "hop": 2, "tail": "drop", "context": 1})

    assert framed.array.tolist() == [[[0, 1, 2], [2, 3, 4]]]


def test_a_sound_shorter_than_a_frame_is_refused_unless_it_is_filled() -> None:
    with pytest.raises(InferenceError, match="it has 3 samples, one frame takes 4"):
        run([[1, 2, 3]], FRAME)
    assert run([[1, 2, 3]], FRAME | {"tail": "pad_zero"}).array.tolist() == [[[1, 2, 3, 0]]]


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=20), st.sampled_from([1, 2]),
    st.sampled_from(["hann_periodic", "hann_symmetric", "hamming"]),
)  # fmt: skip
def test_a_spectrum_is_the_sum_that_defines_it(samples: list[float], power: int, window: str) -> None:
    length, fft = len(samples), 20 + len(samples) % 2
    fft += fft % 2
    shapes = {"hann_periodic": np.hanning(length + 1)[:-1], "hann_symmetric": np.hanning(length)}
    shape = shapes.get(window, np.hamming(length))
    turns = np.exp(-2j * np.pi * np.outer(np.arange(fft // 2 + 1), np.arange(length)) / fft)
    expected = np.abs(turns @ (np.asarray(samples) * shape)) ** power

    spectrum = run([[samples]], STFT | {"fft": fft, "window": window, "power": power}, layout="NTC").array[0, 0]

    assert spectrum == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_a_centred_transform_sees_the_first_sample_in_the_middle_of_its_first_frame() -> None:
    signal = np.zeros((1, 16))
    signal[0, 0] = 1.0
    centred = STFT | {"center": True, "window": "hann_periodic"}

    spectrum = run(signal, {"op": "frame", "length": 8, "hop": 4, "tail": "pad_zero"}, centred).array

    assert spectrum.shape == (1, 5, 5)
    assert spectrum[0, 0] == pytest.approx(np.ones(5), abs=1e-6)


def test_a_centred_transform_must_know_what_lies_outside() -> None:
    with pytest.raises(ContractError, match="write tail pad_zero or reflect"):
        run(np.zeros((1, 16)), FRAME, STFT | {"center": True})


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_filters_are_triangles_over_evenly_spaced_mels(scale: str) -> None:
    bank = mel_bank(10, (0.0, 8000.0), fft=4096, rate_hz=RATE, scale=scale, norm="none")

    peaks_hz = bank.argmax(axis=0) * RATE / 4096
    if scale == "htk":
        mels = 2595 * np.log10(1 + peaks_hz / 700)
    else:
        logarithmic = 15 + 27 * np.log(np.maximum(peaks_hz, 1) / 1000) / np.log(6.4)
        mels = np.where(peaks_hz < 1000, peaks_hz * 0.015, logarithmic)
    assert np.diff(mels) == pytest.approx(np.full(9, np.diff(mels).mean()), rel=0.02)
    assert bank.sum(axis=1)[bank.argmax(axis=0)[0] + 1 : bank.argmax(axis=0)[-1]] == pytest.approx(1.0)
    assert bank.min() == 0


def test_slaneys_norm_gives_every_filter_the_same_area() -> None:
    bank = mel_bank(10, (0.0, 8000.0), fft=4096, rate_hz=RATE, scale="slaney", norm="slaney")

    assert bank.sum(axis=0) * RATE / 4096 == pytest.approx(np.ones(10), rel=0.01)


def test_mel_bands_beyond_half_the_sample_rate_are_refused() -> None:
    step = {"op": "mel", "bins": 4, "fmin_hz": 0.0, "fmax_hz": 9000.0, "scale": "htk", "norm": "none"}
    with pytest.raises(ContractError, match="within half of 16000 Hz"):
        run(np.ones((1, 2, 9)), step, layout="NTC")


def test_cepstra_are_scipys_orthonormal_cosine_transform() -> None:
    features = RANDOM.normal(size=(2, 3, 40)).astype(np.float32)

    cepstra = run(features, {"op": "dct", "type": 2, "norm": "ortho", "keep": 10}, layout="NTC").array

    assert cepstra == pytest.approx(scipy_dct(features, type=2, norm="ortho", axis=2)[..., :10], abs=1e-5)


def test_logarithms_say_how_they_meet_zero() -> None:
    numbers = [[0.0, 1.0, 100.0]]

    assert run(numbers, {"op": "log", "kind": "ln", "add": 1.0}).array[0] == pytest.approx(np.log([1, 2, 101]))
    assert run(numbers, {"op": "log", "kind": "log10", "floor": 0.1}).array[0] == pytest.approx([-1, 0, 2])
    decibels = run(numbers, {"op": "log", "kind": "db", "floor": 1.0, "ref": 10.0}).array[0]
    assert decibels == pytest.approx([-10, -10, 10])
    with pytest.raises(ContractError, match="either add or floor"):
        run(numbers, {"op": "log", "kind": "ln"})


def test_amplitudes_are_scaled_and_silence_stays_silent() -> None:
    assert run([[-2, 1]], {"op": "amplitude", "mode": "peak"}).array.tolist() == [[-1, 0.5]]
    loud = run([[3, -4]], {"op": "amplitude", "mode": "rms"}).array[0]
    assert loud == pytest.approx(np.array([3, -4]) / np.sqrt(12.5))
    assert run([[-32768, 16384]], {"op": "amplitude", "mode": "int16_to_unit"}).array.tolist() == [[-1, 0.5]]
    assert run([[0, 0]], {"op": "amplitude", "mode": "peak"}).array.tolist() == [[0, 0]]


def test_channels_are_averaged_into_one() -> None:
    mono = run([[[1, 3], [5, 7]]], {"op": "mono"}, layout="NTC")

    assert (mono.layout, mono.array.tolist()) == ("NT", [[2, 6]])


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (8000, 16000), (16000, 11025), (48000, 16000)])
def test_polyphase_resampling_is_scipys(rate: int, wanted: int) -> None:
    signal = RANDOM.normal(size=(1, 400)).astype(np.float32)
    common = np.gcd(rate, wanted)

    resampled = run(signal, {"op": "resample", "rate_hz": wanted, "quality": "polyphase"}, rate_hz=rate)

    assert resampled.rate_hz == wanted
    expected = resample_poly(signal[0].astype(float), wanted // common, rate // common)
    assert resampled.array[0] == pytest.approx(expected, abs=1e-5)


def test_a_quality_of_resampling_that_is_not_built_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="quality 'best' is not built"):
        run([[1, 2]], {"op": "resample", "rate_hz": 8000, "quality": "best"})


def test_stacking_joins_neighbouring_frames() -> None:
    stacked = run([[[1, 2], [3, 4], [5, 6]]], {"op": "stack", "frames": 2, "hop": 1}, layout="NTC")

    assert stacked.array.tolist() == [[[1, 2, 3, 4], [3, 4, 5, 6]]]


@pytest.mark.parametrize(
    "step",
    [
        FRAME | {"hop": 0},
        FRAME | {"length": -1},
        STFT | {"fft": 1 << 40},
        {"op": "stack", "frames": 0, "hop": 1},
        {"op": "resample", "rate_hz": 0, "quality": "linear"},
        {"op": "mel", "bins": 1 << 30, "fmin_hz": 0.0, "fmax_hz": 1.0, "scale": "htk", "norm": "none"},
        {"op": "dct", "type": 2, "norm": "ortho", "keep": 0},
        {"op": "resize", "mode": "stretch", "size": [0, 5], "filter": "nearest", "antialias": False},
    ],
)
def test_a_size_that_no_machine_can_mean_is_refused_when_it_is_read(step) -> None:
    with pytest.raises(ContractError, match="Expected `int`"):
        parse_preprocess([{"id": "s"} | step])


@pytest.mark.parametrize("tail", ["pad_zero", "reflect"])
@pytest.mark.parametrize(("length", "fft", "hop"), [(400, 512, 160), (401, 512, 160), (512, 512, 128), (7, 16, 3)])
def test_a_short_window_lies_in_the_middle_of_a_centred_transform(tail: str, length: int, fft: int, hop: int) -> None:
    signal = RANDOM.normal(size=1000)
    frame = {"op": "frame", "length": length, "hop": hop, "tail": tail}

    spectrum = run([signal], frame, STFT | {"fft": fft, "center": True}).array[0]

    # As torch.stft writes it: the signal grows by half a transform, the window is filled with zeros on both sides.
    around = np.pad(np.float32(signal), fft // 2, mode="reflect" if tail == "reflect" else "constant")
    left = (fft - length) // 2
    window = np.pad(np.hanning(length + 1)[:-1], (left, fft - length - left))
    starts = range(0, len(around) - fft + 1, hop)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(fft), np.arange(fft // 2 + 1)) / fft)
    expected = np.abs(np.stack([around[start : start + fft] * window for start in starts]) @ turns)
    assert spectrum.shape == expected.shape == (1 + 1000 // hop, fft // 2 + 1)
    assert spectrum == pytest.approx(expected, abs=1e-4, rel=1e-4)
