"""The four-pixel classifier of tests.fakes.models as TensorFlow Lite files, float and int8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.fakes.models import WEIGHTS
from tests.fakes.tflite_models import Model, Operator, Tensor

_BATCH = (-1, 1, 2, 2)


def four_pixel_tflite(weights: npt.NDArray[np.float32] = WEIGHTS) -> bytes:
    """`x` float32 [N, 1, 2, 2] → `logits` float32 [N, 4]."""
    return Model(
        tensors=[
            Tensor("x", (1, 1, 2, 2), "FLOAT32", signature=_BATCH),
            Tensor("weights", (4, 4), "FLOAT32", values=np.ascontiguousarray(weights.T)),
            Tensor("logits", (1, 4), "FLOAT32", signature=(-1, 4)),
        ],
        operators=[Operator("FULLY_CONNECTED", ("x", "weights", ""), ("logits",), 1, ("FullyConnectedOptions", {}))],
        inputs=("x",),
        outputs=("logits",),
    ).content()


def int8_four_pixel_tflite() -> bytes:
    """The same in int8: pixels 0..1 in steps of 1/255, logits 0..2 in steps of 2/255."""
    return Model(
        tensors=[
            Tensor("x", (1, 1, 2, 2), "INT8", (1 / 255,), (-128,), signature=_BATCH),
            Tensor("weights", (4, 4), "INT8", (2 / 127,), values=np.eye(4, dtype=np.int8) * np.int8(127)),
            Tensor("logits", (1, 4), "INT8", (2 / 255,), (-128,), signature=(-1, 4)),
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
