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
from edge_runtime.inference.backends import tensorrt
from edge_runtime.inference.backends.tensorrt import engine_folder, provider_options
from edge_runtime.inference.facts import machine_facts
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


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_plan_reaches_the_provider_with_a_folder_of_this_device(tmp_path: Path) -> None:
    assert provider_options(variant(), tmp_path) == {
        **OPTIONS,
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_path": str(tmp_path),
    }


def test_without_a_folder_nothing_is_kept() -> None:
    chosen = provider_options(variant(), None)

    assert (chosen["trt_engine_cache_enable"], chosen["trt_timing_cache_enable"]) == (False, False)
    assert "trt_engine_cache_path" not in chosen


@pytest.mark.parametrize("key", ["trt_engine_cache_path", "trt_extra_plugin_lib_paths", "trt_ep_context_file_path"])
def test_an_option_that_names_a_file_is_refused(key: str) -> None:
    with pytest.raises(UnsupportedFeature, match=key):
        provider_options(variant(**{key: "/etc/x"}), None)


def test_a_variant_for_native_tensorrt_alone_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="native"):
        provider_options(variant("other"), None)


def test_another_file_plan_or_library_has_another_folder(monkeypatch, own_cache: Path) -> None:
    first = engine_folder(b"a", variant())
    monkeypatch.setattr(tensorrt, "_version", lambda: "10.3.0")
    folders = [first, engine_folder(b"a", variant()), engine_folder(b"b", variant()),
               engine_folder(b"a", variant(trt_int8_enable=True))]  # fmt: skip

    assert len(set(folders)) == 4
    assert all(folder is not None and own_cache in folder.parents for folder in folders)
    assert first is not None
    assert first.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_can_write_is_not_used() -> None:
    folder = engine_folder(b"a", variant())
    assert folder is not None

    folder.chmod(0o777)

    assert engine_folder(b"a", variant()) is None


def test_without_tensorrt_the_variant_is_refused_with_what_to_install() -> None:
    backend = load_backend("tensorrt")

    assert backend.probe() is None
    with pytest.raises(InferenceError, match=r"without TensorRT.*onnxruntime-gpu") as caught:
        backend.open(FILES, variant(), BackendOptions())
    assert caught.value.code == "load_failed"


@pytest.mark.parametrize("loads", [True, False])
def test_a_session_is_taken_only_when_tensorrt_really_is_part_of_it(monkeypatch, loads: bool) -> None:
    real = onnxruntime.InferenceSession
    asked: list[Any] = []

    def opened(content: bytes, sess_options: object, providers: list[Any]) -> Any:
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

    if loads:
        assert [info.name for info in backend.open(FILES, variant(), BackendOptions()).inputs] == ["x"]
    else:
        with pytest.raises(InferenceError, match="only CPUExecutionProvider could be loaded"):
            backend.open(FILES, variant(), BackendOptions())
    (name, options), second = asked
    assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_fp16_enable"] is True


@pytest.mark.parametrize(("number", "version"), [(8502, "8.5.2"), (100300, "10.3.0"), (110401, "11.4.1")])
def test_the_version_is_read_from_the_library(monkeypatch, number: int, version: str) -> None:
    library = SimpleNamespace(getInferLibVersion=lambda: number)
    monkeypatch.setattr(tensorrt.ctypes, "CDLL", lambda _: library)

    assert tensorrt._version() == version


@pytest.mark.parametrize(
    ("engine", "provider", "accelerators"),
    [("litert", "edgetpu", ["edgetpu-v1"]), ("tensorrt", "onnxruntime", ["nvidia-gpu"]), ("litert", "xnnpack", [])],
)
def test_an_accelerator_is_a_fact_when_an_engine_ran_on_it(engine: str, provider: str, accelerators: list[str]) -> None:
    facts = machine_facts([EngineFact(name=engine, version="1", providers=["cpu", provider])])

    assert facts.accelerators == accelerators
