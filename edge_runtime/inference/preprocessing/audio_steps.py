"""The audio front end: amplitudes, frames, spectra, mel bands, cepstra. Computed in float64, handed on as float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import gcd
from typing import Final

import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.sound_steps import Amplitude, Dct, Frame, Log, Mel, Mono, Resample, Stack, Stft
from edge_runtime.contract.steps import PreStep, op_of
from edge_runtime.inference.backend import Array
from edge_runtime.inference.preprocessing.values import Step, Value

_INT16_UNIT: Final = 32768.0
_NUMBERS_MAX: Final = 1 << 27
"""Of all frames of one call: an hour of usual speech features."""
_KAISER_BETA: Final = 5.0
_SINC_REACH: Final = 10
"""Zero crossings of the interpolating sinc on either side, and its window: scipy.signal.resample_poly's defaults."""


def build_audio_step(step: PreStep, following: PreStep | None) -> Step:
    """One step as a function of the value before it.

    Args:
        step: what to do.
        following: the step after it; a centred transform decides how the frames before it are cut.

    Raises:
        UnsupportedFeature: another operation, or a value of it that is not built.
        ContractError: a field is missing, or the two steps do not fit together.
    """
    match step:
        case Mono():
            return _mono
        case Resample():
            return partial(_resample, step=step)
        case Amplitude():
            return partial(_amplitude, step=step)
        case Frame():
            return partial(_frame, step=step, extend=centred_reach(step, following))
        case Stft():
            return partial(_stft, step=step)
        case Mel():
            return partial(_mel, step=step)
        case Log():
            return partial(_log, step=_whole(step))
        case Dct():
            return partial(_dct, step=step)
        case Stack():
            return partial(_stack, step=step)
        case _:
            op = op_of(step)
            raise UnsupportedFeature(f"run preprocess step {op} ({step.id})", "it does not work on audio")


