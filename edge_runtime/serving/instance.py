"""A variant in memory that answers calls: in this process, or in a worker process of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, Protocol

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.model import Model
from edge_runtime.inference.requests.accounting import Record
from edge_runtime.inference.requests.finite import FiniteCheck, NanPolicy
from edge_runtime.serving.answering import Answerer, Apart
from edge_runtime.serving.calls import Call, Values
from edge_runtime.serving.sequences import OpenSequences
from edge_runtime.serving.variants import Origin


class Instance(Protocol):
    """A loaded variant."""

    @property
    def variant(self) -> VariantManifest:
        """Which one it is."""

    @property
    def slots(self) -> int:
        """Calls that it takes at once."""

    @property
    def is_gone(self) -> bool:
        """Whether it will never answer again."""

    def answer(self, call: Call, record: Record) -> dict[str, Values]:
        """The wanted outputs; counts samples and stages. Raises: BadInput, EngineFault, InferenceError."""

    def open_sequences(self) -> Collection[int | str]:
        """Ids of the sequences that are lost when it closes."""

    def golden_check(self) -> list[CheckResult]:
        """Ask the release's golden questions, which warms it up; without any it is warmed up all the same.

        Raises:
            InferenceError: it cannot answer them.
            ContractError: the golden set breaks the contract.
            DigestMismatch: it is not the promised one.
        """

    def close(self) -> None:
        """Free its memory; nobody asks it any more."""


_OUT_OF_MEMORY: Final = (
    "bad_alloc",  # C++
    "Failed to allocate memory",  # ONNX Runtime's arena
    "failed to map segment",  # the dynamic loader
    "Cannot allocate memory",  # ENOMEM
)

Open = Callable[[Origin, VariantId], Instance]
"""Loads one variant. Raises: InferenceError, ContractError, DigestMismatch, MemoryError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: engines and loaders wrap what the system said into errors of their own."""
    said = str(error)
    return isinstance(error, MemoryError) or any(words in said for words in _OUT_OF_MEMORY)


class LocalInstance:
    """A model in this process.

    Args:
        model: open; closed with the instance.
        nan: what to do about NaN and infinities in the inputs of calls.
    """

    def __init__(self, model: Model, nan: NanPolicy = "off") -> None:
        self.model = model
        self._answerer = Answerer(model)
        self._check_finite = None if nan == "off" else FiniteCheck(model.predictor.preprocess, nan)
        self._sequences = None if model.sessions is None else OpenSequences(model)
        # The golden set that warms it up holds numbers: nothing in it needs the readers that clients' pictures do.
        model.predictor.preprocess.warm_up()

    @property
    def variant(self) -> VariantManifest:
        """Which one it is."""
        return self.model.variant.manifest

    @property
    def slots(self) -> int:
        """Calls that it takes at once."""
        return self.model.admission.slots

    @property
    def is_gone(self) -> bool:
        """An engine in this process stays until it is closed."""
        return False

    def answer(self, call: Call, record: Record) -> dict[str, Values]:
        """The wanted outputs; counts samples and stages. Raises: BadInput, EngineFault, InferenceError."""
        if self._check_finite is not None and not call.is_vouched_for:
            self._check_finite(call.inputs, record)
        if self._sequences is not None and call.sequence is not None:
            return self._sequences.answer(call.sequence, call, record)
        return self._answerer.answer(call, record)

    def prepare(self, call: Call, record: Record) -> Apart | None:
        """The call as far as its own thread can bring it; None: ask it as it is. Raises: BadInput, InferenceError."""
        if self._check_finite is not None and not call.is_vouched_for:
            self._check_finite(call.inputs, record)
        return self._answerer.prepare(call, record)

    @property
    def follows_rows(self) -> bool:
        """Whether each row of an answer belongs to one of the question, as far as is known."""
        return self.model.asker.together.follows_rows

    def run_all(self, calls: Sequence[Apart], record: Record) -> list[list[Tensors]]:
        """What the engine says to prepared calls, asked at once, by call and sample. Raises: as `answer`."""
        return self._answerer.run_all(calls, record)

    def open_sequences(self) -> Collection[int | str]:
        """Ids of the sequences that are lost when it closes."""
        return () if self._sequences is None else self._sequences.ids()

    def golden_check(self) -> list[CheckResult]:
        """Ask the release's golden questions. Raises: InferenceError, ContractError, DigestMismatch."""
        checks = self.model.golden_check()
        if not checks and self._sequences is None:
            # Nobody says what to ask, so zeros warm it up; that a model dislikes them is no reason to refuse it.
            with suppress(InferenceError):
                self.model.warm_up()
        return checks

    def close(self) -> None:
        """Free its memory."""
        self.model.close()
