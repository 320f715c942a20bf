"""From a pipeline's file to a pipeline that can run: releases are read and planned before anything is opened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import parse_slot_id
from edge_runtime.contract.layout import BlobSource, LayoutFolder
from edge_runtime.contract.steps import Color
from edge_runtime.contract.tensor import Signature
from edge_runtime.inference.backend import Array
from edge_runtime.inference.model import Model as OpenModel
from edge_runtime.inference.opening import read_labels
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.inference.preprocessing.images import recolour
from edge_runtime.inference.tuned_settings import TunedSettings, as_wished, settings_of
from edge_runtime.installed import installed_builds, is_state_folder, open_installed
from edge_runtime.pipelines import description as described
from edge_runtime.pipelines.description import Description
from edge_runtime.pipelines.planner import Labels, Plan, plan
from edge_runtime.pipelines.ports import Asked, FrameSource, RecordSink, Tell
from edge_runtime.pipelines.runner import Parts, Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class PictureModel:
    """An open release that takes one picture; pictures come as RGB and reach it in its own colours."""

    model: OpenModel
    input: str
    color: Color

    def ask(self, picture: Array) -> Answer:
        """The answer to one picture, uint8 [H, W, 3] RGB. Raises: InferenceError."""
        return self.model.infer(self._question(picture))

    def ask_all(self, pictures: Sequence[Array]) -> list[Answer]:
        """The answers to several, asked at once where the variant takes a free number. Raises: InferenceError."""
        questions = [self._question(picture) for picture in pictures]
        return self.model.ask(lambda asker: asker.infer_all(questions))

    def _question(self, picture: Array) -> dict[str, Array]:
        return {self.input: recolour(picture[None], "rgb", self.color)[0]}

    def close(self) -> None:
        """Free the engine's memory."""
        self.model.close()


@dataclass(frozen=True, slots=True)
class Planned:
    """A pipeline that can work, with the models that are open already where their release had to be found out."""

    plan: Plan
    description: Description
    folder: Path


def plan_pipeline(description: Description, folder: Path) -> Planned:
    """Read what the releases promise, and plan.

    Args:
        description: what the file says.
        folder: where the file lies; patterns start there.

    Raises:
        ContractError: as `planner.plan`, or a release that cannot be read.
        DigestMismatch: a release's manifest is not the promised one.
    """
    promises = {name: _promise(name, model) for name, model in description.models.items()}
    signatures = {name: signature for name, (signature, _) in promises.items()}
    labels = {name: texts for name, (_, texts) in promises.items()}
    return Planned(plan(description, signatures, labels), description, folder)


def open_pipeline(
    planned: Planned, tell: Tell, *, tuned: Path | None = None, trust_code: bool = False
) -> Pipeline:
    """Open models, sources and sinks; whatever was opened is closed when one of them cannot be.

    Args:
        planned: what is to be done.
        tell: takes one line for a person, from any thread.
        tuned: folder of `edge-runtime tune --state` for models that name none; None: the user's own.
        trust_code: whether functions that the file names may be imported.

    Raises:
        EdgeError: a model, source or sink that cannot be opened.
    """
    description = planned.description
    _check_trust(description, trust_code=trust_code)
    stopping = threading.Event()
    with ExitStack() as opened:
        # Sources and sinks first: they fail in milliseconds, a model may take a minute to load.
        sources: dict[str, FrameSource] = {}
        for name, source in description.sources.items():
            sources[name] = _open_source(name, source, planned.folder, tell)
            opened.callback(sources[name].close)
        sinks: dict[str, RecordSink] = {}
        for name, sink in description.sinks.items():
            sinks[name] = _open_sink(name, sink, planned, tell, stopping)
            opened.callback(sinks[name].close)
        models: dict[str, Asked] = {}
        for name, model in description.models.items():
            models[name] = _open_model(name, model, tell, model.tuned or tuned)
            opened.callback(models[name].close)
        pipeline = Pipeline(planned.plan, Parts(sources, models, sinks), tell, stopping)
        opened.pop_all()
    return pipeline


