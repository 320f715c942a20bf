"""The shell around a plan: one thread reads each source, one asks the models about its frames, one feeds each sink.

Frames of one source stay in order. Waiting lines are bounded: a source of files is held back by the slowest stage, of
a live source the newest frame wins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.interrupt import wait_for
from edge_runtime.pipelines.cutting import cut_boxes, cut_grid, in_frame
from edge_runtime.pipelines.description import BoxCrops
from edge_runtime.pipelines.line import Line
from edge_runtime.pipelines.planner import AskStep, CutStep, Plan, Route
from edge_runtime.pipelines.ports import Asked, FrameSource, LaterSink, RecordSink, Tell
from edge_runtime.pipelines.records import Failure, Finding, Frame, Record, Region, Unreadable
from edge_runtime.pipelines.statistics import PipelineReport, Stage

FILES_WAITING: Final = 4
"""Frames of a source of files that are read ahead."""
RECORDS_WAITING: Final = 16


@dataclass(frozen=True, slots=True)
class Parts:
    """What a plan's names stand for."""

    sources: Mapping[str, FrameSource]
    models: Mapping[str, Asked]
    sinks: Mapping[str, RecordSink]


class Pipeline:
    """A plan with its parts; runs once.

    Args:
        plan: what is done.
        parts: who does it; closed at the end of the run.
        tell: takes one line for a person, from any thread.
        stopping: set when the run is to end; sinks may know it as well.
    """

    def __init__(self, plan: Plan, parts: Parts, tell: Tell, stopping: threading.Event | None = None) -> None:
        self._plan = plan
        self._parts = parts
        self._tell = tell
        self._frames: dict[str, Line[Frame]] = {
            route.source: Line(1 if route.is_live else FILES_WAITING) for route in plan.routes
        }
        self._records: dict[str, Line[Record]] = {one.sink: Line(RECORDS_WAITING) for one in plan.deliveries}
        self._sources = {route.source: Stage("source", route.source) for route in plan.routes}
        self._models = {name: Stage("model", name) for name in parts.models}
        self._sinks = {one.sink: Stage("sink", one.sink) for one in plan.deliveries}
        self._ended_early: set[str] = set()
        self._stopping = stopping or threading.Event()
        self._crash: list[BaseException] = []
        self._began = time.monotonic()

    def stop(self) -> None:
        """Read no more; what was read is still answered and delivered. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> PipelineReport:
        """Run until the sources end or `stop` is called, then finish what is under way and close everything."""
        self._began = time.monotonic()
        sinks = [self._thread(partial(self._feed_sink, one.sink)) for one in self._plan.deliveries]
        workers = [self._thread(partial(self._answer, route)) for route in self._plan.routes]
        readers = [self._thread(partial(self._read, route)) for route in self._plan.routes]
        for thread in (*readers, *workers):
            wait_for(thread)
        for line in self._records.values():
            line.end()
        for thread in sinks:
            wait_for(thread)
        for model in self._parts.models.values():
            model.close()
        if self._crash:
            raise self._crash[0]
        return self.report()

    def report(self) -> PipelineReport:
        """The counts now; any thread may ask."""
        stages = (
            *(stage.report(self._frames[name].dropped) for name, stage in self._sources.items()),
            *(stage.report() for stage in self._models.values()),
            *(stage.report(self._records[name].dropped) for name, stage in self._sinks.items()),
        )
        return PipelineReport(self._plan.name, time.monotonic() - self._began, stages, bool(self._ended_early))

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (a defect must end the run, not one thread in silence)
                self._crash.append(error)
                self._stopping.set()
                for frames in self._frames.values():
                    frames.end()
                for records in self._records.values():
                    records.end()

        thread = threading.Thread(target=guarded, name="pipeline", daemon=True)
        thread.start()
        return thread

    def _read(self, route: Route) -> None:
        stage, line = self._sources[route.source], self._frames[route.source]
        source = self._parts.sources[route.source]
        try:
            began = time.perf_counter()
            for read in source.frames(self._stopping):
                if isinstance(read, Unreadable):
                    self._failed(stage, read.because)
                else:
                    stage.did(time.perf_counter() - began)
                    line.put(read, is_live=route.is_live)
                began = time.perf_counter()
            if source.left_early:
                self._ended_early.add(route.source)
        finally:
            source.close()
            line.end()

    def _answer(self, route: Route) -> None:
        takers = [one for one in self._plan.deliveries if route.source in one.sources]
        while (frame := self._frames[route.source].take()) is not None:
            record = self._asked(route, frame)
            for one in takers:
                self._records[one.sink].put(record.only(one.models), is_live=route.is_live)

    def _asked(self, route: Route, frame: Frame) -> Record:
        """What the models say about one frame; a model that fails costs its own answer and what depends on it."""
        findings: list[Finding] = []
        failures: list[Failure] = []
        regions: dict[str, list[Region]] = {}
        for step in route.steps:
            if isinstance(step, CutStep):
                regions[step.crops] = _cut(step, frame, findings)
                continue
            for said in self._said(step, frame, (None,) if step.crops is None else regions[step.crops]):
                if isinstance(said, Finding):
                    findings.append(said)
                else:
                    failures.append(said)
        return Record(self._plan.name, frame, tuple(findings), tuple(failures))

    def _said(self, step: AskStep, frame: Frame, regions: Sequence[Region | None]) -> Sequence[Finding | Failure]:
        """What a model says about each, asked at once; where that fails one by one, so that one crop costs itself."""
        if len(regions) > 1:
            began = time.perf_counter()
            try:
                answers = self._parts.models[step.model].ask_all([_pixels(frame, region) for region in regions])
            except InferenceError:
                pass
            else:
                each_s = (time.perf_counter() - began) / len(regions)
                pairs = zip(answers, regions, strict=True)
                return [self._found(step, answer, region, each_s) for answer, region in pairs]
        return [self._tried(step, frame, region) for region in regions]

    def _tried(self, step: AskStep, frame: Frame, region: Region | None) -> Finding | Failure:
        try:
            return self._ask(step, frame, region)
        except InferenceError as error:
            self._failed(self._models[step.model], str(error))
            return Failure(step.model, str(error))

    def _ask(self, step: AskStep, frame: Frame, region: Region | None) -> Finding:
        began = time.perf_counter()
        answer = self._parts.models[step.model].ask(_pixels(frame, region))
        return self._found(step, answer, region, time.perf_counter() - began)

    def _found(self, step: AskStep, answer: Answer, region: Region | None, seconds: float) -> Finding:
        self._models[step.model].did(seconds)
        return Finding(step.model, answer if region is None else in_frame(answer, region), region)

    def _feed_sink(self, name: str) -> None:
        sink, stage = self._parts.sinks[name], self._sinks[name]
        counts_itself = isinstance(sink, LaterSink)
        if isinstance(sink, LaterSink):
            sink.begin(stage)
        while (record := self._records[name].take()) is not None:
            began = time.perf_counter()
            try:
                is_delivered = sink.deliver(record) is not False and not counts_itself
            except EdgeError as error:
                self._failed(stage, str(error))
            else:
                if is_delivered:
                    stage.did(time.perf_counter() - began)
        try:
            sink.close()
        except EdgeError as error:
            self._failed(stage, str(error))

    def _failed(self, stage: Stage, because: str) -> None:
        # Said once while it goes on: a full disk would else write a line for every frame.
        if stage.failed(because):
            self._tell(f"{stage.kind} {stage.name}: {because}")


def _pixels(frame: Frame, region: Region | None) -> Array:
    if region is None:
        return frame.picture
    left, top, right, bottom = region.box
    part: Array = frame.picture[top:bottom, left:right]
    return part


def _cut(step: CutStep, frame: Frame, findings: list[Finding]) -> list[Region]:
    size = (frame.width, frame.height)
    if not isinstance(step.rule, BoxCrops):
        return cut_grid(step.crops, step.rule, size)
    regions: list[Region] = []
    for finding in findings:
        if finding.model == step.detector and step.output is not None:
            boxes = finding.answer.get(step.output)
            if isinstance(boxes, Boxes):
                regions += cut_boxes(step.crops, step.rule, boxes, size)
    # A detector that saw several crops: its best boxes over all of them, numbered through.
    regions = sorted(regions, key=lambda one: -(one.score or 0.0))[: step.rule.max]
    return [Region(one.crops, index, one.box, one.label, one.score) for index, one in enumerate(regions)]
