"""Looks at a model and says what it sees."""

from __future__ import annotations

from pathlib import Path

from converters.errors import BadModel
from converters.planner import ceiling_of
from converters.preflight.findings import Finding
from converters.preflight.onnx_file import inspect, look_at_model
from converters.reading import is_tflite, read_source
from converters.source import Imported
from converters.starter import starter_text
from devices.catalogue import resolve_targets


def check_findings(model: Path, targets: tuple[str, ...]) -> tuple[Finding, ...]:
    """Preflight findings of a model for these targets. Raises: UnknownTarget."""
    return inspect(model, max_opset=ceiling_of(resolve_targets(targets)).opset)


def print_findings(model: Path, findings: tuple[Finding, ...]) -> None:
    """Findings for a person, worst first."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in findings:
        console.print(f"{finding.severity:8}", style=styles[finding.severity], end="")
        # Text, not str: a tensor called "x[0]" or ":0:" is no markup and no emoji of rich.
        console.print(Text(finding.message))
        if finding.advice:
            console.print(Text(f"        → {finding.advice}"))
    if not any(finding.severity == "error" for finding in findings):
        console.print(Text(f"{model.name} can be built"))


def starter_recipe(model: Path) -> str:
    """A commented recipe made from a model's inputs and outputs. Raises: BadModel."""
    return starter_text(model.name, read_model(model))


def read_model(path: Path) -> Imported:
    """A model after the look preflight takes, so that each command says the same about a file. Raises: BadModel."""
    if not is_tflite(path) and (refused := look_at_model(path)):
        raise BadModel(f"use {path.name}", refused.message, refused.advice)
    return read_source(path)
