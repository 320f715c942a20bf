"""Records as lines for a person on standard output."""

from __future__ import annotations

import re
import sys
from typing import Final, TextIO

from edge_runtime.contract.errors import InferenceError, printable
from edge_runtime.inference.postprocessing.rendering import as_text
from edge_runtime.pipelines.records import Finding, Record
from edge_runtime.terminal import fitted

_COLUMNS: Final = (14, 28, 16)
_GAP: Final = 2
_GLUE: Final = "\u00a0"
_TOGETHER: Final = re.compile(r" \(| at \[[^\]]*\]")
"""Where a line is not broken: a label and its score, a box."""


class TableLines:
    """One line per answer: source, frame, model, answer.

    Args:
        output: where lines go; standard output when omitted.
    """

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stdout
        self._has_head = False

    def deliver(self, record: Record) -> None:
        """Write a record's lines. Raises: InferenceError when nobody reads them any more."""
        frame = record.frame
        where = frame.file.rpartition("/")[2] if frame.file is not None else str(frame.number)
        if frame.position_s is not None:
            where = f"{frame.number} ({frame.position_s:.2f} s)"
        rows = [(frame.source, where, _asked(one), _answer(one)) for one in record.findings]
        rows += [(frame.source, where, one.stage, one.because) for one in record.failures]
        if not self._has_head:
            rows.insert(0, ("SOURCE", "FRAME", "MODEL", "ANSWER"))
            self._has_head = True
        lines = (fitted(_line(row), self._output, indent=_COLUMNS[0] + _GAP) for row in rows)
        try:
            self._output.write("".join(f"{line.replace(_GLUE, ' ')}\n" for line in lines))
            self._output.flush()
        except OSError as error:
            raise InferenceError("write the table", error.strerror or str(error)) from error

    def close(self) -> None:
        """Nothing is held."""


def _asked(finding: Finding) -> str:
    return finding.model if finding.region is None else f"{finding.model} {finding.region.index + 1}"


def _answer(finding: Finding) -> str:
    texts = [as_text(part) for part in finding.answer.values()]
    return "; ".join(texts)


def _line(row: tuple[str, str, str, str]) -> str:
    *short, last = (printable(cell).replace("\n", "\\n") for cell in row)
    columns = "".join(f"{cell:<{width}}{' ' * _GAP}" for cell, width in zip(short, _COLUMNS, strict=True))
    return columns + _TOGETHER.sub(lambda found: found[0].replace(" ", _GLUE), last)
