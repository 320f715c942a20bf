"""Several questions to one call of the engine, and one question's many samples to several."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Final, final

import numpy as np

from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.blame import blame_engine
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.requests.rows import batch_axes, cut, joined, kind_of, rows_of, split

_UNTUNED: Final = 8
_UNTUNED_BYTES: Final = 256 * 1024
"""Where the machine was not tuned, few and small questions are asked at once: they share what a call costs by itself.
What lies between the layers of large pictures no longer fits the caches (docs/adr/0019)."""


@final
class Together:
    """The engine, asked for as many samples at once as are best.

    Args:
        predictor: the loaded variant.
        at_once: samples in one call, as wished or found best on this machine; None: nobody knows.
    """

    def __init__(self, predictor: Predictor, at_once: int | None) -> None:
        self._predictor = predictor
        self._constants = predictor.preprocess.constants
        axes = batch_axes(predictor.release, predictor.variant)
        takes_rows = axes is not None and predictor.sequencer is None
        self.most = at_once if takes_rows else None
        """Rows of one question that go into a call; None: all of them."""
        self.questions = (at_once or _untuned(predictor)) if takes_rows else 1
        """How many go into a call; 1: each has one of its own."""
        self.follows_rows = True
        """Whether each row of an answer belongs to one of the question, as far as is known; else all is asked alone."""

    def kind_of(self, feeds: Sequence[Tensors]) -> Hashable | None:
        """What further feeds must have in common with these to run in the same call; None: these run one by one."""
        if not self.follows_rows:
            return None
        kinds = {kind_of(one, self._constants) for one in feeds}
        return kinds.pop() if len(kinds) == 1 else None

    def rows_of(self, feeds: Tensors) -> int:
        """How many rows feeds hold."""
        return rows_of(feeds, self._constants)

    def run(self, feeds: Tensors) -> dict[str, Array]:
        """Canonical output tensors for what `Preprocessor` returns. Raises: as the engine."""
        if self.most is None or self.rows_of(feeds) <= self.most:
            return self._predictor.run_canonical(feeds)
        pieces = [self._predictor.run_canonical(piece) for piece in cut(feeds, self.most, self._constants)]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def run_all(self, feeds: Sequence[Tensors]) -> list[dict[str, Array]]:
        """The same for each of several questions, in one call where they are alike.

        Raises:
            BadInput: one of them does not fit what the file takes.
            EngineFault: the engine is to blame.
            InferenceError: there is not enough memory.
        """
        try:
            if self.kind_of(feeds) is not None:
                tensors = self._predictor.run_canonical(joined(feeds, self._constants))
                parts = split(tensors, [self.rows_of(one) for one in feeds])
                if parts is not None:
                    return parts
                self._ask_one_by_one()
            # They differ in shape, or the answers do not follow the inputs row by row.
            return [self._predictor.run_canonical(one) for one in feeds]
        except BaseException as error:  # noqa: BLE001 - raised again
            blame_engine(error)

    def _ask_one_by_one(self) -> None:
        """From now on: it was tried, and will be so with any other questions."""
        self.follows_rows, self.most, self.questions = False, None, 1


def _untuned(predictor: Predictor) -> int:
    """How many questions to ask at once as long as nobody has measured it."""
    row_bytes = 1
    for name, info in predictor.file_inputs.items():
        if name not in predictor.preprocess.constants:
            sizes = [size for size in info.shape[1:] if size is not None]
            if len(sizes) < len(info.shape) - 1:
                return 1  # as large as the caller likes
            row_bytes += math.prod(sizes) * np.dtype(info.dtype).itemsize
    return max(1, min(_UNTUNED, predictor.variant.batch.max, _UNTUNED_BYTES // row_bytes))
