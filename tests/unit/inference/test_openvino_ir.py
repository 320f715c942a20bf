"""OpenVINO's own format: two files that belong together, both handed over as checked bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import BackendOptions, load_backend
from tests.fakes.models import Build, four_pixel_classifier


@pytest.fixture
def ir(tmp_path: Path) -> dict[str, bytes]:
    ov.save_model(ov.Core().read_model(model=four_pixel_classifier()), tmp_path / "m.xml", compress_to_fp16=False)
    return {"model": (tmp_path / "m.xml").read_bytes(), "weights": (tmp_path / "m.bin").read_bytes()}


def test_topology_and_weights_make_a_model(ir: dict[str, bytes]) -> None:
    session = load_backend("openvino").open(ir, Build("v", engine="openvino").manifest(), BackendOptions(threads=1))

    answer = session.run({"x": np.array([0, 1, 0.5, 0.25], np.float32).reshape(1, 1, 2, 2)})

    assert answer["logits"].tolist() == [[0.0, 2.0, 1.0, 0.5]]


@pytest.mark.parametrize("weights", [None, b"", b"\0" * 8])
def test_topology_without_its_weights_is_one_clear_error(ir: dict[str, bytes], weights: bytes | None) -> None:
    files = {"model": ir["model"]} | ({} if weights is None else {"weights": weights})

    with pytest.raises(InferenceError, match=r"cannot open variant v: OpenVINO .* refuses it"):
        load_backend("openvino").open(files, Build("v", engine="openvino").manifest(), BackendOptions())