@lru_cache(maxsize=8)
def mel_bank(bins: int, edges_hz: tuple[float, float], *, fft: int, rate_hz: int, scale: str, norm: str) -> Array:
    """Mel filters float64 [fft // 2 + 1, bins]: triangles over edges that are evenly spaced on the mel scale.

    HTK: mel = 2595 · log10(1 + f / 700) (Young et al., The HTK Book, 5.4). Slaney: linear below 1 kHz, then 27 steps
    per factor 6.4 (Slaney, Auditory Toolbox, 1998), and its norm, 2 / width in Hz, gives every filter the same area.
    """
    to_mel, to_hz = _SCALES[scale]
    low, high = to_mel(np.asarray(edges_hz, np.float64))
    edges = to_hz(np.linspace(low, high, bins + 2))
    frequencies = np.arange(fft // 2 + 1)[:, None] * (rate_hz / fft)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    bank: Array = np.maximum(0.0, np.minimum(rising, falling))
    return bank * (2.0 / (right - left)) if norm == "slaney" else bank


def _float32(value: Value, array: Array, layout: str) -> Value:
    return Value(array.astype(np.float32), layout, None, value.rate_hz)


def _signal(value: Value, op: str, layout: str) -> Array:
    if value.layout != layout:
        wanted = "one channel over time" if layout == "NT" else "features over time"
        raise ContractError(f"run preprocess step {op}", f"it works on {wanted} ({layout}), not on {value.layout}")
    return value.array.astype(np.float64)


def _mono(value: Value) -> Value:
    if value.layout == "NT":
        return value
    return _float32(value, _signal(value, "mono", "NTC").mean(axis=2), "NT")


def _amplitude(value: Value, *, step: Amplitude) -> Value:
    if step.mode == "none":
        return value
    if value.layout not in {"NT", "NTC"}:
        raise ContractError("run preprocess step amplitude", f"it works on samples over time, not on {value.layout}")
    signal = value.array.astype(np.float64)
    axes = tuple(range(1, signal.ndim))
    if step.mode == "int16_to_unit":
        return _float32(value, signal / _INT16_UNIT, value.layout)
    if step.mode == "peak":
        loudness = np.abs(signal).max(axis=axes, keepdims=True)
    else:
        loudness = np.sqrt(np.square(signal).mean(axis=axes, keepdims=True))
    # Silence stays silence.
    return _float32(value, signal / np.where(loudness > 0, loudness, 1.0), value.layout)


def _resample(value: Value, *, step: Resample) -> Value:
    if value.rate_hz is None:
        raise ContractError(f"run preprocess step resample ({step.id})", "the input does not say its sample rate")
    signal = _signal(value, "resample", "NT")
    common = gcd(step.rate_hz, value.rate_hz)
    up, down = step.rate_hz // common, value.rate_hz // common
    match step.quality:
        case "linear":
            positions = np.arange(-(-signal.shape[1] * up // down)) * (down / up)
            changed = np.stack([np.interp(positions, np.arange(row.size), row) for row in signal])
        case "polyphase":
            changed = signal if up == down else np.stack([_polyphase(row, up, down) for row in signal])
        case _:
            raise UnsupportedFeature(
                f"run preprocess step resample ({step.id})", f"quality {shown(step.quality)} is not built",
                "write linear or polyphase",
            )  # fmt: skip
    return Value(changed.astype(np.float32), "NT", None, step.rate_hz)


def _polyphase(row: Array, up: int, down: int) -> Array:
    """A row of samples at up / down of its rate: zeros between samples, low-pass, every `down`-th kept."""
    widest = max(up, down)
    reach = _SINC_REACH * widest
    taps = np.arange(-reach, reach + 1)
    low_pass = np.sinc(taps / widest) * np.kaiser(2 * reach + 1, _KAISER_BETA)
    low_pass *= up / low_pass.sum()
    count = -(-row.size * up // down)
    out = np.empty(count)
    # Only every up-th tap meets a sample, so each phase of the filter is used alone.
    for phase in range(min(up, count)):
        centres = np.arange(phase, count, up) * down
        first = (centres[0] + reach) % up
        chosen = low_pass[first::up]
        last = (centres + reach - first) // up
        windows = last[:, None] - np.arange(chosen.size)
        inside = (windows >= 0) & (windows < row.size)
        out[phase::up] = np.where(inside, row[np.clip(windows, 0, row.size - 1)], 0.0) @ chosen
    return out


def centred_reach(step: Frame, following: PreStep | None) -> tuple[int, int]:
    """Samples that a centred transform adds before and after, less those that its window leaves out at both ends.

    A window shorter than the transform lies in its middle, as torch.stft and librosa.stft place it; of an even
    transform's half, (length + 1) // 2 and length // 2 samples remain.
    """
    if not (isinstance(following, Stft) and following.center):
        return 0, 0
    if step.tail == "drop":
        raise ContractError(
            f"run preprocess step frame ({step.id})", "a centred transform needs its tail to say what lies outside",
            "write tail pad_zero or reflect",
        )  # fmt: skip
    return (step.length + 1) // 2, step.length // 2


def _frame(value: Value, *, step: Frame, extend: tuple[int, int]) -> Value:
    """[N, T] to [N, frames, context + length]."""
    signal = _signal(value, "frame", "NT")
    mode = {"drop": "constant", "pad_zero": "constant", "reflect": "reflect"}[step.tail]
    if step.context:
        signal = np.pad(signal, ((0, 0), (step.context, 0)))
    is_centred = extend != (0, 0)
    if is_centred:
        signal = _padded(signal, *extend, mode)
    length = step.context + step.length
    if step.tail != "drop" and not is_centred:
        short = max(length - signal.shape[1], -(signal.shape[1] - length) % step.hop)
        signal = _padded(signal, 0, short, mode)
    if signal.shape[1] < length:
        because = f"it has {value.array.shape[1]} samples, one frame takes {step.length}"
        raise InferenceError("prepare a sound", because, "give a longer one")
    windows = np.lib.stride_tricks.sliding_window_view(signal, length, axis=1)[:, :: step.hop]
    if windows.size > _NUMBERS_MAX:
        because = f"its {windows.shape[1]} frames of {length} samples do not fit into memory"
        raise InferenceError("prepare a sound", because, "give a shorter one")
    return _float32(value, windows, "NTC")


def _padded(signal: Array, before: int, after: int, mode: str) -> Array:
    if mode == "reflect" and signal.shape[1] <= max(before, after):
        because = f"{signal.shape[1]} samples are too few to reflect"
        raise InferenceError("prepare a sound", because, "give a longer one")
    widths = ((0, 0), (before, after))
    return np.pad(signal, widths, mode="reflect") if mode == "reflect" else np.pad(signal, widths)


def _stft(value: Value, *, step: Stft) -> Value:
    """[N, frames, samples] to [N, frames, fft // 2 + 1]."""
    frames = _signal(value, "stft", "NTC")
    length = frames.shape[2]
    if length > step.fft or step.fft % 2:
        because = f"frames of {length} samples do not fit a transform of {step.fft}, which must be even"
        raise ContractError(f"run preprocess step stft ({step.id})", because)
    magnitudes = np.abs(np.fft.rfft(frames * _window(step.window, length), step.fft))
    return _float32(value, magnitudes if step.power == 1 else np.square(magnitudes), "NTC")


@lru_cache(maxsize=8)
def _window(kind: str, length: int) -> Array:
    """Hann 0.5 − 0.5·cos and Hamming 0.54 − 0.46·cos (Harris, Proc. IEEE 66, 1978); a periodic one lacks its last zero.

    `hamming` is symmetric, as numpy.hamming.
    """
    period = length if kind == "hann_periodic" else max(length - 1, 1)
    cosine = np.cos(2 * np.pi * np.arange(length) / period)
    return 0.54 - 0.46 * cosine if kind == "hamming" else 0.5 - 0.5 * cosine


def _mel(value: Value, *, step: Mel) -> Value:
    spectrum = _signal(value, "mel", "NTC")
    if value.rate_hz is None:
        raise ContractError(f"run preprocess step mel ({step.id})", "the input does not say its sample rate")
    fft = 2 * (spectrum.shape[2] - 1)
    if not 0 <= step.fmin_hz < step.fmax_hz <= value.rate_hz / 2:
        because = f"{step.fmin_hz:g} to {step.fmax_hz:g} Hz do not lie within half of {value.rate_hz} Hz"
        raise ContractError(f"run preprocess step mel ({step.id})", because)
    edges = step.fmin_hz, step.fmax_hz
    bank = mel_bank(step.bins, edges, fft=fft, rate_hz=value.rate_hz, scale=step.scale, norm=step.norm)
    return _float32(value, spectrum @ bank, "NTC")


def _slaney_to_mel(hz: Array) -> Array:
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def _slaney_to_hz(mel: Array) -> Array:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27))


_SCALES: Final[dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]]] = {
    "htk": (lambda hz: 2595 * np.log10(1 + hz / 700), lambda mel: 700 * (10 ** (mel / 2595) - 1)),
    "slaney": (_slaney_to_mel, _slaney_to_hz),
}


