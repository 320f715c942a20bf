"""Real trained models on real photos, through a release: the answers their publishers saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime import Model
from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import LayerName, ModelName, VariantId, Version
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, LayoutWriter, variant_annotations
from edge_runtime.contract.release import (
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

pytestmark = pytest.mark.needs_shared
TOP_5 = {"op": "top_k", "from": "probabilities", "activation": "none", "k": 5, "ignore": [0]}
ENGINES = ("onnxruntime", "openvino")


def write_mobilenet(folder: Path, shared: Path) -> None:
    content = (shared / "models" / "onnx" / "mobilenet_v1_0.25_224_fp32.onnx").read_bytes()
    labels = (shared / "models" / "labels" / "imagenet_labels.txt").read_bytes()
    release = ReleaseManifest(
        kind="model",
        name=ModelName("mobilenet"),
        version=Version("1.0.0"),
        task="image_classification",
        requires=[],
        licence=Licence(spdx="Apache-2.0"),
        source=Source(digest=digest_of(content), format="onnx"),
        signature=Signature(
            inputs=[
                InputSpec(
                    name="image",
                    kind="image",
                    dtype="uint8",
                    shape=["N", "H", "W", 3],
                    layout="NHWC",
                    color="rgb",
                    accept=["jpeg", "png", "bmp", "tensor"],
                )
            ],
            outputs=[OutputSpec(name="classes", kind="classes", labels="layer:labels.txt", raw="probabilities")],
            axes={"N": AxisRange(min=1, max=8)},
        ),
        tensors={
            "input": TensorSpec(dtype="float32", shape=["N", 3, 224, 224], layout="NCHW"),
            "probabilities": TensorSpec(dtype="float32", shape=["N", 1001]),
        },
        preprocess={
            "input": [
                {"id": "decode", "op": "decode", "from": "image", "color": "rgb", "exif": "apply", "reduced": "never"},
                {
                    "id": "resize", "op": "resize", "mode": "stretch", "size": [224, 224],
                    "filter": "bilinear", "antialias": True,
                },
                {"id": "norm", "op": "normalize", "scale": 1.0, "mean": [127.5] * 3, "std": [127.5] * 3},
                {"id": "layout", "op": "layout", "to": "NCHW"},
            ]
        },
        postprocess={"classes": [TOP_5]},
        variants=[VariantId(engine) for engine in ENGINES],
    )  # fmt: skip
    writer = LayoutWriter(folder)
    stored = writer.add_manifest(encode(release), RELEASE_CONFIG, {"labels.txt": labels}, {})
    variants = []
    for engine in ENGINES:
        variant = VariantManifest(
            id=VariantId(engine),
            requires=[],
            target=Target(engine=engine, precision="float32", provider=["cpu"]),
            files=[
                FileEntry(role="model", layer=LayerName("model.onnx"), digest=digest_of(content), size=len(content))
            ],
            io=TensorMap(
                inputs={"input": TensorBinding(tensor="input", dtype="float32", layout="NCHW")},
                outputs={"probabilities": TensorBinding(tensor="probabilities", dtype="float32")},
            ),
        )
        files = {"model.onnx": content}
        variants.append(writer.add_manifest(encode(variant), VARIANT_CONFIG, files, variant_annotations(variant)))
    writer.finish(stored, variants, release.version)


@pytest.mark.parametrize("engine", ENGINES)
def test_mobilenet_sees_in_real_photos_what_its_publisher_saw(engine: str, shared: Path, tmp_path: Path) -> None:
    write_mobilenet(tmp_path, shared)
    photos = shared / "models" / "data" / "images"
    seen = {}

    with Model.open(tmp_path, variant=engine, threads=1) as model:
        for name in ("parrot.jpg", "cat_720p.jpg", "bird.bmp", "sunflower.bmp"):
            answer = model.infer({"image": (photos / name).read_bytes()})["classes"]
            seen[name] = (answer.labels[0], answer.scores[0])

    assert seen["parrot.jpg"] == ("macaw", pytest.approx(0.940, abs=0.002))
    assert seen["cat_720p.jpg"] == ("Egyptian cat", pytest.approx(0.472, abs=0.002))
    assert seen["bird.bmp"] == ("chickadee", pytest.approx(0.899, abs=0.002))
    assert seen["sunflower.bmp"] == ("daisy", pytest.approx(0.956, abs=0.002))
