"""What reaches ONNX Runtime's execution providers: what a variant may say, and where a device keeps what they build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import pytest

from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.release import EngineRequirement, VariantManifest
from edge_runtime.inference.backend import BackendOptions, load_backend
from edge_runtime.inference.libraries.onnxruntime_providers import OPTIONS, settings_of
from edge_runtime.inference.libraries.onnxruntime_session import FRESH_CONTEXT, PROVIDERS
from tests.fakes.models import Build, four_pixel_classifier

FILES = {"model": four_pixel_classifier()}
REAL = onnxruntime.InferenceSession


def variant(*providers: str, **options: Any) -> VariantManifest:
    plain = Build("v", engine="onnxruntime").manifest()
    return msgspec.structs.replace(
        plain,
        target=msgspec.structs.replace(plain.target, provider=list(providers)),
        engine=EngineRequirement(options={key.replace("__", "."): value for key, value in options.items()}),
    )


class Recorder:
    """Stands where `InferenceSession` does: notes what it is told, and makes the real thing on the CPU."""

    def __init__(self, refuses: str = "", writes: bytes | None = None) -> None:
        self.asked: list[dict[str, dict[str, Any]]] = []
        self.contents: list[bytes] = []
        self.settings: Any = None
        self.damaged = b""
        self.stumbles_over: Path | None = None
        self._refuses = refuses
        self._writes = writes

    def __call__(self, content: bytes, settings: Any, providers: list[Any], enable_fallback: int) -> Any:
        assert enable_fallback == 0
        told = dict(providers)
        self.asked.append(told)
        self.contents.append(content)
        self.settings = settings
        if self._refuses in told:
            raise RuntimeError("the driver is too old")
        if content == self.damaged or (self.stumbles_over is not None and self.stumbles_over.exists()):
            raise RuntimeError("no model")
        if (place := told.get(PROVIDERS["tensorrt"], {}).get("trt_ep_context_file_path")) and self._writes is not None:
            Path(place).write_bytes(self._writes)
        session = REAL(FILES["model"], providers=["CPUExecutionProvider"])
        session.get_providers = lambda: list(told)
        return session


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return recording(monkeypatch, Recorder())


def recording(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Recorder:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", recorder)
    return recorder


def test_each_provider_is_told_its_own_options_in_the_vendors_words(recorder: Recorder) -> None:
    manifest = variant(
        "tensorrt", "cuda", "cpu", trt_fp16_enable=True, trt_context_memory_sharing_enable=True, cuda__use_tf32=False,
        cuda__gpu_mem_limit=2**30, cuda__arena_extend_strategy="kSameAsRequested", trt_profile_min_shapes=None,
    )  # fmt: skip

    load_backend("onnxruntime").open(FILES, manifest, BackendOptions())

    assert recorder.asked == [
        {
            "TensorrtExecutionProvider": {
                "trt_fp16_enable": True, "trt_context_memory_sharing_enable": True,
                "trt_engine_cache_enable": False, "trt_timing_cache_enable": False,
            },
            "CUDAExecutionProvider": {
                "use_tf32": False, "gpu_mem_limit": 2**30, "arena_extend_strategy": "kSameAsRequested",
            },
            "CPUExecutionProvider": {},
        }
    ]  # fmt: skip


def test_openvino_is_told_its_device_threads_and_cache(recorder: Recorder, tmp_path: Path) -> None:
    manifest = variant("openvino", openvino__cache_enable=True, openvino__num_streams=2, openvino__precision="FP32")

    load_backend("onnxruntime").open(FILES, manifest, BackendOptions(threads=3, built=tmp_path / "v" / "m"))

    told = recorder.asked[0]["OpenVINOExecutionProvider"]
    assert Path(told.pop("cache_dir")).parent == tmp_path / "v" / "m"
    assert told == {"device_type": "CPU", "num_streams": 2, "precision": "FP32", "num_of_threads": 3}


def test_xnnpack_gets_the_threads_and_leaves_none_to_spin_beside_them(recorder: Recorder) -> None:
    load_backend("onnxruntime").open(FILES, variant("xnnpack", "cpu"), BackendOptions(threads=4))

    assert recorder.asked[0] == {"XnnpackExecutionProvider": {"intra_op_num_threads": 4}, "CPUExecutionProvider": {}}
    assert recorder.settings.intra_op_num_threads == 1
    assert recorder.settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("cuda.gpu_mem_limit", "all", "a whole number from 1"),
        ("cuda.gpu_mem_limit", True, "a whole number from 1"),
        ("cuda.device_id", -1, "a whole number from 0 to 127"),
        ("cuda.use_tf32", 1, "true or false"),
        ("cuda.arena_extend_strategy", "kBig", "one of kNextPowerOfTwo, kSameAsRequested"),
        ("trt_builder_optimization_level", 6, "a whole number from 0 to 5"),
        ("trt_profile_opt_shapes", "x:1x2;/etc", "shapes such as"),
        ("trt_tactic_sources", "+EVERYTHING", "tactics such as"),
        ("trt_op_types_to_exclude", "Conv Mul", "names of operators"),
        ("openvino.device_type", "MYRIAD", "CPU, GPU, GPU.1, NPU"),
        ("openvino.num_streams", 0, "a whole number from 1 to 64"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_refused_with_what_it_takes(key: str, value: Any, says: str) -> None:
    with pytest.raises(UnsupportedFeature, match=r"^cannot open variant v: engine option .*is not " + says):
        load_backend("onnxruntime").open(FILES, variant("cpu", **{key: value}), BackendOptions())


@pytest.mark.parametrize(
    "key",
    ["cuda.user_compute_stream", "cuda.enable_cuda_graph", "openvino.cache_dir", "openvino.load_config",
     "gpu_mem_limit", "trt_engine_cache_path", "trt_ep_context_file_path", "trt_int8_calibration_table_name",
     "xnnpack.anything"],
)  # fmt: skip
def test_an_option_that_no_device_should_take_from_a_release_is_unknown(key: str) -> None:
    with pytest.raises(UnsupportedFeature, match="is unknown to this runtime"):
        load_backend("onnxruntime").open(FILES, variant("cpu", **{key: "x"}), BackendOptions())


def test_a_provider_that_fails_gives_way_to_the_next_that_the_variant_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = recording(monkeypatch, Recorder(refuses="CUDAExecutionProvider"))

    load_backend("onnxruntime").open(FILES, variant("cuda", "cpu"), BackendOptions())
    with pytest.raises(InferenceError, match="the driver is too old"):
        load_backend("onnxruntime").open(FILES, variant("cuda"), BackendOptions())

    assert [list(told) for told in recorder.asked] == [
        ["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"], ["CUDAExecutionProvider"],
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["cut off", "refused"])
def test_a_model_compiled_once_is_taken_the_next_time_and_a_bad_one_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    recorder = recording(monkeypatch, Recorder(writes=b"compiled"))
    manifest, keeping = variant("tensorrt", trt_dump_ep_context_model=True), BackendOptions(built=tmp_path / "v" / "m")
    backend = load_backend("onnxruntime")

    backend.open(FILES, manifest, keeping)
    backend.open(FILES, manifest, keeping)
    (context,) = tmp_path.rglob("context-*")
    if damage == "cut off":
        context.write_bytes(b"comp")
    else:
        recorder.damaged = b"compiled"
    backend.open(FILES, manifest, keeping)

    told = [asked["TensorrtExecutionProvider"].get("trt_ep_context_file_path") for asked in recorder.asked]
    place = str(context.with_name(FRESH_CONTEXT))
    tried = [] if damage == "cut off" else [b"compiled"]
    assert recorder.contents == [FILES["model"], b"compiled", *tried, FILES["model"]]
    assert told == [place, None, *[None for _ in tried], place]
    assert context.read_bytes() == b"compiled"


def test_a_damaged_engine_in_a_providers_own_cache_is_thrown_away_and_the_model_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder = recording(monkeypatch, Recorder())
    manifest, keeping = variant("tensorrt", trt_engine_cache_enable=True), BackendOptions(built=tmp_path / "v" / "m")
    backend = load_backend("onnxruntime")
    backend.open(FILES, manifest, keeping)
    engine = Path(recorder.asked[0]["TensorrtExecutionProvider"]["trt_engine_cache_path"]) / "x_sm87.engine"

    engine.write_bytes(b"cut off")
    recorder.stumbles_over = engine
    backend.open(FILES, manifest, keeping)

    assert len(recorder.asked) == 3
    assert not engine.exists()


def test_every_option_is_checked_for_every_variant_and_belongs_to_a_provider_that_exists() -> None:
    assert OPTIONS.keys() <= PROVIDERS.keys()
    for provider, rules in OPTIONS.items():
        for key in rules:
            with pytest.raises(UnsupportedFeature):
                settings_of(variant(provider, **{key: -7.5}), provider, None, None)
