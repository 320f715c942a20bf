"""Small ONNX models whose answers can be worked out by hand, and releases around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.ids import LayerName, ModelName, VariantId, Version
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, LayoutWriter, variant_annotations
from edge_runtime.contract.release import (
    BatchSpec,
    EngineRequirement,
    FileEntry,
    GoldenCheck,
    GoldenSpec,
    Licence,
    ReleaseManifest,
    Resources,
    Source,
    TensorBinding,
    TensorMap,
    VariantManifest,
)
from edge_runtime.contract.steps import RawStep
from edge_runtime.contract.target import Target
from edge_runtime.contract.tensor import AxisRange, InputSpec, OutputSpec, Signature, TensorSpec
from edge_runtime.inference.backend import BackendOptions, Files, Session, TensorInfo, Tensors

WEIGHTS = np.eye(4, dtype=np.float32) * 2.0
"""logits = 2 · pixels: the brightest of the four pixels wins."""


def four_pixel_classifier(weights: npt.NDArray[np.float32] = WEIGHTS) -> bytes:
    """`x` float32 [N, 1, 2, 2] → `logits` float32 [N, 4]."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weights, "weights")],
    )


def averaging_classifier() -> bytes:
    """The same about one picture, but several are answered by one row, though `N` says that each has its own."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["logits"], axes=[0], keepdims=1),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["M", 4])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )


def hanging_classifier(above: float) -> bytes:
    """The same, but the engine never comes back from pictures with a pixel above that value."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Mul", ["sum", "sum"], ["square"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("square", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "above"], ["hangs"]),
        helper.make_node("Cast", ["hangs"], ["times"], to=TensorProto.INT64),
        helper.make_node("Mul", ["times", "for_ever"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "nothing"], ["never"], body=body),
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["answers"]),
        helper.make_node("Add", ["answers", "never"], ["logits"]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [
            numpy_helper.from_array(WEIGHTS, "weights"),
            numpy_helper.from_array(np.float32(above), "above"),
            numpy_helper.from_array(np.float32(0), "nothing"),
            numpy_helper.from_array(np.int64(2**62), "for_ever"),
        ],
    )


def uint8_four_pixel_classifier() -> bytes:
    """`image` uint8 [N, 2, 2, 1] → `logits` float32 [N, 4]; divides by 255 and permutes inside the graph."""
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "std"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 2, 2, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(np.float32(255.0), "std")],
    )


def _model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any]) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


PREPROCESS: list[RawStep] = [
    {"id": "decode", "op": "decode", "from": "image", "color": "gray", "exif": "apply", "reduced": "never"},
    {"id": "norm", "op": "normalize", "scale": 1.0, "mean": [0.0], "std": [255.0]},
    {"id": "layout", "op": "layout", "to": "NCHW"},
]
TOP_K: RawStep = {"op": "top_k", "from": "logits", "activation": "softmax", "k": 2, "min_score": 0.05}
BATCH_MAX = 200_000
"""Pictures that one call may hold."""
LABELS = b"zero\none\ntwo\nthree\n"


@dataclass(frozen=True)
class Build:
    """One variant to write into a release."""

    id: str
    engine: str = "onnxruntime"
    content: bytes = field(default_factory=four_pixel_classifier)
    absorbs: tuple[str, ...] = ()
    arch: tuple[str, ...] = ()
    options: Mapping[str, str | int] = field(default_factory=dict)
    own: bytes | None = None
    needs_bytes: int | None = None
    """Memory it claims to need."""
    providers: tuple[str, ...] = ("cpu",)
    accelerator: str | None = None
    fallback: str | None = None
    samples: int = 1
    """Taken at once; above 1 as many as a caller likes up to it."""

    def manifest(self) -> VariantManifest:
        """Its variant manifest."""
        fed = (
            TensorBinding(tensor="image", dtype="uint8", layout="NHWC", absorbs=list(self.absorbs))
            if self.absorbs
            else TensorBinding(tensor="x", dtype="float32")
        )
        return VariantManifest(
            id=VariantId(self.id),
            requires=[],
            engine=EngineRequirement(options=dict(self.options)),
            target=Target(
                engine=self.engine,
                precision="float32",
                provider=list(self.providers),
                arch=list(self.arch),
                accelerator=self.accelerator,
            ),
            files=[
                FileEntry(
                    role="model",
                    layer=LayerName("model.onnx"),
                    digest=digest_of(self.content),
                    size=len(self.content),
                )
            ],
            io=TensorMap(inputs={"x": fed}, outputs={"logits": TensorBinding(tensor="logits", dtype="float32")}),
            batch=BatchSpec(max=self.samples, dynamic=self.samples > 1),
            fallback=None if self.fallback is None else VariantId(self.fallback),
            golden_own="layer:own.npz" if self.own is not None else None,
            resources=None if self.needs_bytes is None else Resources(peak_bytes=self.needs_bytes, method="claimed"),
        )