def _whole(step: Log) -> Log:
    if (step.add is None) == (step.floor is None):
        raise ContractError(f"run preprocess step log ({step.id})", "it must say either add or floor, not both")
    if step.kind == "db" and not step.ref:
        raise ContractError(f"run preprocess step log ({step.id})", "decibels need ref")
    return step


def _log(value: Value, *, step: Log) -> Value:
    numbers = value.array.astype(np.float64)
    numbers = np.maximum(numbers, step.floor) if step.floor is not None else numbers + (step.add or 0.0)
    if step.kind == "ln":
        logged = np.log(numbers)
    else:
        logged = np.log10(numbers) if step.kind == "log10" else 10 * np.log10(numbers / (step.ref or 1.0))
    return Value(logged.astype(np.float32), value.layout, None, value.rate_hz)


def _dct(value: Value, *, step: Dct) -> Value:
    features = _signal(value, "dct", "NTC")
    if step.keep > features.shape[2]:
        because = f"{features.shape[2]} bands have no {step.keep} coefficients"
        raise ContractError(f"run preprocess step dct ({step.id})", because)
    return _float32(value, features @ _cosines(features.shape[2], step.keep), "NTC")


@lru_cache(maxsize=8)
def _cosines(size: int, keep: int) -> Array:
    """Orthonormal DCT-II [size, keep] (Ahmed, Natarajan, Rao, IEEE Trans. Comput. C-23, 1974)."""
    angles = np.pi * (2 * np.arange(size)[:, None] + 1) * np.arange(keep) / (2 * size)
    basis: Array = np.cos(angles) * np.sqrt(2 / size)
    basis[:, 0] /= np.sqrt(2)
    return basis


def _stack(value: Value, *, step: Stack) -> Value:
    """[N, T, C] to [N, windows, frames · C], frame after frame."""
    if value.layout != "NTC":
        raise ContractError("run preprocess step stack", f"it works on features over time (NTC), not on {value.layout}")
    count, length, channels = value.array.shape
    if length < step.frames:
        because = f"it has {length} frames, one window takes {step.frames}"
        raise InferenceError("prepare a sound", because, "give a longer one")
    windows = np.lib.stride_tricks.sliding_window_view(value.array, step.frames, axis=1)[:, :: step.hop]
    stacked = windows.transpose(0, 1, 3, 2).reshape(count, windows.shape[1], step.frames * channels)
    return Value(stacked, "NTC", None, value.rate_hz)
