"""From the float model to the bytes of one candidate: passes and compiler; one builder for each engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import onnx

from converters.building.tflite_binding import bind_tflite, full_ranges
from converters.building.workshop import Workshop, job_of, prepare_model, quantisation_of, ranges_job_of
from converters.compilers.isolated import compile_isolated
from converters.compilers.job import CompileJob
from converters.errors import BadModel, CompileFailed
from converters.model.opset import standard_opset
from converters.passes.plain_ports import plain_names, with_plain_ports
from converters.passes.prepend_normalise import prepend_normalise
from converters.planning.methods import as_it_came, variant_name
from converters.planning.planner import Candidate
from converters.planning.recipe import EngineName
from converters.release.device_build import as_device_build
from converters.release.variants import Built, describe_variant
from edge_runtime.contract.ids import parse_variant_id
from edge_runtime.contract.release import BatchSpec

_RANGES_FILES: Final = {"prepared": "prepared.onnx", "ranges": "ranges.json"}
_TAKING: Final = threading.Lock()
"""Candidates may be built side by side; the ranges they share are taken once."""

Builder = Callable[[Candidate, Workshop], Built]
"""Compiles one candidate. Raises: CompileFailed, BadModel."""


def _build_onnx(candidate: Candidate, workshop: Workshop) -> Built:
    model, quantisation = workshop.model, None
    if candidate.precision != "float32":
        compiled = compile_isolated(_with_ranges(candidate, workshop), timeout_s=workshop.timeout_s)
        model = prepare_model(onnx.load(compiled.files["model"]), workshop.ceiling)
        quantisation = quantisation_of(candidate.method, compiled.tool, workshop)
    for absorption in workshop.absorptions.values():
        model = prepend_normalise(model, absorption.tensor, absorption.normalisation, input_name=absorption.input_name)
    model = _anonymous(model)
    content = model.SerializeToString(deterministic=True)
    versions = max(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), model.ir_version
    files = {"model": content}
    manifest = describe_variant(
        candidate,
        workshop.draft,
        files,
        absorbed={name: absorption.binding(exact=True) for name, absorption in workshop.absorptions.items()},
        quantisation=quantisation,
        onnx_versions=(int(versions[0]), int(versions[1])),
    )
    return Built(candidate, manifest, files)


def _with_ranges(candidate: Candidate, workshop: Workshop) -> CompileJob:
    """The job of a candidate, with the ranges that it shares with others; taken when first needed."""
    job = job_of(candidate, workshop)
    if candidate.method.calibration is None:
        return job
    taken = ranges_job_of(candidate.method.calibration, workshop)
    files = {name: Path(taken.out) / file for name, file in _RANGES_FILES.items()}
    with _TAKING:
        if not all(path.exists() for path in files.values()):
            compile_isolated(taken, timeout_s=workshop.timeout_s)
    return msgspec.structs.replace(job, prepared=str(files["prepared"]), ranges=str(files["ranges"]))


def _build_openvino(candidate: Candidate, workshop: Workshop) -> Built:
    # OpenVINO's preprocessing takes one image; with more of them the runtime normalises.
    only = next(iter(workshop.absorptions.items())) if len(workshop.absorptions) == 1 else None
    job = job_of(candidate, workshop)
    if only is not None:
        normalisation = only[1].normalisation
        job = msgspec.structs.replace(
            job,
            image_input=only[1].tensor,
            image_layout=normalisation.layout,
            scale=normalisation.scale,
            mean=list(normalisation.mean),
            std=list(normalisation.std),
        )
    compiled = compile_isolated(job, timeout_s=workshop.timeout_s)
    files = {role: Path(path).read_bytes() for role, path in compiled.files.items()}
    absorbed = dict(workshop.raw_inputs)
    if only is not None:
        # OpenVINO keeps the input's own name, and may divide by multiplying with the reciprocal.
        binding = only[1].binding(exact=False)
        absorbed = {only[0]: msgspec.structs.replace(binding, tensor=only[1].tensor)}
    quantisation = quantisation_of(candidate.method, compiled.tool, workshop)
    manifest = describe_variant(
        candidate, workshop.draft, files, absorbed=absorbed, quantisation=quantisation, onnx_versions=None
    )
    return Built(candidate, manifest, files)


def _build_tensorrt(candidate: Candidate, workshop: Workshop) -> Built:
    """The file a Jetson builds its engine from; inputs stay float32, so that every TensorRT parses it."""
    compiled = compile_isolated(_with_ranges(candidate, workshop), timeout_s=workshop.timeout_s)
    model = _anonymous(onnx.load(compiled.files["model"]))
    files = {"build_input": model.SerializeToString(deterministic=True)}
    manifest = describe_variant(
        candidate,
        workshop.draft,
        files,
        absorbed={},
        quantisation=quantisation_of(candidate.method, compiled.tool, workshop),
        onnx_versions=(standard_opset(model), int(model.ir_version)),
    )
    plain = parse_variant_id(variant_name(as_it_came("onnxruntime", is_quantised=False)))
    return Built(candidate, as_device_build(manifest, candidate.method, workshop.draft, plain), files)


def _build_litert(candidate: Candidate, workshop: Workshop) -> Built:
    is_tflite = isinstance(workshop.model, bytes)
    if is_tflite and not candidate.method.is_made_here:
        return _as_it_came(candidate, workshop)
    draft, names = workshop.draft, {} if is_tflite else plain_names(workshop.model)
    job = job_of(candidate, workshop)
    if not is_tflite:
        job = _with_plain_names(job, workshop)
    called = {original: plain for plain, original in names.items()}
    ranges = {draft.inputs[name]: ends for name, ends in full_ranges(draft).items()}
    job = msgspec.structs.replace(job, full_ranges={called.get(name, name): ends for name, ends in ranges.items()})
    compiled = compile_isolated(job, timeout_s=workshop.timeout_s)
    files = {"model": Path(compiled.files["model"]).read_bytes()}
    bound = bind_tflite(draft, files["model"], names)
    manifest = describe_variant(
        candidate,
        draft,
        files,
        absorbed=bound.inputs,
        produced=bound.outputs,
        quantisation=quantisation_of(candidate.method, compiled.tool, workshop),
        onnx_versions=None,
    )
    # Sizes are fixed in the file, or nothing but a CPU could run it.
    return Built(candidate, msgspec.structs.replace(manifest, batch=BatchSpec(max=1, dynamic=False)), files)


def _with_plain_names(job: CompileJob, workshop: Workshop) -> CompileJob:
    """The job on a copy of the model whose names and sizes leave the converter nothing to guess."""
    draft, names = workshop.draft, plain_names(workshop.model)
    pictures = {tensor for name, tensor in draft.inputs.items() if draft.tensor(name).layout == "NCHW"}
    model = workshop.folder / "plain.onnx"
    if not model.exists():
        try:
            onnx.save(with_plain_ports(workshop.model, draft.fed_sizes()), str(model))
        except BadModel as error:
            raise CompileFailed(error.cannot, error.because, error.remedy) from error
    return msgspec.structs.replace(
        job,
        model=str(model),
        channels_last=[plain for plain, original in names.items() if original in pictures],
        sample_names=names,
    )


def _as_it_came(candidate: Candidate, workshop: Workshop) -> Built:
    files = {"model": workshop.model}
    quantisation = None
    if candidate.method.scheme == "source":
        quantisation = quantisation_of(candidate.method, "the source model", workshop)
    manifest = describe_variant(
        candidate, workshop.draft, files, absorbed=workshop.raw_inputs, quantisation=quantisation, onnx_versions=None
    )
    return Built(candidate, manifest, files)


def _anonymous(model: Any) -> Any:
    """Without doc strings and metadata, where exporters leave source paths of the machine they ran on."""
    clean = type(model)()
    clean.CopyFrom(model)
    clean.doc_string = ""
    del clean.metadata_props[:]
    clean.graph.doc_string = ""
    for node in clean.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return clean


BUILDERS: Final[Mapping[EngineName, Builder]] = {
    "onnxruntime": _build_onnx,
    "openvino": _build_openvino,
    "litert": _build_litert,
    "tensorrt": _build_tensorrt,
}
"""One row for each engine a release can carry."""


def build_candidate(candidate: Candidate, workshop: Workshop) -> Built:
    """Compile one candidate. Raises: CompileFailed, BadModel."""
    return BUILDERS[candidate.engine](candidate, workshop)
