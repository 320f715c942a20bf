"""Records to a URL, POSTed as JSON in a thread of its own."""

from __future__ import annotations

import random
import stat
import threading
import time
import uuid
from collections.abc import Collection
from typing import Final

from edge_runtime.pipelines.description import WebhookSink
from edge_runtime.pipelines.line import Line
from edge_runtime.pipelines.ports import Tell
from edge_runtime.pipelines.records import Record, record_bytes
from edge_runtime.pipelines.sinks.posting import Posted, Poster
from edge_runtime.pipelines.statistics import Stage
from edge_runtime.serving.backoff import Backoff

_BACKOFF: Final = Backoff(0.5, 30.0)
_LAST_PATIENCE_S: Final = 5.0
"""How long a request is tried again once somebody has ended the pipeline."""
_SLICE_S: Final = 0.25
_GIVEN_UP: Final = Posted("later", "the pipeline ended while it was away")


class Webhook:
    """POSTs records, in order, and tries again where that may help; only a bounded number waits.

    Args:
        name: of the sink.
        described: where to, how many at once, how long to try.
        tell: hears when the server is away and when it is back.
        stopping: set when somebody ends the pipeline.
        live: sources whose oldest record makes room for a new one; for others whoever delivers waits for room.

    Raises:
        ContractError: as `Poster`.
    """

    def __init__(
        self, name: str, described: WebhookSink, tell: Tell, stopping: threading.Event, *, live: Collection[str]
    ) -> None:
        self._name = name
        self._described = described
        self._tell = tell
        self._stopping = stopping
        self._live = live
        self._poster = Poster(name, described)
        for path in filter(None, (described.token_file, described.secret_file)):
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                tell(f"sink {name}: others can read {path}: chmod 600 it")
        self._waiting: Line[bytes] = Line(described.waiting)
        self._has_ended = False
        self._is_away = False
        """The last request was given up: the next one is tried once."""
        self._stage = Stage("sink", name)
        self._thread = threading.Thread(target=self._send_all, name=f"webhook {name}", daemon=True)

    def begin(self, stage: Stage) -> None:
        """Start sending; what becomes of each record is counted there."""
        self._stage = stage
        self._thread.start()

    def deliver(self, record: Record) -> None:
        """Put a record in line; a full line of live records loses its oldest one, which is counted."""
        document = record_bytes(record)
        before = self._waiting.dropped
        self._waiting.put(document, is_live=record.frame.source in self._live)
        if self._waiting.dropped > before:
            self._stage.drop()

    def close(self) -> None:
        """Send what waits, for as long as the server takes it or a request may be tried again."""
        self._has_ended = True
        self._waiting.end()
        if self._thread.ident is not None:
            self._thread.join()
        self._poster.close()

    def _send_all(self) -> None:
        while documents := self._waiting.take_some(self._described.batch):
            began = time.perf_counter()
            body = documents[0] if self._described.batch == 1 else b"[" + b",".join(documents) + b"]"
            posted = self._tried(body) if self._is_worth_trying() else _GIVEN_UP
            each_s = (time.perf_counter() - began) / len(documents)
            for _ in documents:
                if posted.verdict == "taken":
                    self._stage.did(each_s)
                elif self._stage.failed(posted.because):
                    self._tell(f"sink {self._name}: cannot post to {self._poster.where}: {posted.because}")

    def _tried(self, body: bytes) -> Posted:
        """How the last attempt ended; others follow where that may help, and time is left."""
        delivery, began, failures = uuid.uuid4(), time.monotonic(), 0
        while (posted := self._poster.post(body, delivery)).verdict == "later":
            failures += 1
            wished_s = min(posted.retry_after_s, _BACKOFF.cap_s)
            again_at = time.monotonic() + max(_BACKOFF.delay_s(failures, random.random()), wished_s)
            if self._is_away or again_at > began + self._patience_s():
                self._is_away = True
                return posted
            if failures == 1:
                self._tell(f"sink {self._name}: {self._poster.where}: {posted.because}; it is tried again")
            self._pause(again_at, began)
        if failures or self._is_away:
            self._tell(f"sink {self._name}: {self._poster.where} is back")
        self._is_away = False
        return posted

    def _pause(self, until: float, began: float) -> None:
        """Wait in slices: the pipeline may be ended meanwhile, and then there is less time."""
        while (now := time.monotonic()) < min(until, began + self._patience_s()):
            time.sleep(min(until - now, _SLICE_S))

    def _patience_s(self) -> float:
        given = self._described.patience_s
        return min(given, _LAST_PATIENCE_S) if self._stopping.is_set() else given

    def _is_worth_trying(self) -> bool:
        """Not when the server is away and the pipeline has ended: each attempt may take as long as its timeout."""
        return not (self._is_away and self._has_ended)
