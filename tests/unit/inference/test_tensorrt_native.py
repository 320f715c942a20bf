"""TensorRT by itself, as far as that can be tried without a GPU: what it is told, what is kept, what is given back."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.release import BuildPlan, EngineRequirement, ModelFormat, VariantManifest
from edge_runtime.inference.backend import BackendOptions, Session, load_backend
from edge_runtime.inference.backends import tensorrt
from edge_runtime.inference.libraries.cuda_runtime import Cuda, CudaError
from tests.fakes.models import Build, four_pixel_classifier
from tests.fakes.tensorrt_stand_in import Cudart, Kind, TensorRt

FILES = {"build_input": four_pixel_classifier()}
PIXELS = np.array([[[[0.0, 1.0], [0.5, 0.25]]]], dtype=np.float32)
PLAN = BuildPlan(
    where="device", timeout_s=900.0, peak_bytes=1, flags=["fp16", "fp99"], workspace_bytes=2**28, timing_cache="keep",
    profiles=[{"x": {"min": [1, 1, 2, 2], "opt": [1, 1, 2, 2], "max": [8, 1, 2, 2]}}],
)  # fmt: skip


def variant(typing: str = "weak", **more: Any) -> VariantManifest:
    plain = Build("jetson", engine="tensorrt").manifest()
    return msgspec.structs.replace(
        plain,
        target=msgspec.structs.replace(plain.target, provider=["native", "onnxruntime"], accelerator="nvidia-gpu"),
        engine=EngineRequirement(format=ModelFormat(opset=19, ir=9, typing=typing)),
        build=msgspec.structs.replace(PLAN, **more),
    )


class Machine:
    """A board with stand-ins in place of CUDA and TensorRT."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trt: TensorRt, cudart: Cudart) -> None:
        self.trt, self.cudart = trt, cudart
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(tensorrt, "load_cuda", lambda: Cuda(cudart))
        monkeypatch.setattr(tensorrt, "tensorrt_version", lambda: trt.__version__)

    def open(self, options: BackendOptions | None = None, manifest: VariantManifest | None = None) -> Session:
        return load_backend("tensorrt").open(FILES, manifest or variant(), options or BackendOptions())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, TensorRt(), Cudart())


def test_an_engine_answers_batches_of_any_size_that_its_profile_has(machine: Machine) -> None:
    session = machine.open()

    for count in (1, 3, 2):
        answer = session.run({"x": np.concatenate([PIXELS] * count)})["logits"]
        assert answer.tolist() == [[0.0, 2.0, 1.0, 0.5]] * count
    assert [(info.name, info.dtype, info.shape) for info in (*session.inputs, *session.outputs)] == [
        ("x", "float32", (None, 1, 2, 2)), ("logits", "float32", (None, 4)),
    ]  # fmt: skip


def test_an_answer_belongs_to_the_caller(machine: Machine) -> None:
    session = machine.open()

    kept = session.run({"x": PIXELS})["logits"]
    session.run({"x": PIXELS * 0})

    assert kept.tolist() == [[0.0, 2.0, 1.0, 0.5]]


def test_a_shape_that_no_profile_has_is_the_questions_fault_and_the_session_goes_on(machine: Machine) -> None:
    session = machine.open()

    with pytest.raises(InferenceError, match=r"may not have shape \[9, 1, 2, 2\]") as refused:
        session.run({"x": np.concatenate([PIXELS] * 9)})

    assert refused.value.code == InferenceError.default_code
    assert session.run({"x": PIXELS})["logits"].tolist() == [[0.0, 2.0, 1.0, 0.5]]


def test_callers_at_once_have_contexts_of_their_own(machine: Machine) -> None:
    session = machine.open(BackendOptions(concurrency=3))

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda of: session.run({"x": PIXELS * of})["logits"][0, 1], range(60)))

    assert answers == [2.0 * of for of in range(60)]


def test_a_lease_is_the_page_locked_memory_that_is_copied_from(machine: Machine) -> None:
    session = machine.open()
    binding = session.bind({"x": (2, 1, 2, 2)})  # type: ignore[attr-defined]

    binding.inputs["x"][...] = PIXELS
    machine.cudart.copies.clear()
    answer = binding.run()["logits"]

    assert answer.tolist() == [[0.0, 2.0, 1.0, 0.5]] * 2
    assert machine.cudart.copies == [1, 2]
    assert any(binding.inputs["x"].ctypes.data == place for place in machine.cudart.held)


