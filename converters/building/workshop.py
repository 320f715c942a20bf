"""What every candidate of a build is made from, and the model opened for asking: whatever engine it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.compilers.job import CompileJob, RangesJob
from converters.errors import CompileFailed
from converters.importers.tflite import activation_bytes as tflite_activation_bytes
from converters.passes.clamp_versions import clamp_versions
from converters.passes.prepend_normalise import Normalisation, free_name, prepend_normalise
from converters.planning.methods import Method, RangeMethod
from converters.planning.planner import Candidate, Ceiling
from converters.planning.recipe import EngineName
from converters.preflight.versions import MIN_QUANTISABLE_OPSET
from converters.release.draft import Draft
from converters.release.variants import Built
from edge_runtime.contract.ids import parse_variant_id
from edge_runtime.contract.image_steps import Cast, Layout, Normalize
from edge_runtime.contract.release import (
    EngineRequirement,
    FileEntry,
    Quantisation,
    ReleaseManifest,
    TensorBinding,
    TensorMap,
    VariantManifest,
)
from edge_runtime.contract.steps import PreStep, parse_preprocess
from edge_runtime.contract.target import Target
from edge_runtime.inference.backend import BackendOptions, Tensors, load_backend
from edge_runtime.inference.predictor import Predictor, load_predictor
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess

EMULATED = BackendOptions(threads=1, graph_optimisation="disabled")
"""Float arithmetic as the file says it, free of the CPU's integer kernels."""


FLOAT = BackendOptions(threads=1)
"""Real kernels; for a float model they differ from the plain arithmetic by rounding only (over 100 dB)."""


_NOT_BYTES = (Normalize, Cast, Layout)
"""Steps after which a picture is no longer as it came."""


@dataclass(frozen=True, slots=True)
class Absorption:
    """What a graph does itself for one image input."""

    tensor: str
    """Name of the model's input."""
    input_name: str
    """Name of the uint8 NHWC input that replaces it."""
    normalisation: Normalisation
    steps: tuple[str, ...]

    def binding(self, *, exact: bool) -> TensorBinding:
        """How the variant's manifest says it."""
        return TensorBinding(
            tensor=self.input_name, dtype="uint8", layout="NHWC", absorbs=list(self.steps), exact=exact
        )


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every candidate is built from."""

    draft: Draft
    model: Any
    """The float model with canonical inputs, versions clamped; the bytes of a TFLite source."""
    absorptions: Mapping[str, Absorption]
    """By canonical tensor."""
    raw_inputs: Mapping[str, TensorBinding]
    """Inputs of a quantised source that take the picture itself, by canonical tensor."""
    ceiling: Ceiling
    folder: Path
    calibration: Path | None
    timeout_s: float


def open_source(draft: Draft, model: Any) -> Predictor:
    """The source model itself, without any of our passes: the reference for everything.

    Raises:
        InferenceError: the engine that runs its format cannot load it.
    """
    content = model if isinstance(model, bytes) else model.SerializeToString()
    engine: EngineName = "litert" if isinstance(model, bytes) else "onnxruntime"
    tensors = TensorMap(
        inputs={name: draft.binding(name) for name in draft.inputs},
        outputs={name: draft.binding(name) for name in draft.outputs},
    )
    variant = bare_variant("source", tensors, engine)
    return load_predictor(draft.manifest, variant, {"model": content}, layers=draft.priors, options=FLOAT)


def find_absorptions(draft: Draft, model: Any, samples: Sequence[Tensors]) -> dict[str, Absorption]:
    """The normalisations that ONNX operators compute bit for bit as the runtime does; tried on real samples."""
    found: dict[str, Absorption] = {}
    kinds = {spec.name: spec.kind for spec in draft.manifest.signature.inputs}
    for name, raw in draft.manifest.preprocess.items():
        steps, tensor = parse_preprocess(raw), draft.inputs[name]
        public = steps[0].from_ if steps else None
        if public is None or kinds[public] != "image" or draft.manifest.tensors[name].dtype != "float32":
            continue
        absorption = ending_of(steps, tensor, free_name(model, public))
        if absorption is not None and _is_exact(draft.manifest, name, absorption, samples):
            found[name] = absorption
    return found


def ending_of(steps: tuple[PreStep, ...], tensor: str, input_name: str) -> Absorption | None:
    """What of a picture's last steps a graph can do: the change to float, a normalisation, the order of the axes.

    None when the picture is no longer of bytes before them.
    """
    layout = steps[-1] if isinstance(steps[-1], Layout) and steps[-1].to == "NCHW" else None
    before = steps[:-1] if layout else steps
    scaling = before[-1] if before and isinstance(before[-1], Normalize) else None
    if any(isinstance(step, _NOT_BYTES) for step in before[: -1 if scaling else None]):
        return None
    normalisation = Normalisation(
        scaling.scale if scaling else 1.0,
        tuple(scaling.mean) if scaling else (0.0,),
        tuple(scaling.std) if scaling else (1.0,),
        "NCHW" if layout else "NHWC",
    )
    return Absorption(tensor, input_name, normalisation, tuple(step.id for step in (scaling, layout) if step))


def prepare_model(model: Any, ceiling: Ceiling) -> Any:
    """The float model in versions that can be quantised and that every target loads. Raises: BadModel."""
    return clamp_versions(model, min_opset=MIN_QUANTISABLE_OPSET, max_opset=ceiling.opset, max_ir=ceiling.ir)


def open_built(draft: Draft, built: Built, options: BackendOptions) -> Predictor:
    """Load a candidate with the device's own code; what only a device can build, in float emulation.

    Raises:
        InferenceError: the engine cannot load it.
    """
    if built.manifest.build is None:
        files = dict(built.files)
        return load_predictor(draft.manifest, built.manifest, files, layers=draft.priors, options=options)
    cpu = Target(engine="onnxruntime", provider=["cpu"], precision=built.manifest.target.precision)
    plain = msgspec.structs.replace(built.manifest, target=cpu, engine=EngineRequirement(), build=None)
    files = {"model": built.files["build_input"]}
    return load_predictor(draft.manifest, plain, files, layers=draft.priors, options=EMULATED)


def activation_bytes(model: Any) -> int:
    """Bytes of all intermediate tensors of one sample, as far as shapes are known."""
    if isinstance(model, bytes):
        return tflite_activation_bytes(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 (an estimate only; inference fails on some exporters' graphs)
        return 0
    total = 0
    for entry in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        kind = entry.type.tensor_type
        if kind.elem_type:
            sizes = [max(size.dim_value, 1) for size in kind.shape.dim]
            total += int(np.prod(sizes, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    return total


def job_of(candidate: Candidate, workshop: Workshop) -> CompileJob:
    """The compilation of one candidate, as data."""
    return CompileJob(
        method=candidate.method,
        model=str(float_model(workshop)),
        out=str(workshop.folder / candidate.id),
        calibration=str(workshop.calibration) if workshop.calibration else None,
    )


def ranges_job_of(ranges: RangeMethod, workshop: Workshop) -> RangesJob:
    """The calibration that all candidates with this way of taking ranges share. Raises: CompileFailed."""
    if workshop.calibration is None:
        raise CompileFailed(f"take {ranges} ranges", "there is no calibration data", "write calibration.folder")
    return RangesJob(
        model=str(float_model(workshop)),
        calibration=str(workshop.calibration),
        ranges=ranges,
        out=str(workshop.folder / f"ranges-{ranges}"),
    )


def float_model(workshop: Workshop) -> Path:
    """The prepared float model as a file; a TFLite source as it came."""
    is_tflite = isinstance(workshop.model, bytes)
    model = workshop.folder / ("source.tflite" if is_tflite else "float.onnx")
    if not model.exists():
        model.write_bytes(workshop.model) if is_tflite else onnx.save(workshop.model, str(model))
    return model


def quantisation_of(method: Method, tool: str, workshop: Workshop) -> Quantisation | None:
    """What a variant's manifest says about its quantisation; None when there is none."""
    if not method.is_quantised:
        return None
    calibration = workshop.draft.manifest.calibration if method.scheme == "static" else None
    return Quantisation(
        tool=tool,
        granularity="per_channel" if method.per_channel else "per_tensor",
        overflow_safe=method.is_overflow_safe,
        reduce_range=method.reduce_range or method.overflow_fix == "enable",
        calibration=calibration.digest if calibration else None,
        scheme=method.scheme,
        weights=method.weights,
        activations=method.activations,
        symmetric=method.symmetric,
        ranges=method.calibration,
        excluded=list(method.excluded),
    )


