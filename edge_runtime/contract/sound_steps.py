"""The steps that make numbers of sounds; only models that listen wait for them."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Annotated, Literal

import msgspec

from edge_runtime.contract.steps import Count, Preparing

Band = Annotated[int, msgspec.Meta(ge=1, le=1 << 13)]
"""Bands, coefficients or frames of which a matrix is made."""


class Resample(Preparing, frozen=True, kw_only=True, tag="resample"):
    """Audio to another sample rate."""

    rate_hz: Count
    quality: str


class Mono(Preparing, frozen=True, kw_only=True, tag="mono"):
    """Average audio channels into one."""


class Amplitude(Preparing, frozen=True, kw_only=True, tag="amplitude"):
    """Scale audio amplitudes."""

    mode: Literal["none", "int16_to_unit", "peak", "rms"]


class Frame(Preparing, frozen=True, kw_only=True, tag="frame"):
    """Cut audio into overlapping frames of samples."""

    length: Count
    hop: Count
    tail: Literal["drop", "pad_zero", "reflect"]
    context: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0


class Stft(Preparing, frozen=True, kw_only=True, tag="stft"):
    """Short-time Fourier transform magnitudes (`power` 1) or powers (2) of frames, zero-padded to `fft` samples."""

    fft: Annotated[int, msgspec.Meta(ge=2, le=1 << 16)]
    window: Literal["hann_periodic", "hann_symmetric", "hamming"]
    center: bool
    """Frames were centred on every `hop`-th sample, from the first one on; the `tail` says what lies outside.

    A frame shorter than `fft` lies in the middle of it, as torch.stft and librosa.stft place a short window.
    """
    power: Literal[1, 2]


class Mel(Preparing, frozen=True, kw_only=True, tag="mel"):
    """Mel filter bank: triangles that are linear in Hz, as librosa and torchaudio build them."""

    bins: Band
    fmin_hz: float
    fmax_hz: float
    scale: Literal["htk", "slaney"]
    norm: Literal["none", "slaney"]


class Log(Preparing, frozen=True, kw_only=True, tag="log"):
    """Logarithm with an explicit offset (`add`) or floor; `db` is 10 · log10(x / ref)."""

    kind: Literal["ln", "log10", "db"]
    add: float | None = None
    floor: float | None = None
    ref: float | None = None


class Dct(Preparing, frozen=True, kw_only=True, tag="dct"):
    """Discrete cosine transform, type 2, orthonormal; keeps the first `keep` coefficients."""

    type: Literal[2]
    norm: Literal["ortho"]
    keep: Band


class Stack(Preparing, frozen=True, kw_only=True, tag="stack"):
    """Concatenate neighbouring feature frames."""

    frames: Band
    hop: Count
