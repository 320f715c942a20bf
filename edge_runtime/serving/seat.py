"""Where a loaded variant answers from."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.inference.requests.admission import Admission
from edge_runtime.serving.instance import Instance


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """An instance with the line in front of it; what replaces it gets a seat of its own."""

    instance: Instance
    admission: Admission
    is_stand_in: bool = False
    """Whether another variant is meant, which does not answer now."""

    def vacate(self, patience_s: float) -> int:
        """Turn away whoever waits (they look for what came instead), let calls in flight end, free the memory.

        A call that does not come back in time is not waited for: should it ever end, it frees the memory.

        Returns:
            How many calls did not come back.
        """
        self.admission.close()
        if self.admission.wait_idle(patience_s):
            self.instance.close()
            return 0
        # Before it may free the memory: afterwards none is left.
        left = self.admission.running
        self.admission.on_idle(self.instance.close)
        return left