def _promise(name: str, model: described.Model) -> tuple[Signature, Labels]:
    """What a release takes and answers, and its label lists."""
    source: BlobSource
    try:
        if is_state_folder(model.release):
            builds = installed_builds(model.release)
            if (build := builds.get(parse_slot_id(model.slot))) is None:
                because = f"nothing is installed in slot {model.slot} of {model.release}"
                raise ContractError(f"use model {name}", because, f"name one of {', '.join(builds)}")
            release, source = build.release, build.source
        else:
            source = LayoutFolder(model.release)
            release = source.open()
        return release.manifest.signature, read_labels(release, source)
    except ContractError as error:
        raise ContractError(f"put model {name} into a pipeline", str(error), "correct its release") from error


def _open_model(name: str, model: described.Model, tell: Tell, tuned_in: Path | None) -> PictureModel:
    backends = model.backends or None
    if is_state_folder(model.release):
        opened = open_installed(
            model.release, model.slot, threads=model.threads, backends=backends, batch=model.batch,
            tuned=tuned_in,
        )  # fmt: skip
    else:
        opened = OpenModel.open(
            model.release, variant=model.variant, threads=model.threads, backends=backends, batch=model.batch,
            tuned=tuned_in,
        )  # fmt: skip
    if tuned := _tuned(opened, model):
        tell(f"model {name} runs variant {opened.variant_id} with {tuned}")
    spec = opened.release.manifest.signature.inputs[0]
    colors: Mapping[str, Color] = {"rgb": "rgb", "bgr": "bgr", "gray": "gray"}
    if (color := colors.get(spec.color or "")) is None:
        opened.close()
        because = f"input {spec.name} of {opened!r} does not say its colours"
        raise ContractError("ask it about pictures", because, "build the release with a color")
    return PictureModel(opened, spec.name, color)


def _tuned(opened: OpenModel, model: described.Model) -> TunedSettings | None:
    """What of `edge-runtime tune` is in use."""
    if opened.tuned is None:
        return None
    found = {opened.variant_id: settings_of(opened.release.manifest, opened.variant, opened.tuned)}
    return as_wished(found, model.threads, model.batch).get(opened.variant_id)


def _open_source(name: str, source: described.Source, folder: Path, tell: Tell) -> FrameSource:
    now: Callable[[], float] = time.time
    if isinstance(source, described.FilesSource):
        from edge_runtime.pipelines.sources.files import open_files

        return open_files(name, source, folder, now)
    if isinstance(source, described.FolderSource):
        from edge_runtime.pipelines.sources.files import open_folder

        return open_folder(name, source, now)
    from edge_runtime.pipelines.sources.capture import open_camera, open_stream, open_video

    if isinstance(source, described.CameraSource):
        return open_camera(name, source, now, tell)
    if isinstance(source, described.StreamSource):
        return open_stream(name, source, now, tell)
    return open_video(name, source, now)


def _open_sink(
    name: str, sink: described.Sink, planned: Planned, tell: Tell, stopping: threading.Event
) -> RecordSink:
    opened: Any
    match sink:
        case described.MqttSink():
            from edge_runtime.pipelines.sinks.mqtt import MqttPublisher

            opened = MqttPublisher(name, sink, tell, stopping)
        case described.WebhookSink():
            from edge_runtime.pipelines.sinks.webhook import Webhook

            opened = Webhook(name, sink, tell, stopping, live=planned.plan.live)
        case described.JsonlSink():
            from edge_runtime.pipelines.sinks.jsonl import JsonlFile

            opened = JsonlFile(sink)
        case described.PicturesSink():
            from edge_runtime.pipelines.sinks.pictures import PictureFiles

            opened = PictureFiles(sink)
        case described.VideoSink():
            from edge_runtime.pipelines.sinks.video import VideoFile

            opened = VideoFile(name, sink)
        case described.CallbackSink():
            from edge_runtime.pipelines.sinks.callback import Callback, load_function

            opened = Callback(name, load_function(name, sink.function, planned.folder))
        case described.TableSink():
            from edge_runtime.pipelines.sinks.table import TableLines

            opened = TableLines()
    sink_port: RecordSink = opened
    return sink_port


def _check_trust(description: Description, *, trust_code: bool) -> None:
    named = [sink.function for sink in description.sinks.values() if isinstance(sink, described.CallbackSink)]
    if named and not trust_code:
        because = f"it imports and runs {', '.join(named)}"
        raise ContractError(f"run pipeline {description.name}", because, "read that code, then add --trust-code")
