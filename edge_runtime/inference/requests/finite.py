"""The NaN policy: whether inputs are looked at for numbers that are none, and what follows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np

from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.preprocessing.preprocess import Preprocessor
from edge_runtime.inference.requests.accounting import NOT_FINITE, Record

NanPolicy = Literal["off", "sample", "reject"]
"""What to do about NaN and infinities: nothing, count them in one request of 64, or refuse the request."""

BAD_NUMBER: Final = "not_finite"
_SAMPLED: Final = 64


class FiniteCheck:
    """Looks at the float inputs of a model; tables are left out, for a missing cell is NaN there."""

    def __init__(self, preprocess: Preprocessor, policy: NanPolicy) -> None:
        tables = [chain for chain in preprocess.chains if chain.source.kind == "table"]
        self._exempt = frozenset(name for chain in tables for name in (chain.source.name, chain.tensor))
        self._rejects = policy == "reject"
        self._numbers = itertools.count()

    def __call__(self, inputs: Mapping[str, object], record: Record) -> None:
        """Count what is not finite. Raises: BadInput with code `not_finite` under the policy `reject`."""
        if not self._rejects and next(self._numbers) % _SAMPLED:
            return
        for name, array in inputs.items():
            if name in self._exempt or not isinstance(array, np.ndarray) or is_finite(array):
                continue
            record.count(NOT_FINITE)
            if self._rejects:
                raise BadInput(
                    f"take input {shown(name)}", "it holds NaN or an infinity", "send numbers only", code=BAD_NUMBER
                )
            return


def is_finite(array: Array) -> bool:
    """Whether every number is one; both extremes tell, without memory for an answer per element."""
    if array.dtype.kind != "f" or not array.size:
        return True
    return math.isfinite(array.max()) and math.isfinite(array.min())
