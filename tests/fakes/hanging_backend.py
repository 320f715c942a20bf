"""A backend one of whose runs hangs until it is told to go on."""

from __future__ import annotations

import threading
from typing import Any

from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import BackendOptions, Files, Session, Tensors
from tests.fakes.faulty_backend import Faults, FaultyBackend


class Hanging(FaultyBackend):
    """Hangs in the next run while `go` is not set."""

    def __init__(self) -> None:
        super().__init__(Faults(), "onnxruntime")
        self.go, self.is_hanging = threading.Event(), threading.Event()
        self.go.set()

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        session = super().open(files, manifest, options)
        run = session.run

        def hung(inputs: Tensors) -> dict[str, Any]:
            if not self.go.is_set() and not self.is_hanging.is_set():
                self.is_hanging.set()
                self.go.wait(60)
            return run(inputs)

        session.run = hung  # type: ignore[method-assign]
        return session
