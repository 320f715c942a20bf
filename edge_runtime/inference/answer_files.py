"""Answers for files named on a command line: images, sounds and tables as they are, arrays as `.npy`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.inference.arrays import read_npy
from edge_runtime.inference.backend import Array
from edge_runtime.inference.model import Model
from edge_runtime.inference.postprocessing.results import Answer

FILE_MAX_BYTES: Final = 256 * 1024 * 1024


def answer_files(model: Model, paths: Iterable[Path]) -> Iterator[tuple[Path, Answer | InferenceError]]:
    """Each file with the model's answer to it, in order, or with why there is none: one bad file spoils only itself.

    Rows of a table, and samples of an array, are named after their place in the file.

    Raises:
        InferenceError: the model takes more than one input.
    """
    preprocess = model.predictor.preprocess
    if len(preprocess.inputs) != 1:
        names = ", ".join(spec.name for spec in preprocess.inputs)
        raise InferenceError("answer single files", f"the model takes {names}", "ask it from Python: Model.infer")
    for path in paths:
        try:
            pieces = preprocess.in_pieces(preprocess.chains[0], read_input(path))
            name = preprocess.inputs[0].name
            answers = [answer for piece in pieces for answer in model.infer_batch({name: piece})]
        except (InferenceError, ContractError) as error:
            # Whoever named many files must read which one it was.
            yield path, InferenceError(f"answer {path}", error.because, error.remedy, code=error.code)
            continue
        if len(answers) == 1:
            yield path, answers[0]
        else:
            yield from ((path.with_name(f"{path.name}[{row}]"), answer) for row, answer in enumerate(answers))


def read_input(path: Path) -> bytes | Array:
    """One file as a model takes it. Raises: InferenceError, ContractError."""
    try:
        with path.open("rb") as source:
            content = source.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise InferenceError(f"read {path}", error.strerror or str(error), "name a file that is there") from error
    if len(content) > FILE_MAX_BYTES:
        raise InferenceError(f"read {path}", f"it is larger than {FILE_MAX_BYTES} bytes")
    return read_npy(content, str(path)) if path.suffix == ".npy" else content
