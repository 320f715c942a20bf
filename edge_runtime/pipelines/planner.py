"""From a description to what is done with each frame: pure, and everything that cannot work is refused here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Final

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.tensor import Signature
from edge_runtime.pipelines.description import BoxCrops, Crops, Description, VideoSink, is_live

_BOXES: Final = "detections"
_SHOWN: Final = 5
"""Labels that are named where none is near to what was written."""

Labels = Mapping[str, tuple[str, ...]]
"""Label texts by output."""


@dataclass(frozen=True, slots=True)
class AskStep:
    """A model is asked: about the whole picture, or about each crop."""

    model: str
    crops: str | None
    """None: the whole picture."""

    @property
    def sentence(self) -> str:
        """What is done, for a person."""
        return f"ask {self.model} about {'the picture' if self.crops is None else f'each of {self.crops}'}"


@dataclass(frozen=True, slots=True)
class CutStep:
    """Regions are cut out of the picture."""

    crops: str
    rule: Crops
    detector: str | None
    """Model whose boxes are cut; None: the whole picture is cut."""
    output: str | None
    """Its output with the boxes."""

    @property
    def sentence(self) -> str:
        """What is done, for a person."""
        if not isinstance(self.rule, BoxCrops):
            return f"cut {self.crops}: {self.rule.rows} × {self.rule.columns} tiles of the picture"
        which = ", ".join(self.rule.labels) or "everything"
        return (
            f"cut {self.crops}: {which} that {self.detector} finds with {self.rule.min_score:g} or more, "
            f"at most {self.rule.max}"
        )


Step = AskStep | CutStep


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with each frame of one source, in order."""

    source: str
    is_live: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one sink gets."""

    sink: str
    models: frozenset[str]
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline that can work."""

    name: str
    routes: tuple[Route, ...]
    deliveries: tuple[Delivery, ...]

    @property
    def live(self) -> frozenset[str]:
        """Sources whose frames come at their own pace."""
        return frozenset(route.source for route in self.routes if route.is_live)


def plan(
    description: Description, signatures: Mapping[str, Signature], labels: Mapping[str, Labels] | None = None
) -> Plan:
    """The routes of a pipeline.

    Args:
        description: what its file says.
        signatures: by name of a model in the file, what its release promises.
        labels: the same way, label lists by output; crops of a model without are not held against any.

    Raises:
        ContractError: a name used twice or unknown, a cycle, something that cannot take what it is given, a model that
            nothing reads.
    """
    _check_names(description)
    feeds = {name: _feeds_of_model(description, name) for name in description.models}
    feeds.update({name: (crops.from_,) for name, crops in description.crops.items()})
    order = _ordered(feeds, description)
    for name in description.models:
        _check_question(name, signatures[name])
    steps = {name: _step(name, feeds[name], description, signatures) for name in order}
    reached = _reached(order, feeds, description)
    routes = tuple(
        Route(source, is_live(described), tuple(steps[name] for name in order if source in reached[name]))
        for source, described in description.sources.items()
    )
    if idle := next((route.source for route in routes if not route.steps), None):
        raise _refused(description, f"no model takes source {idle}", f'write from = "{idle}" in a model')
    _check_labels(description, steps.values(), labels or {})
    deliveries = tuple(_delivery(name, description, reached) for name in description.sinks)
    _check_all_used(description, feeds, deliveries)
    return Plan(description.name, routes, deliveries)


def _check_names(description: Description) -> None:
    seen: dict[str, str] = {}
    for kind in ("sources", "models", "crops", "sinks"):
        for name in getattr(description, kind):
            if name in seen:
                because = f"{name} names one of {seen[name]} and one of {kind}"
                raise _refused(description, because, "give each its own name")
            seen[name] = kind


def _feeds_of_model(description: Description, name: str) -> tuple[str, ...]:
    given = description.models[name].from_
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise _refused(description, f"model {name} takes nothing", "name sources or crops in from")
    for one in names:
        if one in description.models:
            because = f"model {name} takes the model {one}"
            remedy = f'cut what {one} found: [crops.NAME] with from = "{one}", then from = "NAME"'
            raise _refused(description, because, remedy)
        if one not in description.sources and one not in description.crops:
            raise _unknown(description, f"model {name}", one, (*description.sources, *description.crops))
    if len(names) > 1 and (crop := next((one for one in names if one in description.crops), None)):
        because = f"model {name} takes crops {crop} and something else"
        raise _refused(description, because, "write one model for each: a release may be named twice")
    if len(set(names)) != len(names):
        raise _refused(description, f"model {name} takes the same twice", "name each source once")
    return names


def _ordered(feeds: Mapping[str, tuple[str, ...]], description: Description) -> list[str]:
    for name, crops in description.crops.items():
        if crops.from_ not in description.sources and crops.from_ not in description.models:
            raise _unknown(description, f"crops {name}", crops.from_, (*description.models, *description.sources))
    try:
        order = list(TopologicalSorter(feeds).static_order())
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise _refused(description, f"they feed each other in a circle: {circle}", "start from a source") from error
    return [name for name in order if name in feeds]


