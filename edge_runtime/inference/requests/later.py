"""A request as a future: for coroutines, and whoever else wants to wait elsewhere or to give up."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, final

from edge_runtime.contract.errors import EdgeError

if TYPE_CHECKING:
    from edge_runtime.inference.postprocessing.results import Answer
    from edge_runtime.inference.preprocessing.preprocess import Inputs
    from edge_runtime.inference.requests.asker import Asker
    from edge_runtime.inference.requests.turns import Ticket


@final
class Later:
    """One question, and the future of its answer.

    Args:
        inputs: of one sample.
        deadline: the engine is not asked after it.
    """

    def __init__(self, inputs: Inputs, deadline: float | None) -> None:
        self._inputs = inputs
        self._deadline = deadline
        self._future: Future[Answer] = Future()

    def ask(self, asker: Asker) -> Answer | None:
        """The answer; None when it was cancelled before. Raises: InferenceError."""
        return asker.infer(self._inputs, self._deadline) if self._future.set_running_or_notify_cancel() else None

    def tell(self, outcome: Answer | EdgeError | None) -> None:
        """Let whoever waits hear of the answer, or why there is none."""
        # What never ran is begun here: from then on nobody can cancel it, and who waits hears of one cancelled.
        if not isinstance(outcome, EdgeError):
            if outcome is not None:
                self._future.set_result(outcome)
        elif self._future.running() or self._future.set_running_or_notify_cancel():
            self._future.set_exception(outcome)

    def goes_by(self, ticket: Ticket) -> Future[Answer]:
        """The future; cancelling it withdraws the request from the line in which it has this ticket."""
        self._future.add_done_callback(lambda ended: ticket.cancel() if ended.cancelled() else None)
        return self._future
