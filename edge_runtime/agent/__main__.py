"""`python -m edge_runtime.agent --config FILE [--source FOLDER]`: the device, without any command-line library."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_runtime.contract.errors import EdgeError

# structlog and httpx load these when they are installed, for colours and a command line that no agent has.
for _unwanted in ("click", "rich"):
    sys.modules.setdefault(_unwanted, None)  # type: ignore[arg-type]


def main() -> int:
    """Run the agent until a signal ends it; 1 with one sentence when it cannot start."""
    parser = argparse.ArgumentParser(prog="edge-runtime agent", description="Run this device's agent.")
    parser.add_argument("--config", type=Path, required=True, help="the device's configuration file (TOML)")
    parser.add_argument("--source", type=Path, help="folder of images to classify with the live model, over and over")
    arguments = parser.parse_args()
    from edge_runtime.bootstrap import run_agent
    from edge_runtime.settings import read_settings

    try:
        run_agent(read_settings(arguments.config), arguments.source)
    except EdgeError as error:
        sys.stderr.write(f"edge-runtime: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
