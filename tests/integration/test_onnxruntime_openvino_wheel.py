"""ONNX Runtime with its OpenVINO provider: Intel's wheel in an environment of its own, for it excludes ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import json
import sys
from pathlib import Path

import numpy as np

from edge_runtime.contract.codec import decode
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import BackendOptions, load_backend

backend = load_backend("onnxruntime")
content, built = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]) / "variant" / "machine"
question = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
answers = []
for text in sys.argv[3:]:
    manifest = decode(text.encode(), VariantManifest)
    opened = backend.open({"model": content}, manifest, BackendOptions(threads=1, built=built))
    (name,) = [info.name for info in opened.inputs]
    answers.append(next(iter(opened.run({name: question}).values())))
print(json.dumps({
    "providers": backend.probe().providers,
    "difference": float(np.abs(answers[0] - answers[1]).max()),
    "kept": [path.suffix for path in built.rglob("*") if path.is_file()],
}))
"""

pytestmark = [pytest.mark.lab, pytest.mark.needs_shared]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with Intel's wheel and what our inference needs; skips where it cannot be had."""
    folder = tmp_path_factory.mktemp("openvino")
    made = folder / "bin" / "python"
    install = [made, "-m", "pip", "install", "--quiet", "onnxruntime-openvino", "msgspec"]
    for command in ([sys.executable, "-m", "venv", folder], install):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the wheel cannot be had: {done.stderr[-300:]}")
    return made


def test_a_variant_runs_on_the_provider_with_its_options_and_keeps_what_was_compiled(
    python: Path, shared: Path, tmp_path: Path
) -> None:
    from edge_runtime.contract.codec import encode
    from tests.unit.inference.test_onnxruntime_providers import variant

    options = {"openvino.num_streams": 1, "openvino.precision": "FP32", "openvino.cache_enable": True}
    manifests = [encode(variant("openvino", **options)).decode(), encode(variant("cpu")).decode()]
    model = shared / "models" / "onnx" / "mobilenet_v1_0.25_224_fp32.onnx"

    done = subprocess.run(
        [python, "-c", PROGRAM, model, tmp_path, *manifests],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)

    assert told["providers"] == ["cpu", "openvino"]
    assert told["difference"] < 1e-5
    assert told["kept"] == [".blob"]
