"""Who is to blame when there is no answer: the question, or the engine. Decided here, for every door and in process.

What checks and steps refuse bears the family's own code, whatever stage they stand in: that is the question's fault.
"""

from __future__ import annotations

from typing import NoReturn

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import ENGINE_FAILED, MEMORY


class BadInput(InferenceError):
    """Whoever asked is to blame: a wrong name, shape, dtype, bytes that cannot be read, one session too many."""

    default_code = "bad_input"


class EngineFault(InferenceError):
    """The engine, its accelerator or its process failed; the question is not to blame and may be asked elsewhere."""

    default_code = ENGINE_FAILED


def blame_question(error: BaseException) -> NoReturn:
    """Raise what went wrong with preparing a question: it is to blame, unless the error has a code of its own.

    Raises:
        BadInput: nearly always.
        InferenceError: as it came, with its code; `memory` where there was not enough.
    """
    if isinstance(error, InferenceError) and error.code != InferenceError.default_code:
        raise error
    if isinstance(error, MemoryError):
        raise InferenceError("take the inputs", "there is not enough memory for them", code=MEMORY) from error
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, EdgeError):
        raise BadInput(error.cannot, error.because, error.remedy) from error
    # Parsers of foreign bytes fail in ways that nobody can list.
    raise BadInput("take the inputs", f"{type(error).__name__}: {shown(str(error))}") from error


def blame_engine(error: BaseException) -> NoReturn:
    """Raise what went wrong while the engine was asked: it is to blame, unless a check on the way refused the question.

    Raises:
        BadInput: the question does not fit what the file takes.
        EngineFault: anything that nobody foresaw, and what the adapter calls so.
        InferenceError: as it came, with its code; `memory` where there was not enough.
    """
    if isinstance(error, InferenceError):
        blame_question(error)
    if isinstance(error, MemoryError):
        raise InferenceError("run the model", "there is not enough memory for it", code=MEMORY) from error
    if not isinstance(error, Exception):
        raise error
    because = f"its engine failed ({type(error).__name__}: {shown(str(error))})"
    raise EngineFault("run the model", because) from error
