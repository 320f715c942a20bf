"""Where `edge-runtime` starts, before anything that takes long to import."""

from __future__ import annotations

from typing import NoReturn

from edge_runtime.interrupt import run_command


def main() -> NoReturn:
    """Run the command line."""
    # `run` has closed its model when it is done: taking apart what was imported would last a fifth as long again.
    run_command("edge-runtime", "edge_runtime.cli.main", quick={"run"})
