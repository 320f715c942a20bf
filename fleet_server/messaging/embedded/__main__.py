"""`python -m fleet_server.messaging.embedded SETTINGS.json`: the embedded broker's own process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from edge_runtime.contract.errors import EdgeError
from fleet_server.messaging.embedded.broker import event_loop, serve
from fleet_server.messaging.embedded.settings_file import read_settings


def main(settings_file: Path) -> int:
    """Serve until told to stop; the exit code of the process."""
    try:
        settings, denylist_file = read_settings(settings_file)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(serve(settings, denylist_file))
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
