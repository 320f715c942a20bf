"""The calibration set as compilers read it: one file for each call of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from converters.building.workshop import open_source
from converters.data.datasets import Dataset
from converters.pipeline.material import Material
from edge_runtime.inference.arrays import write_npz
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.states import Memory

_STEPS_MAX: Final = 1024
"""Steps of all sequences together: neighbours in a stream are much alike."""


def write_calibration(material: Material, folder: Path) -> None:
    """Write the calibration samples as the model takes them, one file for each window or step of a stream.

    Raises:
        BadDataset: a sample cannot be used.
        InferenceError: the source model, which gives the states, cannot answer.
    """
    if material.calibration is None:
        return
    calls = _steps if material.preprocessor.rules is not None else _windows
    # Compilers get ONNX models that hold their constants themselves.
    draft = material.draft if isinstance(material.model, bytes) else material.draft.without_constants()
    for number, call in enumerate(calls(material, material.calibration)):
        named = {draft.inputs[name]: array for name, array in call.items() if name in draft.inputs}
        (folder / f"{number:06d}.npz").write_bytes(write_npz(named))


def _windows(material: Material, samples: Dataset) -> Iterator[Tensors]:
    for sample in samples.prepared(material.preprocessor):
        yield from material.preprocessor.windows(sample.canonical)


def _steps(material: Material, samples: Dataset) -> Iterator[Tensors]:
    """Steps of whole sequences with the states that the source model had then, evenly spaced in each."""
    most = max(1, _STEPS_MAX // len(samples.samples))
    with closing(open_source(material.draft, material.model)) as source:
        for sample in samples.prepared(source.preprocess):
            count = len(source.preprocess.rows(sample.canonical))
            kept = {position * count // min(most, count) for position in range(min(most, count))}
            yield from (step for number, step in enumerate(_sequence(source, sample.canonical)) if number in kept)


def _sequence(source: Predictor, feeds: Tensors) -> Iterator[Tensors]:
    """What each call of a sequence is fed, states among it."""
    memory = Memory(source.sequencer.states if source.sequencer else ())
    for row in source.preprocess.rows(feeds):
        fed = {**row, **memory.tensors}
        yield fed
        memory.keep(source.run_once(fed))
