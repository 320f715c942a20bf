"""OpenCV's resizing without OpenCV: nearest and bilinear, bit for bit for uint8; what its builds are compared with."""

from __future__ import annotations

import numpy as np

from edge_runtime.inference.backend import Array


def scale_nearest(images: Array, height: int, width: int) -> Array:
    """[N, H, W, C] by OpenCV's INTER_NEAREST: the source index is floor(i · scale)."""
    rows, columns = (
        np.minimum(np.floor(np.arange(target) * _scale(source, target)).astype(np.int64), source - 1)
        for source, target in zip(images.shape[1:3], (height, width), strict=True)
    )
    picked: Array = images[:, rows][:, :, columns]
    return picked


def scale_bilinear(images: Array, height: int, width: int) -> Array:
    """[N, H, W, C] by OpenCV's INTER_LINEAR: half-pixel centres, clamped borders; uint8 in its 11-bit fixed point.

    Equal to what OpenCV computes for uint8 (modules/imgproc/src/resize.cpp), and within rounding for float32.
    """
    top, bottom, down = _taps(images.shape[1], height)
    left, right, across = _taps(images.shape[2], width)
    # Beyond the outermost pixels it takes one of them whole across, but mixes it with itself down: that rounds twice.
    across = np.where(left == right, np.float32(0), across)
    if images.dtype != np.uint8:
        x_weight, y_weight = across[None, None, :, None], down[None, :, None, None]
        rows = images[:, :, left] * (1 - x_weight) + images[:, :, right] * x_weight
        blended: Array = (rows[:, top] * (1 - y_weight) + rows[:, bottom] * y_weight).astype(images.dtype)
        return blended
    x_right, x_left = _weights(across)
    y_bottom, y_top = _weights(down)
    wide = images.astype(np.int64)
    mixed = wide[:, :, left] * x_left[None, None, :, None] + wide[:, :, right] * x_right[None, None, :, None]
    above: Array = (mixed[:, top] >> 4) * y_top[None, :, None, None] >> 16
    below = (mixed[:, bottom] >> 4) * y_bottom[None, :, None, None] >> 16
    rounded: Array = np.clip((above + below + 2) >> 2, 0, 255).astype(np.uint8)
    return rounded


def _scale(source: int, target: int) -> float:
    # As OpenCV rounds it: the inverse of the inverse.
    return 1.0 / (target / source)


def _taps(source: int, target: int) -> tuple[Array, Array, Array]:
    """For each target index: the two source indices and the weight of the second, float32 in 0..1."""
    position = ((np.arange(target) + 0.5) * _scale(source, target) - 0.5).astype(np.float32)
    first = np.floor(position)
    fraction = position - first
    index = first.astype(np.int64)
    return np.clip(index, 0, source - 1), np.clip(index + 1, 0, source - 1), fraction


def _weights(fraction: Array) -> tuple[Array, Array]:
    """Weights of second and first source pixel in 1/2048."""
    whole = np.float32(2048)
    return np.rint(fraction * whole).astype(np.int64), np.rint((1 - fraction) * whole).astype(np.int64)