def release_manifest(
    variants: Sequence[str], golden: GoldenSpec | None = None, version: str = "1.0.0"
) -> ReleaseManifest:
    """A grey 2×2 classifier's manifest."""
    return ReleaseManifest(
        kind="model",
        name=ModelName("pixels"),
        version=Version(version),
        task="image_classification",
        requires=[],
        licence=Licence(spdx="Apache-2.0"),
        source=Source(digest=digest_of(b""), format="onnx"),
        signature=Signature(
            inputs=[
                InputSpec(
                    name="image",
                    kind="image",
                    dtype="uint8",
                    shape=["N", 2, 2, 1],
                    layout="NHWC",
                    color="gray",
                    accept=["png", "tensor"],
                )
            ],
            outputs=[OutputSpec(name="classes", kind="classes", labels="layer:labels.txt", raw="logits")],
            axes={"N": AxisRange(min=1, max=BATCH_MAX)},
        ),
        tensors={
            "x": TensorSpec(dtype="float32", shape=["N", 1, 2, 2], layout="NCHW"),
            "logits": TensorSpec(dtype="float32", shape=["N", 4]),
        },
        preprocess={"x": PREPROCESS},
        postprocess={"classes": [TOP_K]},
        variants=[VariantId(variant) for variant in variants],
        golden=golden,
    )


def write_release(
    folder: Path,
    builds: Sequence[Build],
    *,
    golden: bytes | None = None,
    checks: Sequence[GoldenCheck] = (),
    golden_count: int = 0,
    version: str = "1.0.0",
) -> Digest:
    """Write a release of the four-pixel classifier as an OCI layout; returns its digest."""
    spec = None
    files = {"labels.txt": LABELS}
    if golden is not None:
        spec = GoldenSpec(layer="golden.tar", count=golden_count, contains_personal_data=False, checks=[*checks])
        files["golden.tar"] = golden
    writer = LayoutWriter(folder)
    manifest = release_manifest([build.id for build in builds], spec, version)
    release = writer.add_manifest(encode(manifest), RELEASE_CONFIG, files, {})
    variants = []
    for build in builds:
        layers = {"model.onnx": build.content} | ({"own.npz": build.own} if build.own is not None else {})
        described = build.manifest()
        variants.append(writer.add_manifest(encode(described), VARIANT_CONFIG, layers, variant_annotations(described)))
    return writer.finish(release, variants, manifest.version)


class SpyBackend:
    """Implements the backend port without an engine, and remembers which bytes it was asked to parse."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self.parsed: list[bytes | Path] = []

    def probe(self) -> EngineFact | None:
        return EngineFact(name=self.name, version="1.20.0", providers=["cpu"])

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        self.parsed.extend(files.values())
        return _BrightestPixel()


class _BrightestPixel:
    inputs = (TensorInfo("x", "float32", (None, 1, 2, 2)),)
    outputs = (TensorInfo("logits", "float32", (None, 4)),)

    def run(self, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        return {"logits": inputs["x"].reshape(len(inputs["x"]), 4) * 2}

    def close(self) -> None:
        pass
