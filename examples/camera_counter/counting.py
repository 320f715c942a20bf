"""What an application does with records: counts labels, says when a number changes, and what there was in all."""

from __future__ import annotations

from collections import Counter

from edge_runtime.pipelines.records import Record


class Counts:
    """Called with each record of a pipeline; `close` is called when the last one was seen."""

    def __init__(self) -> None:
        self._now: Counter[str] = Counter()
        self._most: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._frames = 0

    def __call__(self, record: Record) -> None:
        """Count one frame."""
        found = Counter(
            label for model in sorted({one.model for one in record.findings}) for label in record.labels(model)
        )
        if found != self._now:
            print(f"{_at(record)}  {_listed(found)}", flush=True)
        self._now = found
        self._most |= found
        self._seen += found
        self._frames += 1

    def close(self) -> None:
        """Say what there was."""
        print(f"most at once: {_listed(self._most)}")
        print(f"over {self._frames} frames: {_listed(self._seen)}", flush=True)


print_counts = Counts()


def _at(record: Record) -> str:
    seconds = record.frame.position_s
    return f"frame {record.frame.number:4}" if seconds is None else f"{seconds:6.1f} s"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} × {label}" for label, count in sorted(counts.items())) or "nothing"
