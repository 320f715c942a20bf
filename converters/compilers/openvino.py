"""Makes OpenVINO IR: float, with its weights whole or stored as fp16, or int8 by NNCF with its overflow fix.

Must run in a fresh process: NNCF names nodes by a process-wide counter, and a release must build to the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from converters.compilers.job import Compiled, CompileJob
from converters.errors import CompileFailed
from edge_runtime.inference import vendor_telemetry
from edge_runtime.inference.libraries.openvino_errors import complaint_of


def compile_job(job: CompileJob) -> Compiled:
    """Write `job.out`/model.xml and model.bin.

    Raises:
        CompileFailed: OpenVINO or NNCF refuses the model.
    """
    logging.disable(logging.WARNING)
    result = Path(job.out) / "model.xml"
    try:
        # Both libraries print; this process's output is one JSON document.
        with contextlib.redirect_stdout(io.StringIO()):
            tool = _compile(job, result)
    except Exception as error:
        raise CompileFailed("compile with OpenVINO", complaint_of(error)[:300]) from error
    _strip_machine(result)
    return Compiled(files={"model": str(result), "weights": str(result.with_suffix(".bin"))}, tool=tool)


def _compile(job: CompileJob, result: Path) -> str:
    vendor_telemetry.switch_off()
    import openvino

    # Not convert_model: it reports every conversion to the vendor over the network.
    model = openvino.Core().read_model(job.model)
    tool = f"openvino {openvino.__version__.partition('-')[0]}"
    if job.method.is_made_here:
        model, tool = _quantised(model, job), f"{_nncf_version()}, {tool}"
    if job.image_input is not None:
        model = _with_preprocessing(model, job)
    openvino.save_model(model, str(result), compress_to_fp16=job.method.weights == "float16")
    return tool


def _quantised(model: Any, job: CompileJob) -> Any:
    # NNCF reports to its vendor unless it believes to run in its own continuous integration.
    os.environ["NNCF_CI"] = "1"
    import nncf

    if job.calibration is None:
        raise CompileFailed("quantise with NNCF", "there is no calibration data")
    samples = sorted(Path(job.calibration).glob("*.npz"))
    # Never NNCF's own default: with it all but the first layer may saturate on CPUs without VNNI.
    parameters = nncf.AdvancedQuantizationParameters(overflow_fix=job.method.overflow_fix or "enable")
    return nncf.quantize(
        _folded(model),
        nncf.Dataset(samples, _load),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.PERFORMANCE if job.method.symmetric else nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        advanced_parameters=parameters,
    )


def _folded(model: Any) -> Any:
    """The model without constants that are computed: NNCF fails where a reshape stands between weights and layer."""
    from openvino.passes import ConstantFolding, Manager

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    return model


def _load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _nncf_version() -> str:
    import nncf

    return f"nncf {nncf.__version__}"


def _with_preprocessing(model: Any, job: CompileJob) -> Any:
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    entry = steps.input(job.image_input)
    entry.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    entry.model().set_layout(Layout(job.image_layout))
    chain = entry.preprocess().convert_element_type(Type.f32)
    if job.scale != 1.0:
        chain = chain.scale(1.0 / job.scale)
    if any(job.mean):
        chain = chain.mean(job.mean if len(job.mean) > 1 else job.mean[0])
    if any(value != 1.0 for value in job.std):
        chain = chain.scale(job.std if len(job.std) > 1 else job.std[0])
    return steps.build()


def _strip_machine(path: Path) -> None:
    """Take off what the tools say about the machine and the moment: paths, options, versions."""
    tree = ET.parse(path)  # noqa: S314 (our own compiler's output)
    root = tree.getroot()
    for parent in (root, *root.iter("layer")):
        for child in [child for child in parent if child.tag == "rt_info" and parent is root]:
            parent.remove(child)
    root.set("name", "model")
    tree.write(path, encoding="utf-8", xml_declaration=True)
