"""Runs inside the toolchain `tflite-quant`, not here: float TFLite in, int8 TFLite out; one argument, the job's file.

That environment has nothing of edgefleet, so this file imports only what is there.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SIGNATURE = "serving_default"


def main(job_path: Path) -> None:
    """Read the job, quantise, write the result."""
    job = json.loads(job_path.read_text())
    # The library draws progress bars; this program's output is its result alone.
    with contextlib.redirect_stdout(sys.stderr):
        _quantise(job)


def _quantise(job: dict[str, Any]) -> None:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    model = Path(job["model"])
    signed = Path(job["out"]).with_suffix(".signed.tflite")
    signed.write_bytes(_as_written_today(model.read_bytes()))
    tool = quantizer.Quantizer(str(signed))
    if job["scheme"] == "dynamic":
        tool.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        result = tool.quantize()
    else:
        tool.load_quantization_recipe(recipe.static_wi8_ai8())
        if job["dense_per_tensor"]:
            # An Edge TPU takes one scale per fully-connected layer (tensorflow/tensorflow#73946).
            tool.add_static_config(
                regex=".*",
                operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
                activation_num_bits=8,
                weight_num_bits=8,
                weight_granularity=qtyping.QuantGranularity.TENSORWISE,
            )
        result = tool.quantize(_ranges(str(signed), job))
    Path(job["out"]).unlink(missing_ok=True)
    result.export_model(job["out"])
    signed.unlink()


def _ranges(model: str, job: dict[str, Any]) -> dict[str, Any]:
    """Least and greatest value of every tensor over all samples.

    The library's own default is a moving average, which clips: logits up to 18 ended at 12, and scores were ruined.
    """
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    interpreter = calibrator.CalibrationInterpreter(
        model,
        mode=calibrator.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
        qsv_update_func=qsv_utils.min_max_update,
    )
    runner = interpreter.get_signature_runner(_SIGNATURE)
    for sample in _Samples(job):
        runner(**sample)
    ranges: dict[str, Any] = interpreter.get_calibration_results()
    for feed in job["feeds"]:
        if feed["range"] is not None:
            found = ranges[feed["tensor"]]
            least, greatest = feed["range"]
            ranges[feed["tensor"]] = {"min": found["min"] * 0 + least, "max": found["max"] * 0 + greatest}
    return ranges


class _Samples:
    """One sample at a time, by the signature's names, in the file's axis order; read as often as asked."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._paths = sorted(Path(job["calibration"]).glob("*.npz"))
        self._feeds = job["feeds"]

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import numpy as np

        for path in self._paths:
            with np.load(path, allow_pickle=False) as archive:
                yield {
                    feed["input"]: np.ascontiguousarray(np.transpose(archive[feed["sample"]], feed["axes"]))
                    for feed in self._feeds
                }


def _as_written_today(content: bytes) -> bytes:
    """The same model with what old files lack: a name to call it by, and operators in the field that is read now."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
    signature.inputs = [_named(schema, f"input_{number}", index) for number, index in enumerate(graph.inputs)]
    signature.outputs = [_named(schema, f"output_{number}", index) for number, index in enumerate(graph.outputs)]
    model.signatureDefs = [signature]
    for code in model.operatorCodes:
        # Before 2020 there was only the other field; the library takes an operator that lacks this one for ADD.
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _named(schema: Any, name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(index)
    return entry


if __name__ == "__main__":
    main(Path(sys.argv[1]))
