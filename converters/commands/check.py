"""Looks at a model and says what it sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.commands.translate import local_model
from converters.errors import BadModel, CannotWrite
from converters.model.fixed_shapes import Shapes
from converters.model.source import Imported
from converters.planning.planner import ceiling_of
from converters.preflight.findings import Finding, stops
from converters.preflight.inspect import inspect, look_at_model
from converters.reading import read_source
from converters.starter.from_model import starter_text
from converters.starter.metadata.facts import merge
from converters.starter.metadata.find import find_facts
from devices.catalogue import resolve_targets
from edge_runtime.contract.errors import printable


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, and for which target families a model can be built."""

    findings: tuple[Finding, ...]
    verdicts: dict[str, bool]
    """By family."""

    @property
    def is_sound(self) -> bool:
        """Whether it can be built for every target asked about."""
        return all(self.verdicts.values())


def check_model(model: Path, targets: tuple[str, ...], shapes: Shapes) -> Checked:
    """Preflight findings of a model for these targets. Raises: UnknownTarget."""
    profiles = resolve_targets(targets)
    families = tuple(sorted({profile.family for profile in profiles}))
    findings = inspect(model, max_opset=ceiling_of(profiles).opset, families=families, shapes=shapes)
    return Checked(findings, {family: not stops(findings, family) for family in families})


def print_checked(model: Path, checked: Checked) -> None:
    """Findings for a person, worst first, and the verdict."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in checked.findings:
        console.print(f"{finding.severity:8}", style=styles[finding.severity], end="")
        about = f"[{', '.join(finding.families)}] " if finding.families else ""
        # Text, not str: a tensor called "x[0]" or ":0:" is no markup and no emoji of rich.
        console.print(Text(printable(about + finding.message)), soft_wrap=True)
        if finding.advice:
            console.print(Text(f"        → {printable(finding.advice)}"), soft_wrap=True)
    console.print(Text(printable(_verdict(model.name or str(model), checked))), soft_wrap=True)


def starter_recipe(given: Path, preprocessor: Path | None, labels: Path | None, *, trusts_code: bool) -> str:
    """A commented recipe made from a model and what metadata says about it.

    Args:
        given: the model as a person named it; the recipe says the same.
        preprocessor: metadata in a file of its own.
        labels: file that receives the labels which the metadata hold.
        trusts_code: whether it may run code.

    Raises:
        BadModel: the model or its metadata cannot be read, or hold no labels.
        CannotWrite: the labels.
    """
    found = local_model(given, trusts_code=trusts_code)
    imported = read_model(found.model)
    known = find_facts(imported, preprocessor)
    if labels is not None:
        _write_labels(labels, merge(known).labels)
    return starter_text(found.uri or str(given), imported, known)


def read_model(path: Path, shapes: Shapes | None = None) -> Imported:
    """A model after the look preflight takes, so that each command says the same about a file. Raises: BadModel."""
    if refused := look_at_model(path):
        raise BadModel(f"use {path.name or path}", refused.message, refused.advice)
    return read_source(path, shapes)


def _write_labels(path: Path, labels: tuple[str, ...]) -> None:
    if not labels:
        raise BadModel(f"write {path}", "the model's metadata hold no labels", "write one label per line yourself")
    try:
        path.write_text("\n".join(labels) + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"write {path}", error.strerror or str(error), "name a folder that you may write") from error


def _verdict(name: str, checked: Checked) -> str:
    good = [family for family, is_good in checked.verdicts.items() if is_good]
    bad = [family for family, is_good in checked.verdicts.items() if not is_good]
    if not bad:
        return f"{name} can be built for {', '.join(good)}"
    beside = f"; it can be for {', '.join(good)}" if good else ""
    return f"{name} cannot be built for {', '.join(bad)}{beside}"
