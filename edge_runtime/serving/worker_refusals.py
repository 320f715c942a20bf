"""Errors that cross from one process to the other and stay what they are."""

from __future__ import annotations

from typing import Final

from edge_runtime.contract.errors import ContractError, DigestMismatch, EdgeError, InferenceError
from edge_runtime.contract.reasons import INTERNAL, MEMORY
from edge_runtime.inference.blame import BadInput, EngineFault
from edge_runtime.inference.requests.refusals import DeadlinePassed, Refused
from edge_runtime.serving.worker_messages import Refusal

_LATE: Final = "late"
_KINDS: Final = (
    (BadInput, "call"),
    (EngineFault, "engine"),
    (Refused, "refused"),
    (DigestMismatch, "digest"),
    (ContractError, "contract"),
)


def as_refusal(error: Exception, sequences: list[int | str] | None = None) -> Refusal:
    """An error on its way to the other process."""
    open_now = sequences or []
    if isinstance(error, MemoryError):
        error = InferenceError("answer", "there is not enough memory for it", "raise its limit", code=MEMORY)
    if not isinstance(error, EdgeError):
        error = InferenceError("answer", f"{type(error).__name__}: {error}", code=INTERNAL)
    kind = next((kind for family, kind in _KINDS if isinstance(error, family)), "other")
    if isinstance(error, DeadlinePassed):
        kind = _LATE
    return Refusal(kind, error.cannot, error.because, error.remedy, error.code, open_now)


def as_error(refusal: Refusal) -> EdgeError:
    """An error that came from the other process."""
    if refusal.kind == _LATE:
        return DeadlinePassed(refusal.because)
    family = next((family for family, kind in _KINDS if kind == refusal.kind), InferenceError)
    return family(refusal.cannot, refusal.because, refusal.remedy, code=refusal.code)
