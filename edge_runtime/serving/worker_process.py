"""`python -m edge_runtime.serving.worker_process`: one variant, alone in its process, answering its host's calls."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import cast

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.layout import Descriptor, open_release, parse_release_index, read_checked
from edge_runtime.contract.reasons import MEMORY
from edge_runtime.inference.model import Model
from edge_runtime.inference.requests.accounting import SAMPLES, Record
from edge_runtime.parent import end_with_parent, limit_memory
from edge_runtime.serving.calls import Call, SequenceStep
from edge_runtime.serving.instance import LocalInstance, is_out_of_memory
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
)
from edge_runtime.serving.worker_refusals import as_error, as_refusal


def main(descriptor: int, parent_pid: int) -> int:
    """Serve the host at the other end of a socket until it hangs up."""
    end_with_parent(parent_pid)
    # Ctrl-C reaches the whole terminal; the host decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor), FromHost)
    try:
        start, _ = channel.receive(None)
        if isinstance(start, Start):
            _serve(channel, start)
    except (EOFError, OSError):
        return 0
    return 0


class _HostSource:
    """Blobs of the release, which only the host can read (`layout.BlobSource`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        self._channel.send(NeedBlob(descriptor, max_bytes))
        answer, memory = self._channel.receive(None)
        if isinstance(answer, Refusal):
            raise as_error(answer)
        if not isinstance(answer, Blob) or memory is None:
            raise ContractError(f"read blob {descriptor.digest}", "the host sent something else")
        with os.fdopen(memory, "rb") as file:
            file.seek(0)
            return file.read(min(answer.size, max_bytes + 1))


def _serve(channel: Channel, start: Start) -> None:
    try:
        instance = LocalInstance(_open(channel, start), start.nan)
    except Exception as error:  # noqa: BLE001 - the host must hear of it, whatever it is
        channel.send(as_refusal(_too_large(start) if is_out_of_memory(error) else error))
        return
    channel.send(Ready())
    desk = _Desk(instance)
    while True:
        message, memory = channel.receive(None)
        answer: FromWorker
        try:
            answer, fresh = desk.answer(cast("FromHost", message), memory)
        except Exception as error:  # noqa: BLE001 - the host must hear of it, whatever it is
            answer, fresh = as_refusal(error, list(instance.open_sequences())), None
        channel.send(answer, fresh)
        if fresh is not None:
            os.close(fresh)


def _open(channel: Channel, start: Start) -> Model:
    limit_memory(start.memory_bytes)
    source = _HostSource(channel)
    index = parse_release_index(read_checked(source, start.index, max_bytes=start.index.size))
    release = open_release(source, index)
    return Model.open(
        (release, source),
        variant=start.variant,
        threads=start.threads,
        facts=start.facts,
        registry=start.engines,
        tuned=None if start.tuned is None else "off" if start.tuned == "off" else Path(start.tuned),
    )


def _too_large(start: Start) -> InferenceError:
    granted = "the machine has too little memory for it"
    if start.memory_bytes is not None:
        granted = f"it does not fit into the {start.memory_bytes / 2**20:.0f} MiB that its process may take"
    return InferenceError(
        f"load variant {start.variant} in a process",
        granted,
        "grant it more, unload other models, or build a smaller variant",
        code=MEMORY,
    )


class _Desk:
    """Takes messages to the model and back."""

    def __init__(self, instance: LocalInstance) -> None:
        self._instance = instance
        self._record = Record()
        self._inbox = Inbox()
        self._outbox = Outbox()

    def answer(self, message: FromHost, memory: int | None) -> tuple[GoldenAnswers | Told, int | None]:
        """The answer, and fresh memory that goes with it. Raises: EdgeError."""
        match message:
            case Ask():
                return self._told(message, memory)
            case AskGolden():
                return GoldenAnswers(self._instance.golden_check()), None
            case Start() | Blob() | Refusal():
                raise ContractError("do what the host asks", f"{type(message).__name__} has no place here")

    def _told(self, ask: Ask, memory: int | None) -> tuple[Told, int | None]:
        self._inbox.take(memory)
        sequence = None if ask.sequence is None else SequenceStep(*ask.sequence)
        record = self._record
        earlier, samples = list(record.totals_ns), record.counters[SAMPLES]
        inputs = self._inbox.values(ask.inputs)
        call = Call(inputs, ask.outputs, ask.deadline, sequence=sequence, is_vouched_for=ask.is_vouched_for)
        tensors = self._instance.answer(call, record)
        spent = [(stage, now - then) for stage, (now, then) in enumerate(zip(record.totals_ns, earlier, strict=True))]
        stages = [(stage, ns) for stage, ns in spent if ns]
        sequences = list(self._instance.open_sequences())
        placed, fresh = self._outbox.put(tensors)  # last: memory that the host is not handed is lost to both
        return Told(placed, stages, record.counters[SAMPLES] - samples, sequences), fresh


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
