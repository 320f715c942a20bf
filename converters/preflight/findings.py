"""What a look at a model finds: every finding at once, each with the nodes it is about and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing an engineer should know before minutes of work."""

    severity: Severity
    code: str
    message: str
    advice: str = ""
    nodes: tuple[str, ...] = ()


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether any finding forbids the build."""
    return any(finding.severity == "error" for finding in findings)


def named(nodes: Iterable[str], limit: int = 5) -> str:
    """Node names for a sentence: the first few, and how many more there are."""
    listed = list(nodes)
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")