def _is_exact(release: ReleaseManifest, tensor: str, absorption: Absorption, samples: Sequence[Tensors]) -> bool:
    """Run nothing but the absorbed steps in the engine, and compare with the runtime's own numbers."""
    spec = release.tensors[tensor]
    shape = [size if isinstance(size, int) else None for size in spec.shape]
    entry = helper.make_tensor_value_info(absorption.tensor, TensorProto.FLOAT, shape)
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)
    copy = helper.make_node("Identity", [absorption.tensor], ["answer"])
    alone = helper.make_model(
        helper.make_graph([copy], "alone", [entry], [answer]),
        opset_imports=[helper.make_opsetid("", MIN_QUANTISABLE_OPSET)],
        ir_version=7,
    )
    alone = prepend_normalise(alone, absorption.tensor, absorption.normalisation, input_name=absorption.input_name)
    binding = absorption.binding(exact=True)
    others = {name: _same(name, release.tensors[name].dtype) for name in release.preprocess if name != tensor}
    manifest = bare_variant("alone", TensorMap(inputs={**others, tensor: binding}, outputs={}))
    reference, feeding = compile_preprocess(release), compile_preprocess(release, manifest)
    content = alone.SerializeToString()
    session = load_backend("onnxruntime").open({"model": content}, manifest, BackendOptions(threads=1))
    try:
        return all(
            np.array_equal(
                session.run({absorption.input_name: feeding.after_decode(sample)[tensor]})["answer"],
                reference.after_decode(sample)[tensor],
            )
            for sample in samples
        )
    finally:
        session.close()


def _same(tensor: str, dtype: str) -> TensorBinding:
    return TensorBinding(tensor=tensor, dtype=dtype)


def bare_variant(name: str, tensors: TensorMap, engine: EngineName = "onnxruntime") -> VariantManifest:
    """A manifest for a model that never becomes a variant."""
    return VariantManifest(
        id=parse_variant_id(name),
        requires=[],
        target=Target(engine=engine, provider=["cpu"], precision="float32"),
        files=[_NO_FILE],
        io=tensors,
    )


_NO_FILE = msgspec.convert({"role": "model", "layer": "model", "digest": "", "size": 0}, FileEntry)
