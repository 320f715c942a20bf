"""A host with one model in a worker, as a process of its own that a test can kill; prints the worker's process id."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from edge_runtime.serving.host import ModelHost
from tests.fakes.faulty_backend import FAULT_FILE
from tests.integration.test_worker_process import FACTS, REGISTRY, worker_of
from tests.unit.serving.releases import about


def main(release: Path, state: str) -> None:
    host = ModelHost(facts=FACTS, registry=REGISTRY)
    served = host.load(release, isolation="process")
    worker = worker_of(served)
    Path(os.environ[FAULT_FILE]).write_text(state)
    if state == "hang":
        threading.Thread(target=served.call, args=[about(0)], daemon=True).start()
        while not worker._asking.locked():
            pass
    print(worker._child.pid, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