def test_everything_is_given_back_but_what_somebody_still_looks_at(machine: Machine) -> None:
    session = machine.open(BackendOptions(concurrency=1))
    binding = session.bind({"x": (1, 1, 2, 2)})  # type: ignore[attr-defined]
    session.run({"x": PIXELS})

    kept = binding.run()["logits"]
    session.close()
    del session, binding
    gc.collect()

    assert len(machine.cudart.held) == 1
    assert kept.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    del kept
    gc.collect()
    assert machine.cudart.held == {}


def test_a_closed_session_says_that_it_is_closed(machine: Machine) -> None:
    session = machine.open()

    session.close()

    with pytest.raises(InferenceError, match="it was closed"):
        session.run({"x": PIXELS})


def test_a_gpu_that_fails_is_the_engines_fault_in_cudas_words(machine: Machine) -> None:
    session = machine.open()
    machine.cudart.fails_to_run = 700

    with pytest.raises(InferenceError, match="illegal memory access") as failed:
        session.run({"x": PIXELS})

    assert failed.value.code == "engine_failed"


def test_the_plan_of_the_release_is_what_the_builder_is_told(machine: Machine) -> None:
    machine.open()
    machine.open(manifest=variant("strong", flags=[], dla=1))

    weak, strong = machine.trt.built
    assert (weak.network, strong.network) == (1 << 0, 1 << 1)
    assert (weak.config.flags, weak.config.limits) == (["fp16"], {"workspace": 2**28})
    assert weak.config.profiles == [[("x", (1, 1, 2, 2), (1, 1, 2, 2), (8, 1, 2, 2))]]
    assert (strong.config.default_device_type, strong.config.DLA_core, strong.config.flags) == ("dla", 1, ["fallback"])


def test_an_engine_is_built_once_and_anew_for_another_driver_or_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keeping = BackendOptions(built=tmp_path / "variant" / "machine")
    builds = []
    for trt, cudart in ((TensorRt(), Cudart()), (TensorRt(), Cudart(driver=12080)), (TensorRt("10.9.1"), Cudart())):
        machine = Machine(monkeypatch, trt, cudart)
        machine.open(keeping)
        machine.open(keeping)
        builds.append(len(trt.built))

    assert builds == [1, 1, 1]
    assert sorted(path.parent.name for path in tmp_path.rglob("plan-*")) == [
        "tensorrt-10.3.0-sm-8.7-cuda-12060", "tensorrt-10.3.0-sm-8.7-cuda-12080", "tensorrt-10.9.1-sm-8.7-cuda-12060",
    ]  # fmt: skip


def test_a_plan_that_was_cut_off_reaches_no_parser_and_is_built_anew_with_the_timings_that_were_kept(
    machine: Machine, tmp_path: Path
) -> None:
    keeping = BackendOptions(built=tmp_path / "variant" / "machine")
    machine.open(keeping)
    (plan,) = tmp_path.rglob("plan-*")

    plan.write_bytes(b"pla")
    machine.open(keeping)

    assert [one.config.timings for one in machine.trt.built] == [b"", b"timings"]
    assert plan.read_bytes() == b"plan"


@pytest.mark.parametrize(
    ("trt", "cudart", "says"),
    [
        (TensorRt(refuses="node 3: no importer for NonZero"), Cudart(), "node 3: no importer for NonZero"),
        (TensorRt(kind=Kind.BF16), Cudart(), "has type Kind.BF16"),
    ],
    ids=["parser", "type"],
)
def test_what_cannot_be_built_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, trt: TensorRt, cudart: Cudart, says: str
) -> None:
    machine = Machine(monkeypatch, trt, cudart)

    with pytest.raises(InferenceError, match=says) as refused:
        machine.open()

    assert refused.value.code == "load_failed"
    assert "\n" not in str(refused.value)


def test_a_gpu_without_room_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.trt.has_room = False
    with pytest.raises(InferenceError, match="no memory for an execution context"):
        machine.open()

    small = Machine(monkeypatch, TensorRt(), Cudart(bytes_left=8))
    with pytest.raises(InferenceError, match="out of memory"):
        small.open().run({"x": PIXELS})
    with pytest.raises(CudaError, match="CUDA cannot take 9 bytes: out of memory"):
        Cuda(small.cudart).memory(9)


def test_the_probe_says_in_which_ways_it_works(machine: Machine) -> None:
    fact = load_backend("tensorrt").probe()

    assert fact is not None
    assert (fact.version, fact.providers) == ("10.3.0", ["native"])


def test_before_tensorrt_10_one_caller_at_a_time_has_the_only_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, TensorRt("8.6.2"), Cudart())
    session = machine.open(BackendOptions(concurrency=3))

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: session.run({"x": PIXELS}), range(30)))

    assert sum(what == "stream" for what in machine.cudart.held.values()) == 1
