"""A variant in a worker process: it can be ended when its engine hangs, and its crash is nobody else's."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final

import numpy as np

from edge_runtime.contract.errors import EdgeError, InferenceError, TransportError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.layout import OCI_INDEX, Descriptor
from edge_runtime.contract.reasons import HUNG, LOAD_FAILED
from edge_runtime.inference.backend import Registry
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.requests.accounting import SAMPLES, Record
from edge_runtime.inference.requests.finite import NanPolicy
from edge_runtime.inference.tuned import TunedFrom
from edge_runtime.serving.calls import BadCall, Call, SequenceStep, Values
from edge_runtime.serving.variants import Origin
from edge_runtime.serving.worker_limits import WorkerLimits
from edge_runtime.serving.worker_messages import (
    Ask,
    AskGolden,
    Blob,
    Channel,
    FromHost,
    FromWorker,
    GoldenAnswers,
    Inbox,
    NeedBlob,
    Outbox,
    Ready,
    Refusal,
    Start,
    Told,
    blob_memory,
)
from edge_runtime.serving.worker_refusals import as_error, as_refusal

_STDERR: Final = 2
"""What engines print must not mix with what this program says on its standard output."""
_GOODBYE_S: Final = 5.0
"""How long a worker may take to end by itself."""


class Nursery:
    """Starts child processes from one thread that lives as long as this process.

    A child is told to end with its parent, and the kernel takes the thread that started it for the parent.
    """

    def __init__(self) -> None:
        self._wanted: SimpleQueue[tuple[list[str], int, Future[subprocess.Popen[bytes]]]] = SimpleQueue()
        threading.Thread(target=self._start_all, name="serving-nursery", daemon=True).start()

    def start(self, command: list[str], descriptor: int) -> subprocess.Popen[bytes]:
        """A child process that inherits one descriptor. Raises: OSError."""
        future: Future[subprocess.Popen[bytes]] = Future()
        self._wanted.put((command, descriptor, future))
        return future.result()

    def _start_all(self) -> None:
        while True:
            command, descriptor, future = self._wanted.get()
            try:
                future.set_result(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=_STDERR, pass_fds=[descriptor])
                )
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked
                future.set_exception(error)


class WorkerInstance:
    """A loaded variant behind a socket (`instance.Instance`); one call at a time."""

    def __init__(
        self, child: subprocess.Popen[bytes], channel: Channel, limits: WorkerLimits, origin: Origin, variant: VariantId
    ) -> None:
        self.variant = next(one for one in origin.variants if one.id == variant)
        self.slots = 1
        self.is_gone = False
        self._child = child
        self._channel = channel
        self._limits = limits
        self._source = origin.source
        rules = origin.release.manifest.stream
        self._idle_s = rules.idle_ms / 1000 if rules is not None and rules.idle_ms else math.inf
        self._last_used: Mapping[int | str, float] = {}
        """When each sequence that is open there was used, in `time.monotonic()` seconds."""
        self._inbox = Inbox()
        self._outbox = Outbox()
        self._asking = threading.Lock()

    def answer(self, call: Call, record: Record) -> dict[str, Values]:
        """The wanted outputs; counts samples and stages. Raises: BadInput, EngineFault, InferenceError."""
        step = call.sequence
        sequence = None if step is None else (step.id, step.start, step.end)
        with self._asking:
            try:
                placed, fresh = self._outbox.put(call.inputs)
            except TypeError as error:
                raise BadCall("take the inputs", str(error), "give arrays of numbers") from error
            ask = Ask(placed, call.outputs, sequence, call.deadline, call.is_vouched_for)
            told, memory = self._ask(ask, fresh, self._limits.answer_within_s)
            if isinstance(told, Refusal):
                self._note(told.sequences, step)
                raise as_error(told)
            if not isinstance(told, Told):
                raise self._broken(f"it answered with {type(told).__name__}")
            self._note(told.sequences, step)
            try:
                self._inbox.take(memory)
                views = self._inbox.values(told.tensors)
            except TransportError as error:
                raise self._broken(error.because) from error
            # The next answer is written over this one.
            reply = {name: one if isinstance(one, list) else np.array(one) for name, one in views.items()}
        for stage, ns in told.stages_ns:
            record.time(stage, ns)
        record.count(SAMPLES, told.samples)
        return reply

    def golden_check(self) -> list[CheckResult]:
        """Ask the release's golden questions. Raises: InferenceError, ContractError, DigestMismatch."""
        with self._asking:
            told = self._ask_with_files(AskGolden())
        if isinstance(told, Refusal):
            raise as_error(told)
        if not isinstance(told, GoldenAnswers):
            raise self._broken(f"it answered with {type(told).__name__}")
        return told.checks

    def open_sequences(self) -> Collection[int | str]:
        """Ids of the sequences that are open, as far as was heard; a process that hangs keeps nobody waiting here."""
        if self.is_gone:
            return ()
        oldest = time.monotonic() - self._idle_s
        return [name for name, used in self._last_used.items() if used >= oldest]

    def close(self) -> None:
        """End the process: it is asked first, and killed when it does not listen."""
        self._channel.close()
        try:
            self._child.wait(0 if self.is_gone else _GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def load(self, start: Start) -> None:
        """Have it load its variant.

        Raises:
            InferenceError: it cannot; or code `hung`.
            ContractError: the release breaks the contract.
            DigestMismatch: a file is not the promised one.
        """
        told = self._ask_with_files(start)
        if isinstance(told, Refusal):
            raise as_error(told)
        if not isinstance(told, Ready):
            raise self._broken(f"it said {type(told).__name__} while it was loading")

    def _note(self, open_now: Collection[int | str], step: SequenceStep | None) -> None:
        # In one assignment: others look meanwhile.
        now, used, before = time.monotonic(), None if step is None else step.id, self._last_used
        self._last_used = {name: now if name == used else before.get(name, now) for name in open_now}

    def _ask_with_files(self, question: Start | AskGolden) -> object:
        """What it answers after it got the files of the release that it asked for."""
        told, _ = self._ask(question, None, self._limits.load_within_s)
        while isinstance(told, NeedBlob):
            answer, memory = self._file(told)
            told, _ = self._ask(answer, memory, self._limits.load_within_s)
        return told

    def _file(self, wanted: NeedBlob) -> tuple[Blob | Refusal, int | None]:
        try:
            content = self._source.read_blob(wanted.descriptor, max_bytes=wanted.max_bytes)
        except EdgeError as error:
            return as_refusal(error), None
        return Blob(len(content)), blob_memory(content)

    def _ask(
        self, message: FromHost, memory: int | None, timeout_s: float
    ) -> tuple[object, int | None]:
        try:
            self._channel.send(message, memory)
            return self._channel.receive(timeout_s)
        except TimeoutError:
            raise self._broken(f"it did not answer within {timeout_s:g} s", HUNG) from None
        except (EOFError, OSError):
            raise self._broken(None) from None
        except TransportError as error:
            raise self._broken(error.because) from error
        except BaseException:
            # The answer to this question would be taken for the answer to the next.
            self._broken("the call was interrupted")
            raise
        finally:
            if memory is not None:
                os.close(memory)

    def _broken(self, because: str | None, code: str | None = None) -> EngineFault:
        """Whatever happened, this process is not to be trusted any more: it is killed, and the fault says why."""
        if because is None:
            try:
                status = self._child.wait(_GOODBYE_S)
                because = f"it ended with {f'signal {-status}' if status < 0 else f'status {status}'}"
            except subprocess.TimeoutExpired:
                because = "it hung up"
        self.is_gone = True
        self._child.kill()
        self._child.wait()
        return EngineFault(
            f"ask the worker process of variant {self.variant.id}", because, "it is started again later", code=code
        )


def open_worker(
    origin: Origin,
    variant: VariantId,
    *,
    nursery: Nursery,
    limits: WorkerLimits,
    registry: Registry,
    threads: int | None,
    nan: NanPolicy = "off",
    tuned: TunedFrom = None,
) -> WorkerInstance:
    """Load a variant in a fresh process.

    Raises:
        InferenceError: it cannot be loaded; or code `hung`.
        ContractError: the release breaks the contract.
        DigestMismatch: a file is not the promised one.
    """
    manifest = next(one for one in origin.variants if one.id == variant)
    engine = registry[manifest.target.engine]
    if not isinstance(engine, str):
        because = f"its engine {manifest.target.engine} exists in this process only"
        remedy = "name the engine by its import string"
        raise InferenceError(f"load variant {variant} in a process", because, remedy, code=LOAD_FAILED)
    index = Descriptor(mediaType=OCI_INDEX, digest=origin.release.index.digest, size=origin.release.index.size_bytes)
    engines, kept_in = {manifest.target.engine: engine}, None if tuned is None else str(tuned)
    start = Start(index, variant, engines, origin.facts, threads, nan, kept_in, limits.memory_bytes)
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "edge_runtime.serving.worker_process", str(theirs.fileno()), str(os.getpid())]
    with theirs:
        try:
            child = nursery.start(command, theirs.fileno())
        except OSError as error:
            ours.close()
            raise InferenceError(f"start a process for variant {variant}", str(error), code=LOAD_FAILED) from error
    worker = WorkerInstance(child, Channel(ours, FromWorker), limits, origin, variant)
    try:
        worker.load(start)
    except BaseException:
        worker.close()
        raise
    return worker
