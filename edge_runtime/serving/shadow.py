"""A candidate that answers a share of the live calls besides, off their path, and is compared with what clients got."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue
from typing import Final

import numpy as np

from edge_runtime.contract.errors import EdgeError
from edge_runtime.serving.calls import Call, Reply, Values
from edge_runtime.serving.comparison import Agreement, Comparison
from edge_runtime.serving.deployment import Deployment
from edge_runtime.serving.seating import Retired

_WAIT_S: Final = 0.2
"""Between two looks at whether the shadow was stopped."""
_LOWEST_PRIORITY: Final = 19
_PATIENCE_S: Final = 30.0
"""How long whoever stops a shadow waits for what its candidate still has to answer: it may hang."""


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What a shadow saw so far."""

    model: str
    live: str
    """Version that answered the clients."""
    candidate: str
    seen: int
    """Live answers while the shadow ran."""
    compared: int
    dropped: int
    """Calls of its share that it had no room for."""
    failed: int
    """Calls that the candidate could not answer, or answered in another form."""
    reasons: Mapping[str, int]
    """Failed calls by reason code."""
    agreement: Mapping[str, Agreement]
    """By output."""
    candidate_p50_s: float | None
    """Median time in the engine; of calls that nobody waited for, at the lowest priority."""
    live_p50_s: float | None


class Shadow:
    """Runs beside a live version until it is stopped; the live answers neither wait for it nor depend on it.

    Args:
        live: the version that is watched.
        candidate: what answers besides; loaded here.
        leave: called when it is stopped, so that no more calls are offered.
        share: of the calls, 0 < share ≤ 1.
        room: calls that may wait for the candidate.
    """

    def __init__(
        self, live: Deployment, candidate: Deployment, leave: Callable[[], None], *, share: float, room: int
    ) -> None:
        self._live = live
        self._candidate = candidate
        self._leave = leave
        self._share = share
        self._waiting: Queue[tuple[Call, Reply]] = Queue(room)
        self._numbers = itertools.count()
        self._seen = self._compared = self._dropped = 0
        self._reasons: dict[str, int] = {}
        kinds = {spec.name: spec.kind for spec in live.release.signature.outputs}
        self._comparison = Comparison(kinds)
        self._is_stopped = threading.Event()
        self._is_loaded: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="serving-shadow", daemon=True)
        self._thread.start()
        self._is_loaded.result()

    def offer(self, call: Call, reply: Reply) -> None:
        """A live call and its answer; costs next to nothing, and a copy of both where it is taken."""
        if reply.version != self._live.version or call.sequence is not None:
            return
        number = next(self._numbers)
        self._seen = number + 1
        if int((number + 1) * self._share) == int(number * self._share):
            return
        if self._waiting.full():
            self._dropped += 1
            return
        # The caller may do with its arrays what it likes, and what lies in shared memory is overwritten soon.
        kept = replace(call, inputs=_copied(call.inputs), deadline=None, priority=0)
        try:
            self._waiting.put_nowait((kept, replace(reply, tensors=_copied(reply.tensors))))
        except Full:
            self._dropped += 1

    def report(self) -> ShadowReport:
        """What was seen so far."""
        reasons = dict(self._reasons)
        return ShadowReport(
            self._live.name,
            self._live.version,
            self._candidate.version,
            self._seen,
            self._compared,
            self._dropped,
            sum(reasons.values()),
            reasons,
            self._comparison.read(),
            self._candidate.statistics().stages["run"].quantile_s(0.5),
            self._live.statistics().stages["run"].quantile_s(0.5),
        )

    def stop(self) -> ShadowReport:
        """Take no more, answer what waits, free the candidate, and say what was seen; safe to repeat."""
        self._leave()
        self.abandon()
        return self.report()

    def abandon(self, patience_s: float | None = None) -> str:
        """Answer what waits and free the candidate, whoever offers it more; safe to repeat.

        Args:
            patience_s: for its calls.

        Returns:
            What did not come back in time (`1 call of model m 1.0.0`); else nothing.
        """
        patience_s = _PATIENCE_S if patience_s is None else patience_s
        give_up = time.monotonic() + patience_s
        self._is_stopped.set()
        self._thread.join(patience_s)
        one = self._candidate
        left = one.seating.retire(max(0.0, give_up - time.monotonic()))
        return f"{left} of model {one.name} {one.version}" if left else ""

    def _run(self) -> None:
        # Engines start their own threads while they load; those inherit this one's priority.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        try:
            self._candidate.seating.load(self._live.seating)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked for the shadow
            self._is_loaded.set_exception(error)
            return
        self._is_loaded.set_result(None)
        while (pair := self._next()) is not None or not self._is_stopped.is_set():
            if pair is not None:
                self._compare(*pair)

    def _next(self) -> tuple[Call, Reply] | None:
        try:
            return self._waiting.get(timeout=_WAIT_S)
        except Empty:
            return None

    def _compare(self, call: Call, reply: Reply) -> None:
        try:
            self._comparison.add(reply, self._candidate.call(call))
        except EdgeError as error:
            self._reasons[error.code] = self._reasons.get(error.code, 0) + 1
        except Retired:
            self._dropped += 1
        else:
            self._compared += 1


def _copied(tensors: Mapping[str, Values]) -> dict[str, Values]:
    return {name: values if isinstance(values, list) else np.array(values) for name, values in tensors.items()}
