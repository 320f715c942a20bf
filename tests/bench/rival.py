"""One other quantiser with its defaults, alone in a fresh process: python rival.py TOOL MODEL CALIBRATION OUT.

Imports nothing of this repository, so that it also runs in the tool's own environment. Prints one JSON document:
seconds, peak memory, version. CALIBRATION is a folder of `.npz` files, one per sample, arrays by the model's input
names.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def samples(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            yield {name: archive[name] for name in archive.files}


def quantize_static(model: Path, calibration: Path, out: Path) -> str:
    """ONNX Runtime's `quantize_static` as its documentation calls it."""
    import onnxruntime
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.waiting = samples(calibration)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.waiting, None)

    quantization.quantize_static(str(model), str(out / "model.onnx"), Reader())
    return f"onnxruntime {onnxruntime.__version__}"


def nncf(model: Path, calibration: Path, out: Path) -> str:
    """NNCF's `quantize` on the OpenVINO model."""
    os.environ["NNCF_CI"] = "1"
    import nncf as tool
    import openvino

    float_model = openvino.Core().read_model(str(model))
    quantised = tool.quantize(float_model, tool.Dataset(list(samples(calibration))))
    openvino.save_model(quantised, str(out / "model.xml"))
    return f"nncf {tool.__version__}"


def olive(model: Path, calibration: Path, out: Path) -> str:
    """Olive's static quantisation pass for ONNX, with what it sets by itself."""
    # It reports to its vendor otherwise.
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    import olive
    import torch
    from olive.data.registry import Registry
    from olive.workflows import run

    class Set(torch.utils.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.all = list(samples(calibration))

        def __len__(self) -> int:
            return len(self.all)

        def __getitem__(self, position: int) -> tuple[dict[str, Any], int]:
            return self.all[position], 0

    Registry.register_dataset("bench_set")(lambda **_: Set())
    run({
        "input_model": {"type": "OnnxModel", "model_path": str(model)},
        "data_configs": [{"name": "calibration", "type": "DummyDataContainer",
                          "load_dataset_config": {"type": "bench_set"}}],
        "passes": {"quantise": {"type": "OnnxStaticQuantization", "data_config": "calibration"}},
        "output_dir": str(out / "olive"), "cache_dir": str(out / "cache"),
    })  # fmt: skip
    (found,) = (path for path in (out / "olive").rglob("*.onnx"))
    found.rename(out / "model.onnx")
    return f"olive {olive.__version__}"


TOOLS: dict[str, Callable[[Path, Path, Path], str]] = {
    "quantize_static": quantize_static, "nncf": nncf, "olive": olive,
}  # fmt: skip


def peak_bytes() -> int:
    """Largest resident size this process ever had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    tool, model, calibration, out = sys.argv[1], *map(Path, sys.argv[2:])
    began = time.monotonic()
    # The tools print on their own; this process's output is one document.
    with contextlib.redirect_stdout(sys.stderr):
        version = TOOLS[tool](model, calibration, out)
    print(json.dumps({"wall_s": time.monotonic() - began, "peak_bytes": peak_bytes(), "version": version}))


if __name__ == "__main__":
    main()