def _check_question(name: str, signature: Signature) -> None:
    if len(signature.inputs) != 1 or signature.inputs[0].kind != "image":
        takes = ", ".join(f"{spec.name} ({spec.kind})" for spec in signature.inputs)
        raise ContractError(
            f"put model {name} into a pipeline", f"it takes {takes}, not one picture", "ask it from Python: Model.infer"
        )


def _step(name: str, feeds: tuple[str, ...], description: Description, signatures: Mapping[str, Signature]) -> Step:
    if name in description.models:
        return AskStep(name, feeds[0] if feeds[0] in description.crops else None)
    rule = description.crops[name]
    if not isinstance(rule, BoxCrops):
        if rule.from_ not in description.sources:
            raise _refused(description, f"crops {name} cuts a grid out of model {rule.from_}", "name a source in from")
        return CutStep(name, rule, None, None)
    if rule.from_ in description.sources:
        because = f"crops {name} cuts boxes out of source {rule.from_}, which finds none"
        raise _refused(description, because, 'name a detector in from, or write kind = "grid"')
    return CutStep(name, rule, rule.from_, _box_output(name, rule, description, signatures[rule.from_]))


def _box_output(name: str, rule: BoxCrops, description: Description, signature: Signature) -> str:
    offered = [output.name for output in signature.outputs if output.kind == _BOXES]
    if rule.output is not None:
        if rule.output not in offered:
            raise _unknown(description, f"crops {name}", rule.output, offered, what="output with boxes")
        return rule.output
    if len(offered) != 1:
        kinds = ", ".join(f"{output.name} ({output.kind})" for output in signature.outputs)
        because = f"crops {name} needs boxes, and model {rule.from_} answers {kinds}"
        remedy = "name one of them in output" if offered else "name a detector in from"
        raise _refused(description, because, remedy)
    return offered[0]


def _check_labels(description: Description, steps: Iterable[Step], labels: Mapping[str, Labels]) -> None:
    """A name that a detector never says would cut nothing, in silence."""
    for step in steps:
        if not isinstance(step, CutStep) or not isinstance(step.rule, BoxCrops) or step.detector is None:
            continue
        known = labels.get(step.detector, {}).get(step.output or "", ())
        for wanted in step.rule.labels if known else ():
            if wanted not in known:
                near = difflib.get_close_matches(wanted, known, n=3) or known[:_SHOWN]
                because = f"crops {step.crops} cuts {wanted!r}, and none of the {len(known)} labels of model "
                because += f"{step.detector} is that"
                raise _refused(description, because, f"write one as the release has it, such as {', '.join(near)}")


def _reached(
    order: Iterable[str], feeds: Mapping[str, tuple[str, ...]], description: Description
) -> dict[str, frozenset[str]]:
    """For each model and crops, the sources whose frames reach it."""
    reached: dict[str, frozenset[str]] = {name: frozenset({name}) for name in description.sources}
    for name in order:
        reached[name] = frozenset().union(*(reached[feed] for feed in feeds[name]))
    return reached


def _delivery(name: str, description: Description, reached: Mapping[str, frozenset[str]]) -> Delivery:
    sink = description.sinks[name]
    for one in sink.from_:
        if one not in description.models:
            raise _unknown(description, f"sink {name}", one, tuple(description.models))
    models = frozenset(sink.from_ or description.models)
    sources = frozenset().union(*(reached[model] for model in models))
    if isinstance(sink, VideoSink) and len(sources) > 1:
        because = f"sink {name} would mix the frames of {', '.join(sorted(sources))} in one video"
        raise _refused(description, because, "write one sink for each, and name the models in from")
    return Delivery(name, models, sources)


def _check_all_used(
    description: Description, feeds: Mapping[str, tuple[str, ...]], deliveries: Iterable[Delivery]
) -> None:
    """Work that nobody sees is a mistake in the file."""
    used = {feed for names in feeds.values() for feed in names}.union(*(delivery.models for delivery in deliveries))
    for kind in ("models", "crops"):
        if idle := next((name for name in getattr(description, kind) if name not in used), None):
            raise _refused(description, f"nothing takes {kind.removesuffix('s')} {idle}", f"name {idle} in a from")


def _unknown(
    description: Description, who: str, wanted: str, known: Iterable[str], *, what: str = "such name"
) -> ContractError:
    names = tuple(known)
    near = difflib.get_close_matches(wanted, names, n=1)
    remedy = f"write {near[0]}" if near else f"write one of {', '.join(names) or 'nothing: there is none'}"
    return _refused(description, f"{who} takes {wanted!r}, and there is no {what}", remedy)


def _refused(description: Description, because: str, remedy: str) -> ContractError:
    return ContractError(f"plan pipeline {description.name}", because, remedy)
