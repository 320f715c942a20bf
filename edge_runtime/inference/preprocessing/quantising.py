"""Numbers as a quantised file stores them."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from edge_runtime.inference.backend import Array

AS_PICTURE: Final = (1.0, -128)
"""Scale and zero point by which an int8 tensor stands for a uint8 picture."""


@final
class Quantiser:
    """q = clip(round_half_even(x / scale) + zero_point), as the manifest's vocabulary says; any thread.

    Args:
        scale: what one step is worth.
        zero_point: the number that stands for 0.
        dtype: whole numbers that the file takes.
    """

    __slots__ = ("_dtype", "_highest", "_is_picture", "_lowest", "_scale", "_zero_point")

    def __init__(self, scale: float, zero_point: int, dtype: np.dtype[np.integer]) -> None:
        limits = np.iinfo(dtype)
        self._dtype = dtype
        # Numbers of numpy: those of Python would be converted in each call.
        self._scale, self._zero_point = np.float64(scale), np.float64(zero_point)
        self._lowest, self._highest = np.float64(limits.min), np.float64(limits.max)
        self._is_picture = (scale, zero_point) == AS_PICTURE and dtype == np.int8

    def __call__(self, array: Array) -> Array:
        """Any numbers as the file's whole ones, in an array of their own."""
        if self._is_picture and array.dtype == np.uint8:
            # Flipping the highest bit subtracts 128 without a wider number in between.
            return (array ^ np.uint8(128)).view(np.int8)
        # One wide array for all steps: each further one would cost as much as the step. Divided, for the reciprocal of
        # the scale is itself rounded and would put some numbers on the other side of a half.
        wide = np.divide(array, self._scale, dtype=np.float64)
        np.rint(wide, out=wide)
        np.add(wide, self._zero_point, out=wide)
        np.maximum(wide, self._lowest, out=wide)
        np.minimum(wide, self._highest, out=wide)
        return wide.astype(self._dtype)
