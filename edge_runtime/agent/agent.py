"""The long-running process: says who it is, reports, sends telemetry, and obeys commands that have an end."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from edge_runtime.agent.clock import AgentClock
from edge_runtime.agent.outbox import Outbox, SendWindow
from edge_runtime.agent.sensors import read_gauges
from edge_runtime.agent.slots import SlotsWorker
from edge_runtime.agent.transport import Message, Transport
from edge_runtime.agent.windows import WindowRecorder
from edge_runtime.contract import topics
from edge_runtime.contract.codec import MESSAGE_MAX_BYTES, decode, encode
from edge_runtime.contract.device_state import Birth, Command, CommandResult, Reported, Status
from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import SlotId
from edge_runtime.contract.telemetry import TelemetryAck
from edge_runtime.update.executor import SlotMachine

_TICK_S: Final = 0.2
_LOOK_S: Final = 2.0
_STREAM: Final = "windows"
_LEVELS: Final = ("debug", "info", "warning", "error")

log = structlog.get_logger("agent")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """How windows become batches."""

    outbox: Outbox
    recorders: Mapping[SlotId, WindowRecorder]
    window_s: float


class Agent:
    """One device at work.

    Args:
        birth: who this is; slots are filled in at each announcement.
        clock: time.
        transport: carries messages.
        machines: the slots' update machines.
        telemetry: outbox and recorders.
        repeat_s: how often reports are said again, in case nobody heard them.
        renew: renews the certificate when it is time; called now and then.
    """

    def __init__(
        self,
        birth: Birth,
        clock: AgentClock,
        transport: Transport,
        machines: Mapping[SlotId, SlotMachine],
        *,
        telemetry: Telemetry,
        repeat_s: float,
        renew: Callable[[], None],
    ) -> None:
        self._birth = birth
        self._device = birth.device
        self._clock = clock
        self._transport = transport
        self._machines = machines
        self._telemetry = telemetry
        self._repeat_s = repeat_s
        self._renew = renew
        self._window = SendWindow()
        self._inbox: queue.Queue[Message] = queue.Queue(1000)
        self._connected = threading.Event()
        self._reports: queue.Queue[Reported] = queue.Queue()
        self._cut_at = clock.monotonic() + telemetry.window_s
        self._repeat_at = clock.monotonic() + repeat_s
        self._look_at = 0.0  # when the outbox is read next, unless something happens to it

    def on_report(self, reported: Reported) -> None:
        """Say where a slot stands; called from the worker's thread."""
        self._reports.put(reported)

    def run(self, worker: SlotsWorker, stopping: threading.Event) -> None:
        """Work until told to stop, then say goodbye and end every thread."""
        worker.start()
        self._transport.start(self._on_message, self._connected.set)
        log.info("agent.started", device=self._device, session=self._birth.session)
        while not stopping.wait(_TICK_S):
            self._try_tick(worker, stopping)
        worker.stop(timeout_s=10)
        self._flush_telemetry()
        farewell = Status(device=self._device, state="disconnected", session=self._birth.session, at=self._clock.now())
        self._transport.stop((topics.up(self._device, topics.STATUS), encode(farewell)))
        log.info("agent.stopped", device=self._device)

    def _try_tick(self, worker: SlotsWorker, stopping: threading.Event) -> None:
        """A disk that refuses to write must not end a device whose model still answers."""
        try:
            self._tick(worker, stopping)
        except EdgeError as error:
            log.error("agent.hindered", code=error.code, reason=str(error))

    def _tick(self, worker: SlotsWorker, stopping: threading.Event) -> None:
        now_monotonic = self._clock.monotonic()
        self._read_inbox(worker, stopping)
        if not worker.has_resumed:
            # What answers is not known yet: a report would say that nothing does.
            return
        if self._connected.is_set() and self._transport.is_connected:
            self._connected.clear()
            self._announce()
            worker.ring()
        while not self._reports.empty():
            self._say(self._reports.get_nowait())
        if now_monotonic >= self._cut_at:
            self._cut_at = now_monotonic + self._telemetry.window_s
            self._flush_telemetry()
        if now_monotonic >= self._repeat_at:
            self._repeat_at = now_monotonic + self._repeat_s
            self._repeat()
            self._renew()
        if self._transport.is_connected:
            self._send_due(now_monotonic)

    def _announce(self) -> None:
        summaries = {slot: machine.summary() for slot, machine in self._machines.items()}
        birth = msgspec.structs.replace(self._birth, slots=summaries)
        status = Status(device=self._device, state="ready", session=self._birth.session, at=self._clock.now())
        self._transport.publish(topics.up(self._device, topics.BIRTH), encode(birth))
        self._transport.publish(topics.up(self._device, topics.STATUS), encode(status), retain=True)
        self._window.reset()
        self._look_at = 0.0
        self._repeat()
        log.info("agent.announced", device=self._device)

    def _repeat(self) -> None:
        """Reports are idempotent by revision: saying them again heals whatever a broker or a server has lost."""
        for machine in self._machines.values():
            self._say(machine.reported())

    def _say(self, reported: Reported) -> None:
        self._transport.publish(topics.reported(self._device, reported.slot), encode(reported))

    def _flush_telemetry(self) -> None:
        for recorder in self._telemetry.recorders.values():
            if samples := recorder.cut(self._clock.now(), read_gauges):
                self._telemetry.outbox.store(_STREAM, samples)
                self._look_at = 0.0

    def _send_due(self, now_monotonic: float) -> None:
        if now_monotonic < self._look_at:
            return
        self._look_at = now_monotonic + _LOOK_S
        waiting = self._telemetry.outbox.unacknowledged(self._window.in_flight)
        for batch in self._window.due(waiting, now_monotonic):
            self._transport.publish(topics.up(self._device, topics.TELEMETRY), batch.payload)

    def _on_message(self, message: Message) -> None:
        """In the transport's thread: a full inbox drops, because everything that matters is sent again."""
        if len(message.payload) <= MESSAGE_MAX_BYTES and not self._inbox.full():
            self._inbox.put_nowait(message)

    def _read_inbox(self, worker: SlotsWorker, stopping: threading.Event) -> None:
        while not self._inbox.empty():
            message = self._inbox.get_nowait()
            try:
                self._obey(message, worker, stopping)
            except EdgeError as error:
                log.warning("message.refused", topic=message.topic[:120], reason=str(error))

    def _obey(self, message: Message, worker: SlotsWorker, stopping: threading.Event) -> None:
        if message.topic == topics.ack(self._device):
            self._telemetry.outbox.acknowledge(decode(message.payload, TelemetryAck))
            self._look_at = 0.0
        elif any(message.topic == topics.desired(self._device, slot) for slot in self._machines):
            worker.ring()
        elif message.topic.startswith(topics.command(self._device, "x")[:-1]):
            self._command(decode(message.payload, Command), worker, stopping)

    def _command(self, command: Command, worker: SlotsWorker, stopping: threading.Event) -> None:
        now = self._clock.now()
        ok, detail = True, ""
        if command.expires <= now:
            ok, detail = False, "the command has expired"
        elif command.name == "restart":
            # Whoever supervises the agent starts it again; the result leaves before the farewell.
            stopping.set()
        elif command.name == "log-level" and command.arguments.get("level") in _LEVELS:
            logging.getLogger().setLevel(str(command.arguments["level"]).upper())
        elif command.name == "ask":
            worker.ring()
        else:
            ok, detail = False, f"this agent does not know the command {command.name[:40]!r}"
        result = CommandResult(id=command.id, ok=ok, at=now, detail=detail)
        self._transport.publish(topics.command_result(self._device, command.id), encode(result))
