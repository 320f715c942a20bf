"""The four-pixel classifier of tests.fakes.models as TensorFlow Lite files, float and int8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.fakes.models import WEIGHTS
from tests.fakes.tflite_models import Model, Operator, Tensor


def four_pixel_tflite(weights: npt.NDArray[np.float32] = WEIGHTS) -> bytes:
    """`x` float32 [N, 1, 2, 2] → `logits` float32 [N, 4]."""
    return Model(
        tensors=[
            Tensor("x", (1, 1, 2, 2), "FLOAT32", signature=(-1, 1, 2, 2)),
            Tensor("weights", (4, 4), "FLOAT32", values=np.ascontiguousarray(weights.T)),
            Tensor("logits", (1, 4), "FLOAT32", signature=(-1, 4)),
        ],
        operators=[Operator("FULLY_CONNECTED", ("x", "weights", ""), ("logits",), 1, ("FullyConnectedOptions", {}))],
        inputs=("x",),
        outputs=("logits",),
    ).content()


def int8_four_pixel_tflite(shape: tuple[int, int, int, int] = (1, 1, 2, 2), dtype: str = "int8") -> bytes:
    """The same in integers: pixels 0..1 in steps of 1/255, logits 0..2 in steps of 2/255."""
    zero = -128 if dtype == "int8" else 0
    return Model(
        tensors=[
            Tensor("x", shape, dtype.upper(), (1 / 255,), (zero,), signature=(-1, *shape[1:])),
            Tensor("weights", (4, 4), "INT8", (2 / 127,), values=np.eye(4, dtype=np.int8) * np.int8(127)),
            Tensor("logits", (1, 4), dtype.upper(), (2 / 255,), (zero,), signature=(-1, 4)),
        ],
        operators=[Operator("FULLY_CONNECTED", ("x", "weights", ""), ("logits",), 4, ("FullyConnectedOptions", {}))],
        inputs=("x",),
        outputs=("logits",),
    ).content()


def adder_of_namesakes() -> bytes:
    """`sum` float32 [2] of two inputs that are both called `one`."""
    content = Model(
        tensors=[Tensor(name, (2,), "FLOAT32") for name in ("one", "two", "sum")],
        operators=[Operator("ADD", ("one", "two"), ("sum",), 1, ("AddOptions", {}))],
        inputs=("one", "two"),
        outputs=("sum",),
    ).content()
    return content.replace(b"two", b"one")


def custom_operator(kind: str) -> bytes:
    """`y` = kind(`x`), float32 [1]."""
    return Model(
        tensors=[Tensor("x", (1,), "FLOAT32"), Tensor("y", (1,), "FLOAT32")],
        operators=[Operator(kind, ("x",), ("y",))],
        inputs=("x",),
        outputs=("y",),
    ).content()
