"""A quantised TFLite file answers in real numbers: the manifest's scale and zero point stand between."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.release import EngineRequirement, TensorBinding, TensorMap, VariantManifest
from edge_runtime.inference.backend import BackendOptions, load_backend
from edge_runtime.inference.backends import litert
from edge_runtime.inference.libraries import tflite
from edge_runtime.inference.predictor import load_predictor
from edge_runtime.inference.preprocessing.values import Value
from edge_runtime.inference.requests.accounting import Accounting
from edge_runtime.inference.requests.asker import Asker
from edge_runtime.inference.requests.statistics import statistics_of
from edge_runtime.serving.calls import Call
from edge_runtime.serving.host import ModelHost
from tests.fakes.litert_models import adder_of_namesakes, custom_operator, four_pixel_tflite, int8_four_pixel_tflite
from tests.fakes.models import Build, release_manifest, write_release

PICTURE = np.array([[[[0], [255]], [[128], [64]]]], dtype=np.uint8)
REAL = BackendOptions(threads=1)
REFERENCE = BackendOptions(threads=1, graph_optimisation="disabled")


def int8_variant(provider: str = "cpu") -> VariantManifest:
    plain = Build("int8", engine="litert").manifest()
    return msgspec.structs.replace(
        plain,
        target=msgspec.structs.replace(plain.target, precision="int8", provider=[provider]),
        io=TensorMap(
            inputs={"x": TensorBinding(tensor="x", dtype="int8", scale=1 / 255, zero_point=-128)},
            outputs={"logits": TensorBinding(tensor="logits", dtype="int8", scale=2 / 255, zero_point=-128)},
        ),
    )


@pytest.mark.parametrize("options", [REAL, REFERENCE])
def test_a_quantised_file_takes_and_gives_real_numbers(options: BackendOptions) -> None:
    predictor = load_predictor(
        release_manifest(["int8"]), int8_variant(), {"model": int8_four_pixel_tflite()}, options=options
    )

    logits = predictor.run_decoded({"image": PICTURE})["logits"]

    assert logits.dtype == np.float32
    assert np.abs(logits - PICTURE.reshape(1, 4) * (2 / 255)).max() <= 2 / 255


def test_real_numbers_go_the_short_way_into_a_quantised_file_and_mean_the_same() -> None:
    predictor = load_predictor(
        release_manifest(["int8"]), int8_variant(), {"model": int8_four_pixel_tflite()}, options=REAL
    )
    asker = Asker(predictor, Accounting())
    first, second = (np.random.default_rng(seed).random((1, 1, 2, 2), np.float32) for seed in (1, 2))

    at_first = asker.straight({"x": first})
    answered = asker.infer_tensors({"x": first})["logits"]
    fed = asker.straight({"x": second})

    assert at_first is None
    assert fed is not None
    assert np.array_equal(fed["x"], predictor.preprocess.chains[0].finish(Value(second, "NCHW")))
    assert np.array_equal(asker.infer_tensors({"x": first})["logits"], answered)
    assert asker.straight({"x": second.astype(np.float64)}) is None
    assert asker.straight({"x": second.reshape(1, 2, 2, 1)}) is None


def test_numbers_that_are_quantised_on_the_short_way_are_counted_as_prepared() -> None:
    accounting = Accounting()
    predictor = load_predictor(
        release_manifest(["int8"]), int8_variant(), {"model": int8_four_pixel_tflite()}, options=REAL
    )
    asker = Asker(predictor, accounting)

    for _ in range(3):
        asker.infer_tensors({"x": np.full((1, 1, 2, 2), 0.5, np.float32)})

    counted = statistics_of(accounting)
    assert (counted.success, counted.stages["prepare"].count) == (3, 3)


def test_a_server_counts_what_is_quantised_on_the_short_way_too(tmp_path: Path) -> None:
    class Quantised(Build):
        def manifest(self) -> VariantManifest:
            return msgspec.structs.replace(super().manifest(), io=int8_variant().io)

    write_release(tmp_path / "r", [Quantised("int8", engine="litert", content=int8_four_pixel_tflite())])
    question = Call({"x": np.full((1, 1, 2, 2), 0.5, np.float32)}, ("logits",))

    with ModelHost() as host:
        served = host.load(tmp_path / "r")
        for _ in range(3):
            served.call(question)
        counted = served.statistics()

    assert (counted.success.count, counted.stages["prepare"].count) == (3, 3)


def test_real_numbers_in_an_order_that_a_quantised_file_does_not_have_are_turned_each_time() -> None:
    plain = int8_variant()
    moved = TensorBinding(tensor="x", dtype="int8", scale=1 / 255, zero_point=-128, layout="NHWC")
    variant = msgspec.structs.replace(plain, io=msgspec.structs.replace(plain.io, inputs={"x": moved}))
    content = {"model": int8_four_pixel_tflite(shape=(1, 2, 2, 1))}
    asker = Asker(load_predictor(release_manifest(["int8"]), variant, content, options=REAL), Accounting())

    for _ in range(2):
        asker.infer_tensors({"x": np.zeros((1, 1, 2, 2), np.float32)})

        assert asker.straight({"x": np.zeros((1, 1, 2, 2), np.float32)}) is None


def test_tensors_whose_name_the_file_repeats_are_told_apart_by_their_number() -> None:
    session = load_backend("litert").open({"model": adder_of_namesakes()}, Build("v", engine="litert").manifest(), REAL)

    answer = session.run({"one#0": np.float32([1, 2]), "one#1": np.float32([10, 20])})

    assert answer["sum"].tolist() == [11, 22]


def test_an_accelerator_that_this_runtime_cannot_drive_is_refused_not_replaced_by_the_cpu() -> None:
    with pytest.raises(UnsupportedFeature, match="hexagon"):
        load_backend("litert").open({"model": four_pixel_tflite()}, int8_variant("hexagon"), REAL)


def test_a_file_for_the_edge_tpu_is_not_run_by_the_cpu_where_its_library_is_missing(monkeypatch) -> None:
    monkeypatch.setattr(tflite, "EDGETPU_LIBRARY", "libedgetpu-that-nobody-has.so.1")

    with pytest.raises(InferenceError, match=r"libedgetpu-that-nobody-has\.so\.1.*plug the device in") as caught:
        load_backend("litert").open({"model": int8_four_pixel_tflite()}, int8_variant("edgetpu"), REAL)

    assert caught.value.code == "load_failed"


def test_the_edge_tpu_that_the_variant_names_is_the_one_that_is_asked_for(monkeypatch) -> None:
    asked = []

    def load(_: object, options: dict[str, str]) -> object:
        asked.append(options)
        raise ValueError("no device")

    monkeypatch.setattr(litert, "load_edgetpu", load)
    variant = int8_variant("edgetpu")
    second = msgspec.structs.replace(variant, engine=EngineRequirement(options={"edgetpu_device": "usb:1"}))

    for manifest in (variant, second):
        with pytest.raises(InferenceError, match="no device"):
            load_backend("litert").open({"model": int8_four_pixel_tflite()}, manifest, REAL)

    assert asked == [{}, {"device": "usb:1"}]


def test_a_model_that_xnnpack_refuses_runs_on_the_plain_kernels_and_says_so(monkeypatch) -> None:
    real, version = litert._import()

    class Refusing(real.Interpreter):
        def __init__(self, **wishes: object) -> None:
            super().__init__(**wishes)
            self.is_default = wishes["experimental_op_resolver_type"] is real.OpResolverType.AUTO

        def allocate_tensors(self) -> None:
            if self.is_default:
                raise RuntimeError("failed to prepare the delegate")
            super().allocate_tensors()

    stand_in = SimpleNamespace(Interpreter=Refusing, OpResolverType=real.OpResolverType)
    monkeypatch.setattr(litert, "_import", lambda: (stand_in, version))

    predictor = load_predictor(
        release_manifest(["int8"]), int8_variant(), {"model": int8_four_pixel_tflite()}, options=REAL
    )

    assert predictor.run_decoded({"image": PICTURE})["logits"].argmax() == 1
    assert "failed to prepare the delegate" in predictor.session.notes[0]  # type: ignore[attr-defined]


def test_callers_on_several_threads_each_get_the_answer_to_their_own_question() -> None:
    session = load_backend("litert").open(
        {"model": adder_of_namesakes()}, Build("v", engine="litert").manifest(), BackendOptions(concurrency=2)
    )

    def ask(number: int) -> bool:
        answer = session.run({"one#0": np.float32([number, 0]), "one#1": np.float32([0, number])})
        return answer["sum"].tolist() == [number, number]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(400)))


def test_an_operator_that_only_an_accelerator_knows_is_one_clear_error() -> None:
    content = custom_operator("edgetpu-custom-op")

    with pytest.raises(InferenceError, match="edgetpu-custom-op") as caught:
        load_backend("litert").open({"model": content}, Build("v", engine="litert").manifest(), REAL)

    assert caught.value.code == "load_failed"
    assert "\n" not in str(caught.value)


def test_the_probe_says_that_xnnpack_takes_part() -> None:
    fact = load_backend("litert").probe()

    assert fact is not None
    assert fact.providers == ["cpu", "xnnpack"]


def test_the_engine_says_nothing_on_stderr_and_stderr_works_afterwards() -> None:
    program = (
        "import sys; from edge_runtime.inference.facts import engines; engines({'litert'});"
        "print('still here', file=sys.stderr)"
    )

    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert finished.stderr == "still here\n"


def test_a_process_without_stderr_uses_the_engine_all_the_same() -> None:
    program = (
        "import os; os.close(2)\nfrom edge_runtime.inference.facts import engines\n"
        "print([fact.name for fact in engines({'litert'})])"
    )

    finished = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)

    assert finished.stdout == "['litert']\n"
