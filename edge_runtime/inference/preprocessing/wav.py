"""Sound files from strangers: RIFF/WAVE with linear PCM or float samples, checked before memory is taken."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.tensor import InputSpec
from edge_runtime.inference.backend import Array

_PCM: Final = 1
_FLOAT: Final = 3
_EXTENSIBLE: Final = 0xFFFE
"""The real format stands in the first two bytes of a GUID (Microsoft, WAVEFORMATEXTENSIBLE)."""

_CHANNELS_MAX: Final = 64
_BITS: Final = frozenset({8, 16, 24, 32, 64})


@dataclass(frozen=True, slots=True)
class _Format:
    code: int
    channels: int
    rate_hz: int
    bits: int


def decode_audio(content: bytes, spec: InputSpec) -> Array:
    """Sound bytes to [T] (one channel) or [T, C] in the input's dtype: int16 as stored, float32 in −1..1.

    Raises:
        InferenceError: no complete file of an accepted encoding, or not the sample rate and channels that are asked.
    """
    if content[:4] == b"RIFF" and "wav" in spec.accept:
        form, samples = _parse(content)
    elif "s16le" in spec.accept and len(content) % 2 == 0:
        form = _Format(_PCM, spec.channels or 1, spec.sample_rate_hz or 0, 16)
        samples = _complete(content, form)
    else:
        known = " or ".join(name for name in spec.accept if name != "tensor") or "arrays only"
        raise _not_whole(f"the model accepts {known}")
    _check_promises(form, spec)
    signal = _in_dtype(_numbers(samples, form), form, spec.dtype)
    return signal[:, 0] if form.channels == 1 and not _has_channel_axis(spec) else signal


def _has_channel_axis(spec: InputSpec) -> bool:
    return len([axis for axis in spec.shape if axis != "N"]) > 1


def _parse(content: bytes) -> tuple[_Format, bytes]:
    if content[8:12] != b"WAVE":
        raise _not_whole("it is RIFF but no WAVE")
    form: _Format | None = None
    position = 12
    while position + 8 <= len(content):
        kind, size = content[position : position + 4], struct.unpack_from("<I", content, position + 4)[0]
        body = content[position + 8 : position + 8 + size]
        if kind == b"fmt " and len(body) >= 16:
            code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
            real = struct.unpack_from("<H", body, 24)[0] if code == _EXTENSIBLE and len(body) >= 26 else code
            form = _Format(real, channels, rate, bits)
        elif kind == b"data":
            if form is None or len(body) < size:
                raise _not_whole("it ends early")
            return form, _complete(body, form)
        position += 8 + size + size % 2
    raise _not_whole("it has no samples")


def _complete(samples: bytes, form: _Format) -> bytes:
    if not 1 <= form.channels <= _CHANNELS_MAX or form.bits not in _BITS or not samples:
        raise _not_whole(f"it has {form.channels} channels of {form.bits} bits and {len(samples)} bytes of samples")
    if len(samples) % (form.channels * form.bits // 8):
        raise _not_whole("its last sample is cut")
    return samples


def _numbers(samples: bytes, form: _Format) -> Array:
    """[T, C] in the file's own type; 24 bits as int32 times 256."""
    match form.code, form.bits:
        case 1, 8:
            flat: Array = np.frombuffer(samples, np.uint8)
        case 1, 16:
            flat = np.frombuffer(samples, "<i2")
        case 1, 24:
            wide = np.zeros((len(samples) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(samples, np.uint8).reshape(-1, 3)
            flat = wide.reshape(-1).view("<i4")
        case 1, 32:
            flat = np.frombuffer(samples, "<i4")
        case 3, 32:
            flat = np.frombuffer(samples, "<f4")
        case 3, 64:
            flat = np.frombuffer(samples, "<f8")
        case _:
            because = f"format {form.code} with {form.bits} bits is not plain PCM"
            raise InferenceError("decode a sound", because, "save it as 16-bit PCM")
    return flat.reshape(-1, form.channels)


def _in_dtype(signal: Array, form: _Format, dtype: str) -> Array:
    if dtype == "int16":
        if (form.code, form.bits) != (_PCM, 16):
            because = f"it has {form.bits} bits, the model takes 16"
            raise InferenceError("decode a sound", because, "save it as 16-bit PCM")
        return signal.astype(np.int16)
    if dtype != "float32":
        raise InferenceError("decode a sound", f"the model takes {dtype} samples", "give an array")
    if form.code == _FLOAT:
        return signal.astype(np.float32)
    if signal.dtype == np.uint8:
        return ((signal.astype(np.float32) - 128) / 128).astype(np.float32)
    return (signal / -float(np.iinfo(signal.dtype).min)).astype(np.float32)


def _check_promises(form: _Format, spec: InputSpec) -> None:
    if spec.sample_rate_hz and form.rate_hz != spec.sample_rate_hz:
        because = f"it has {form.rate_hz} samples a second, the model takes {spec.sample_rate_hz}"
        raise InferenceError(f"take input {spec.name}", because, "resample it first")
    if spec.channels and form.channels != spec.channels:
        because = f"it has {form.channels} channels, the model takes {spec.channels}"
        raise InferenceError(f"take input {spec.name}", because, "mix or split the channels first")


def _not_whole(detail: str) -> InferenceError:
    return InferenceError("decode a sound", f"it is not a complete WAVE file ({detail})", "record or copy it again")
