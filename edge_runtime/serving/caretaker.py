"""Work that nobody waits for: freeing models, trying again later."""

from __future__ import annotations

import threading
from collections.abc import Callable

Job = Callable[[], object]


class Caretaker:
    """Runs each job in a thread of its own, so that one which hangs in an engine holds up no other."""

    def __init__(self) -> None:
        self._is_closing = threading.Event()

    def soon(self, job: Job) -> None:
        """Run a job now, whether or not the host is closing."""
        threading.Thread(target=job, name="serving-job", daemon=True).start()

    def after(self, delay_s: float, job: Job) -> None:
        """Run a job later; never once `close` was called."""

        def wait() -> None:
            if not self._is_closing.wait(delay_s):
                job()

        threading.Thread(target=wait, name="serving-retry", daemon=True).start()

    def close(self) -> None:
        """Forget the jobs whose time has not come."""
        self._is_closing.set()
