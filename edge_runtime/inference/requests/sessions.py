"""Streams of a loaded variant whose calls know of each other."""

from __future__ import annotations

from functools import partial

from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.blame import blame_engine
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.requests.prepared import feeds_of_prepared
from edge_runtime.inference.streams import Hearer, Sequencer, Sessions, Turn


def sessions_of(predictor: Predictor, sequencer: Sequencer, turn: Turn) -> Sessions:
    """Sessions each of whose calls takes a turn.

    Args:
        predictor: the loaded variant.
        sequencer: how its calls follow one another.
        turn: around each call of the engine.
    """

    def run_once(feeds: Tensors) -> dict[str, Array]:
        try:
            return predictor.run_once(feeds)
        except BaseException as error:  # noqa: BLE001 - raised again
            blame_engine(error)

    return Sessions(Hearer(sequencer, run_once, partial(feeds_of_prepared, predictor), turn))
