"""One build of a release as its manifest says it: files, how the file's tensors map, what memory it needs; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from converters.planning.planner import Candidate
from converters.release.draft import Draft
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.golden import OWN_LAYER
from edge_runtime.contract.ids import LayerName
from edge_runtime.contract.release import (
    BatchSpec,
    EngineRequirement,
    FileEntry,
    ModelFormat,
    Quantisation,
    Resources,
    Scalar,
    TensorBinding,
    TensorMap,
    VariantManifest,
    reference_to,
)
from edge_runtime.contract.target import Target

ENGINE_OPTIONS: Final[Mapping[str, Mapping[str, Scalar]]] = {
    "onnxruntime": {},
    # Without the hint OpenVINO computes in bf16 wherever the CPU can, with another answer on every other machine.
    "openvino": {"INFERENCE_PRECISION_HINT": "f32"},
    "litert": {},
    "tensorrt": {},
}
_QUANTISED_OPTIONS: Final[Mapping[str, Mapping[str, Scalar]]] = {
    # On one thread OpenVINO 2026.4 merges small fully-connected layers in a row into one kernel, right in float and
    # wrong in int8: 6 dB from the file's own arithmetic on MLPerf Tiny's autoencoder. Nothing else is slower without.
    "openvino": {"SNIPPETS_MODE": "DISABLE"},
}
_LAYERS: Final[Mapping[tuple[str, str], str]] = {
    ("onnxruntime", "model"): "model.onnx",
    ("openvino", "model"): "model.xml",
    ("openvino", "weights"): "model.bin",
    ("litert", "model"): "model.tflite",
    ("tensorrt", "build_input"): "model.onnx",
}
_ENGINE_FLOOR_BYTES: Final = 16 * 1024**2
_GRAIN_BYTES: Final = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled candidate with its bytes."""

    candidate: Candidate
    manifest: VariantManifest
    files: Mapping[str, bytes]
    """By role."""
    own: bytes | None = None
    """`own.npz`."""

    def layers(self) -> dict[str, bytes]:
        """Files of the variant's manifest by layer title."""
        named: dict[str, bytes] = {entry.layer: self.files[entry.role] for entry in self.manifest.files}
        return named if self.own is None else {**named, OWN_LAYER: self.own}


def describe_variant(
    candidate: Candidate,
    draft: Draft,
    files: Mapping[str, bytes],
    *,
    absorbed: Mapping[str, TensorBinding],
    quantisation: Quantisation | None,
    onnx_versions: tuple[int, int] | None,
    produced: Mapping[str, TensorBinding] | None = None,
) -> VariantManifest:
    """The manifest of a compiled candidate, without resources and own reference.

    Args:
        candidate: what was planned.
        draft: canonical tensors and what they are called in the model.
        files: content by role.
        absorbed: bindings of inputs that the file takes in its own way, by canonical tensor.
        quantisation: how it was quantised; None for float.
        onnx_versions: opset and IR of an ONNX file.
        produced: bindings of outputs that the file gives in its own way, by canonical tensor.
    """
    inputs = {name: absorbed.get(name) or draft.binding(name) for name in draft.inputs}
    outputs = {name: (produced or {}).get(name) or draft.binding(name) for name in draft.outputs}
    entries = [
        FileEntry(
            role=role,
            layer=LayerName(_LAYERS[candidate.engine, role]),
            digest=digest_of(content),
            size=len(content),
        )
        for role, content in sorted(files.items())
    ]
    return VariantManifest(
        id=candidate.id,
        requires=[],
        target=Target(
            engine=candidate.engine, provider=["cpu"], arch=list(candidate.arch), precision=candidate.precision
        ),
        engine=EngineRequirement(
            version=candidate.requirement,
            format=ModelFormat(opset=onnx_versions[0], ir=onnx_versions[1], typing=candidate.method.typing)
            if onnx_versions
            else None,
            options=_options(candidate),
        ),
        files=entries,
        io=TensorMap(inputs=inputs, outputs=outputs),
        batch=BatchSpec(max=draft.batch.max, dynamic=draft.batch.min != draft.batch.max),
        quantisation=quantisation,
    )


def _options(candidate: Candidate) -> dict[str, Scalar]:
    quantised = _QUANTISED_OPTIONS.get(candidate.engine, {}) if candidate.method.is_quantised else {}
    return {**ENGINE_OPTIONS[candidate.engine], **quantised, **candidate.method.options}


def with_own(built: Built, own: bytes) -> Built:
    """The same build, with its own float emulation's answers as reference."""
    manifest = msgspec.structs.replace(built.manifest, golden_own=reference_to(LayerName(OWN_LAYER)))
    return Built(built.candidate, manifest, built.files, own)


def with_resources(built: Built, activation_bytes: int) -> Built:
    """The same build, with an estimate of the memory one instance needs.

    An estimate, because a measurement differs from run to run and the variant's digest must not.
    """
    files = sum(entry.size for entry in built.manifest.files)
    peak = 2 * (files + activation_bytes) + _ENGINE_FLOOR_BYTES
    return _needing(built, Resources(peak_bytes=peak, method="2 × (files + activations) + 16 MiB"))


def with_peak(built: Built, measured_peak: int | None) -> Built:
    """The same build, its memory raised in coarse steps where the estimate is below what was measured."""
    estimate = built.manifest.resources
    if measured_peak is None or (estimate is not None and measured_peak <= estimate.peak_bytes):
        return built
    peak = -(-measured_peak // _GRAIN_BYTES) * _GRAIN_BYTES
    return _needing(built, Resources(peak_bytes=peak, method="VmHWM minus import, rounded up to 16 MiB"))


def _needing(built: Built, resources: Resources) -> Built:
    manifest = msgspec.structs.replace(built.manifest, resources=resources)
    return Built(built.candidate, manifest, built.files, built.own)


def for_arch(built: Built, arch: tuple[str, ...]) -> Built:
    """The same build, offered to fewer architectures."""
    target = msgspec.structs.replace(built.manifest.target, arch=list(arch))
    return Built(built.candidate, msgspec.structs.replace(built.manifest, target=target), built.files, built.own)
