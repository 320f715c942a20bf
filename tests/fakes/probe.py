"""The probe: one operator behind a 602 KB float input, so that a call costs what surrounds the engine; as a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import LayerName, ModelName, VariantId, Version
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, LayoutWriter, variant_annotations
from edge_runtime.contract.release import (
    BatchSpec,
    EngineRequirement,
    FileEntry,
    Licence,
    ReleaseManifest,
    Source,
    TensorBinding,
    TensorMap,
    VariantManifest,
)
from edge_runtime.contract.target import Target
from edge_runtime.contract.tensor import AxisRange, InputSpec, OutputSpec, Signature, TensorSpec

SHAPE = (1, 3, 224, 224)
BATCH_MAX = 32


def probe_onnx() -> bytes:
    """`x` float32 [N, 3, 224, 224] → `y` float32 [N, 3], the mean of each plane."""
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    content: bytes = model.SerializeToString()
    onnx.checker.check_model(model)
    return content


def heavy_onnx(convolutions: int = 3) -> bytes:
    """The probe with convolutions in front, which take several milliseconds."""
    chance = np.random.default_rng(0)
    nodes, weights, tensor = [], [], "x"
    for number in range(convolutions):
        kernel = chance.standard_normal((16, 3 if tensor == "x" else 16, 3, 3)).astype(np.float32) / 12
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        nodes.append(helper.make_node("Conv", [tensor, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        tensor = f"c{number}"
    narrow = chance.standard_normal((3, 16, 1, 1)).astype(np.float32)
    weights.append(numpy_helper.from_array(narrow, "narrow"))
    nodes.append(helper.make_node("Conv", [tensor, "narrow"], ["last"]))
    nodes.append(helper.make_node("ReduceMean", ["last"], ["y"], axes=[2, 3], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        weights,
    )
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    return content


def times_onnx() -> bytes:
    """`x` float32 [N, 2] and `factor` float32 [1] → `y` float32 [N, 2], the product."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "times",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    return content


def probe_input(seed: int = 0) -> npt.NDArray[np.float32]:
    """float32 [1, 3, 224, 224], 602 112 bytes."""
    return np.random.default_rng(seed).random(SHAPE, np.float32)


def write_model(
    folder: Path,
    content: bytes,
    *,
    name: str,
    takes: Sequence[int],
    gives: Sequence[int],
    version: str = "1.0.0",
    constants: Mapping[str, float] | None = None,
    outputs: Sequence[str] = ("y",),
) -> Path:
    """An ONNX file as a release; returns the folder.

    Args:
        folder: where the layout goes.
        content: takes `x` and gives `y`, float32 with a free first axis.
        name: of the model.
        takes: axes of `x` behind the first.
        gives: axes of `y` behind the first.
        version: of the release.
        outputs: public ones, each of which is `y` as it is.
        constants: what further inputs, float32 [1] each, are always fed with.
    """
    fixed = {key: TensorSpec(dtype="float32", shape=[1], constant=number) for key, number in (constants or {}).items()}
    shape: list[int | str] = ["N", *takes]
    manifest = ReleaseManifest(
        kind="model",
        name=ModelName(name),
        version=Version(version),
        task="other",
        requires=[],
        licence=Licence(spdx="Apache-2.0"),
        source=Source(digest=digest_of(content), format="onnx"),
        signature=Signature(
            inputs=[InputSpec(name="x", kind="tensor", dtype="float32", shape=shape)],
            outputs=[OutputSpec(name=one, kind="tensor", raw="y") for one in outputs],
            axes={"N": AxisRange(min=1, max=BATCH_MAX)},
        ),
        tensors={
            "x": TensorSpec(dtype="float32", shape=shape),
            "y": TensorSpec(dtype="float32", shape=["N", *gives]),
            **fixed,
        },
        preprocess={"x": [], **{key: [] for key in fixed}},
        postprocess={one: [{"op": "raw", "from": "y"}] for one in outputs},
        variants=[VariantId("ort-fp32")],
    )
    variant = VariantManifest(
        id=VariantId("ort-fp32"),
        requires=[],
        engine=EngineRequirement(options={"intra_op_threads": 1}),
        target=Target(engine="onnxruntime", precision="float32", provider=["cpu"]),
        files=[
            FileEntry(role="model", layer=LayerName("model.onnx"), digest=digest_of(content), size=len(content)),
        ],
        io=TensorMap(
            inputs={key: TensorBinding(tensor=key, dtype="float32") for key in ("x", *fixed)},
            outputs={"y": TensorBinding(tensor="y", dtype="float32")},
        ),
        batch=BatchSpec(max=BATCH_MAX, dynamic=True),
    )
    writer = LayoutWriter(folder)
    release = writer.add_manifest(encode(manifest), RELEASE_CONFIG, {}, {})
    build = writer.add_manifest(encode(variant), VARIANT_CONFIG, {"model.onnx": content}, variant_annotations(variant))
    writer.finish(release, [build], manifest.version)
    return folder


def write_probe(folder: Path, version: str = "1.0.0") -> Path:
    """The probe as a release named `probe`; returns the folder."""
    return write_model(folder, probe_onnx(), name="probe", takes=SHAPE[1:], gives=[3], version=version)
