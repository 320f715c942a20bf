"""What a build plan becomes for TensorRT; no machine of the tests has it, so everything around it is tried."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import onnxruntime
import pytest

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.release import BuildPlan, EngineRequirement, VariantManifest
from edge_runtime.inference.backend import BackendOptions, load_backend
from edge_runtime.inference.facts import machine_facts
from edge_runtime.inference.libraries import tensorrt_library
from tests.fakes.models import Build, four_pixel_classifier

OPTIONS: dict[str, Any] = {
    "trt_fp16_enable": True,
    "trt_int8_enable": False,
    "trt_max_workspace_size": 268435456,
    "trt_engine_cache_enable": True,
    "trt_timing_cache_enable": True,
    "trt_profile_min_shapes": "x:1x1x2x2",
}
FILES = {"build_input": four_pixel_classifier()}


def variant(provider: str = "onnxruntime", **more: Any) -> VariantManifest:
    plain = Build("jetson", engine="tensorrt").manifest()
    return msgspec.structs.replace(
        plain,
        target=msgspec.structs.replace(plain.target, provider=["native", provider], accelerator="nvidia-gpu"),
        engine=EngineRequirement(options={**OPTIONS, **more}),
        build=BuildPlan(where="device", timeout_s=900.0, peak_bytes=1, flags=["fp16"]),
    )


def test_an_option_that_names_a_file_is_refused() -> None:
    for key in ("trt_engine_cache_path", "trt_extra_plugin_lib_paths", "trt_ep_context_file_path"):
        with pytest.raises(UnsupportedFeature, match=key):
            load_backend("tensorrt").open(FILES, variant(**{key: "/etc/x"}), BackendOptions())


def test_a_way_to_tensorrt_that_nobody_knows_is_refused() -> None:
    manifest = variant()
    other = msgspec.structs.replace(manifest, target=msgspec.structs.replace(manifest.target, provider=["triton"]))

    with pytest.raises(UnsupportedFeature, match="triton"):
        load_backend("tensorrt").open(FILES, other, BackendOptions())


def test_what_tensorrt_says_of_a_file_that_it_refuses_reaches_the_reader(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("node 3: no importer")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)

    with pytest.raises(InferenceError, match=r"TensorRT refuses it \(.node 3: no importer"):
        load_backend("tensorrt").open(FILES, variant(), BackendOptions())


def test_without_tensorrt_the_variant_is_refused_with_what_to_install() -> None:
    backend = load_backend("tensorrt")

    assert backend.probe() is None
    with pytest.raises(InferenceError, match=r"without TensorRT.*onnxruntime-gpu") as caught:
        backend.open(FILES, variant(), BackendOptions())
    assert caught.value.code == "load_failed"


@pytest.mark.parametrize("loads", [True, False])
def test_a_session_is_taken_only_when_tensorrt_really_is_part_of_it(monkeypatch, loads: bool, tmp_path: Path) -> None:
    real = onnxruntime.InferenceSession
    asked: list[Any] = []

    def opened(content: bytes, settings: object, providers: list[Any], enable_fallback: int) -> Any:
        asked.extend(providers)
        session = real(content, providers=["CPUExecutionProvider"])
        active = ["TensorrtExecutionProvider"] * loads + ["CPUExecutionProvider"]
        return SimpleNamespace(
            get_inputs=session.get_inputs,
            get_outputs=session.get_outputs,
            run=session.run,
            get_providers=lambda: active,
        )

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    backend = load_backend("tensorrt")
    keeping = BackendOptions(built=tmp_path / "variant" / "machine")

    if loads:
        assert [info.name for info in backend.open(FILES, variant(), keeping).inputs] == ["x"]
    else:
        with pytest.raises(InferenceError, match="only CPUExecutionProvider could be loaded"):
            backend.open(FILES, variant(), keeping)
    (name, options), (second, _) = asked
    assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    folder = Path(options["trt_engine_cache_path"])
    assert options == {**OPTIONS, "trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}
    assert folder.parent == keeping.built
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("number", "version"), [(8502, "8.5.2"), (100300, "10.3.0"), (110401, "11.4.1")])
def test_the_version_is_read_from_the_library(monkeypatch, number: int, version: str) -> None:
    library = SimpleNamespace(getInferLibVersion=lambda: number)
    monkeypatch.setattr(tensorrt_library.ctypes, "CDLL", lambda _: library)

    assert tensorrt_library.tensorrt_version() == version


@pytest.mark.parametrize(
    ("engine", "provider", "accelerators"),
    [("litert", "edgetpu", ["edgetpu-v1"]), ("tensorrt", "onnxruntime", ["nvidia-gpu"]), ("litert", "xnnpack", [])],
)
def test_an_accelerator_is_a_fact_when_an_engine_ran_on_it(engine: str, provider: str, accelerators: list[str]) -> None:
    facts = machine_facts([EngineFact(name=engine, version="1", providers=["cpu", provider])])

    assert facts.accelerators == accelerators
