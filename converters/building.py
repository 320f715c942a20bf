"""From the float model to the bytes of one candidate: passes, compiler, and the proof that absorbed steps are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.compilers.isolated import compile_isolated
from converters.compilers.job import Compiled, CompileJob
from converters.draft import Draft, canonical
from converters.passes.clamp_versions import clamp_versions
from converters.passes.prepend_normalise import Normalisation, free_name, prepend_normalise
from converters.planner import Candidate, Ceiling
from converters.preflight.onnx_file import MIN_QUANTISABLE_OPSET
from converters.recipe import LAYOUT, NORMALIZE, Recipe
from converters.variants import Built, describe_variant
from edge_runtime.contract.ids import parse_variant_id
from edge_runtime.contract.release import (
    FileEntry,
    Quantisation,
    ReleaseManifest,
    TensorBinding,
    TensorMap,
    VariantManifest,
)
from edge_runtime.contract.target import Target
from edge_runtime.inference.backend import BackendOptions, Tensors, load_backend
from edge_runtime.inference.predictor import Predictor, load_predictor
from edge_runtime.inference.preprocess import compile_preprocess

EMULATED = BackendOptions(threads=1, graph_optimisation="disabled")
"""Float arithmetic as the file says it, free of the CPU's integer kernels."""


FLOAT = BackendOptions(threads=1)
"""Real kernels; for a float model they differ from the plain arithmetic by rounding only (over 100 dB)."""


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
    """The float model with canonical inputs, versions clamped."""
    absorptions: Mapping[str, Absorption]
    """By canonical tensor."""
    ceiling: Ceiling
    folder: Path
    calibration: Path | None
    timeout_s: float


def open_source(draft: Draft, model: Any) -> Predictor:
    """The source model itself, without any of our passes: the reference for everything.

    Raises:
        InferenceError: ONNX Runtime cannot load it.
    """
    content = model.SerializeToString()
    release = draft.manifest
    tensors = TensorMap(
        inputs={name: _same(tensor, release.tensors[name].dtype) for name, tensor in draft.inputs.items()},
        outputs={name: _same(tensor, release.tensors[name].dtype) for name, tensor in draft.outputs.items()},
    )
    return load_predictor(release, _bare("source", tensors), {"model": content}, options=FLOAT)


def find_absorptions(recipe: Recipe, draft: Draft, model: Any, samples: Sequence[Tensors]) -> dict[str, Absorption]:
    """The normalisations that ONNX operators compute bit for bit as the runtime does; tried on real samples."""
    found: dict[str, Absorption] = {}
    for name, entry in recipe.inputs.items():
        if entry.kind != "image" or entry.normalize is None or entry.layout is None:
            continue
        absorption = Absorption(
            tensor=entry.tensor,
            input_name=free_name(model, name),
            normalisation=Normalisation(
                entry.normalize.scale, tuple(entry.normalize.mean), tuple(entry.normalize.std), entry.layout
            ),
            steps=(NORMALIZE, LAYOUT) if entry.layout == "NCHW" else (NORMALIZE,),
        )
        if _is_exact(draft.manifest, canonical(entry.tensor), absorption, samples):
            found[canonical(entry.tensor)] = absorption
    return found


def prepare_model(model: Any, ceiling: Ceiling) -> Any:
    """The float model in versions that can be quantised and that every target loads. Raises: BadModel."""
    return clamp_versions(model, min_opset=MIN_QUANTISABLE_OPSET, max_opset=ceiling.opset, max_ir=ceiling.ir)


def build_candidate(candidate: Candidate, workshop: Workshop) -> Built:
    """Compile one candidate. Raises: CompileFailed, BadModel."""
    if candidate.engine == "onnxruntime":
        return _build_onnx(candidate, workshop)
    return _build_openvino(candidate, workshop)


def open_built(release: ReleaseManifest, built: Built, options: BackendOptions) -> Predictor:
    """Load a candidate with the device's own code. Raises: InferenceError."""
    return load_predictor(release, built.manifest, dict(built.files), options=options)


def activation_bytes(model: Any) -> int:
    """Bytes of all intermediate tensors of one sample, as far as shapes are known."""
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


def _build_onnx(candidate: Candidate, workshop: Workshop) -> Built:
    model, quantisation = workshop.model, None
    if candidate.precision == "int8":
        compiled = compile_isolated(_job(candidate, workshop), timeout_s=workshop.timeout_s)
        quantised = onnx.load(compiled.files["model"])
        model, quantisation = prepare_model(quantised, workshop.ceiling), _quantisation(compiled, workshop)
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


def _build_openvino(candidate: Candidate, workshop: Workshop) -> Built:
    # OpenVINO's preprocessing takes one image; with more of them the runtime normalises.
    only = next(iter(workshop.absorptions.items())) if len(workshop.absorptions) == 1 else None
    job = _job(candidate, workshop)
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
    absorbed = {}
    if only is not None:
        # OpenVINO keeps the input's own name, and may divide by multiplying with the reciprocal.
        binding = only[1].binding(exact=False)
        absorbed = {only[0]: msgspec.structs.replace(binding, tensor=only[1].tensor)}
    quantisation = _quantisation(compiled, workshop) if candidate.precision == "int8" else None
    manifest = describe_variant(
        candidate, workshop.draft, files, absorbed=absorbed, quantisation=quantisation, onnx_versions=None
    )
    return Built(candidate, manifest, files)


def _job(candidate: Candidate, workshop: Workshop) -> CompileJob:
    model = workshop.folder / "float.onnx"
    if not model.exists():
        onnx.save(workshop.model, str(model))
    return CompileJob(
        engine=candidate.engine,
        precision=candidate.precision,
        model=str(model),
        out=str(workshop.folder / candidate.id),
        calibration=str(workshop.calibration) if workshop.calibration else None,
    )


def _quantisation(compiled: Compiled, workshop: Workshop) -> Quantisation:
    calibration = workshop.draft.manifest.calibration
    return Quantisation(
        tool=compiled.tool,
        granularity=compiled.granularity or "per_tensor",
        overflow_safe=compiled.overflow_safe,
        reduce_range=compiled.reduce_range,
        calibration=calibration.digest if calibration else None,
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
    manifest = _bare("alone", TensorMap(inputs={**others, tensor: binding}, outputs={}))
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


def _bare(name: str, tensors: TensorMap) -> VariantManifest:
    """A manifest for a model that never becomes a variant."""
    return VariantManifest(
        id=parse_variant_id(name),
        requires=[],
        target=Target(engine="onnxruntime", provider=["cpu"], precision="float32"),
        files=[_NO_FILE],
        io=tensors,
    )


_NO_FILE = msgspec.convert({"role": "model", "layer": "model", "digest": "", "size": 0}, FileEntry)


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
