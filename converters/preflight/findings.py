"""What a look at a model finds: every finding at once, each with the nodes it is about and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning", "note"]

_RANK: Final = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing an engineer should know before minutes of work."""

    severity: Severity
    code: str
    message: str
    advice: str = ""
    nodes: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    """Target families it is about (`coral`); empty: every one."""


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether any finding forbids a build for some target."""
    return any(finding.severity == "error" for finding in findings)


def stops(findings: Iterable[Finding], family: str) -> bool:
    """Whether a model cannot be built for a target family."""
    return any(
        finding.severity == "error" and (not finding.families or family in finding.families) for finding in findings
    )


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in the order they should be read; those of one severity keep theirs."""
    return tuple(sorted(findings, key=lambda finding: _RANK[finding.severity]))


def named(nodes: Iterable[str], limit: int = 5) -> str:
    """Node names for a sentence: the first few, and how many more there are."""
    listed = list(nodes)
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")
