"""`make bench`: measures and prints docs/benchmarks.md; progress goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.bench import (
    agent_start,
    answers,
    batching,
    camera,
    conversion,
    door_swaps,
    doors,
    in_process,
    ingest,
    machine,
    pictures,
    start,
    swaps,
    throughput,
)

SECTIONS: tuple[tuple[str, Callable[[], list[str]]], ...] = (
    ("the agent before it has a model", agent_start.report),
    ("one answer beside the bare engine", answers.report),
    ("the bare engine in the same process", in_process.report),
    ("a JPEG beside the best plain sequence", pictures.report),
    ("start to first answer beside the bare script", start.report),
    ("what each door costs", doors.report),
    ("throughput beside a Triton server", throughput.report),
    ("gathering calls into batches", batching.report),
    ("swapping a model under load", swaps.report),
    ("swapping a model under load, through the doors", door_swaps.report),
    ("a camera pipeline beside a loop", camera.report),
    ("what is shipped beside other quantisers", conversion.report),
    ("a telemetry batch beside the bare database", ingest.report),
)


def main() -> None:
    """Run every section; the page is printed only when all of them succeeded."""
    page = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Everything in a table was measured side by side in one run: trust the ratios",
        "before the seconds.",
        "",
        *machine.describe(),
    ]
    for number, (name, report) in enumerate(SECTIONS, 1):
        sys.stderr.write(f"[{number}/{len(SECTIONS)}] {name} ...\n")
        page += ["", *report()]
    sys.stdout.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
