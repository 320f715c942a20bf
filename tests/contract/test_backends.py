"""One suite for every engine adapter: what the port promises, each of them keeps."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.inference.backend import BACKENDS, Backend, BackendOptions, is_direct, load_backend
from edge_runtime.inference.backends.tflite_runtime import TfliteRuntimeBackend
from tests.fakes.litert_models import four_pixel_tflite
from tests.fakes.models import Build, four_pixel_classifier

PIXELS = np.array([[[[0.0, 1.0], [0.5, 0.25]]]], dtype=np.float32)


def in_a_worker() -> Backend:
    """The worker of tflite-runtime, with the library of this environment in it; the lab tries the real wheel."""
    return TfliteRuntimeBackend(Path(sys.executable), "ai_edge_litert")


# TensorRT needs an NVIDIA GPU: what can be tried without one, tests/unit/inference/test_tensorrt.py tries.
@pytest.fixture(params=[*sorted(BACKENDS.keys() - {"tensorrt"}), "tflite_runtime"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return in_a_worker() if request.param == "tflite_runtime" else load_backend(request.param)


def model(backend: Backend) -> bytes:
    """The four-pixel classifier in the format that the engine reads."""
    return four_pixel_tflite() if backend.name == "litert" else four_pixel_classifier()


def variant(backend: Backend, **options: str | int):
    return Build("v", engine=backend.name, options=options).manifest()


def test_an_engine_that_works_here_says_so_with_version_and_cpu(backend: Backend) -> None:
    fact = backend.probe()

    assert fact is not None
    assert fact.name == backend.name
    assert fact.version[0].isdigit()
    assert "cpu" in fact.providers


def test_a_model_given_as_bytes_answers_with_its_numbers(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    answer = session.run({"x": PIXELS})

    assert answer["logits"].tolist() == [[0.0, 2.0, 1.0, 0.5]]


def test_a_model_given_as_a_path_answers_alike(backend: Backend, tmp_path) -> None:
    path = tmp_path / "model"
    path.write_bytes(model(backend))

    session = backend.open({"model": path}, variant(backend), BackendOptions(threads=1))

    assert session.run({"x": PIXELS})["logits"].tolist() == [[0.0, 2.0, 1.0, 0.5]]


def test_a_session_describes_its_tensors_in_numpy_terms(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    (taken,) = session.inputs
    (given,) = session.outputs
    assert (taken.name, taken.dtype, taken.shape) == ("x", "float32", (None, 1, 2, 2))
    assert (given.name, given.dtype, given.shape) == ("logits", "float32", (None, 4))


def test_a_float_variant_is_computed_in_float_whatever_the_processor_would_prefer(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())
    not_in_bfloat16 = np.full((1, 1, 2, 2), 1.0009765625, dtype=np.float32)

    assert session.run({"x": not_in_bfloat16})["logits"].tolist() == [[2.001953125] * 4]


def test_an_answer_belongs_to_the_caller_and_survives_the_next_call(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    first = session.run({"x": PIXELS})["logits"]
    session.run({"x": PIXELS * 0})

    assert first.tolist() == [[0.0, 2.0, 1.0, 0.5]]


def test_bound_memory_is_read_where_it_lies_and_an_answer_lasts_until_the_next_run(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())
    if not is_direct(session):
        pytest.skip("its interpreter forbids views of its memory while it runs")
    binding = session.bind({"x": (2, 1, 2, 2)})
    other = session.bind({"x": (1, 1, 2, 2)})

    binding.inputs["x"][...] = PIXELS
    answers = [binding.run()["logits"].tolist()]
    binding.inputs["x"][1] = 0
    other.run()
    session.run({"x": PIXELS * 3})
    answers.append(binding.run()["logits"].tolist())

    assert answers == [[[0.0, 2.0, 1.0, 0.5]] * 2, [[0.0, 2.0, 1.0, 0.5], [0.0] * 4]]
    assert binding.inputs["x"].ctypes.data % mmap.PAGESIZE == 0


def test_a_free_batch_axis_takes_another_size_with_each_call(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    for count in (3, 1, 2):
        answer = session.run({"x": np.concatenate([PIXELS] * count)})
        assert answer["logits"].tolist() == [[0.0, 2.0, 1.0, 0.5]] * count


def test_a_size_that_the_file_fixes_is_refused_and_the_session_goes_on(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    with pytest.raises(InferenceError, match="cannot run the model"):
        session.run({"x": np.zeros((1, 1, 3, 3), np.float32)})

    assert session.run({"x": PIXELS})["logits"].tolist() == [[0.0, 2.0, 1.0, 0.5]]


def test_arrays_that_are_views_are_read_in_their_own_order(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    answer = session.run({"x": PIXELS.transpose(0, 1, 3, 2)})

    assert answer["logits"].tolist() == [[0.0, 1.0, 2.0, 0.5]]


@pytest.mark.parametrize("cut", [0, 1, 40, 100])
def test_a_truncated_model_is_one_clear_error(backend: Backend, cut: int) -> None:
    with pytest.raises(InferenceError, match=r"^cannot open variant v: .* refuses it") as caught:
        backend.open({"model": model(backend)[:cut]}, variant(backend), BackendOptions())

    assert caught.value.code == "load_failed"
    assert "\n" not in str(caught.value)


def test_tensors_that_the_file_does_not_have_are_refused_by_name(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    with pytest.raises(InferenceError, match=r"takes \['x'\] and got \['y'\]"):
        session.run({"y": PIXELS})
    with pytest.raises(InferenceError, match="tensor x is float64, not float32"):
        session.run({"x": PIXELS.astype(np.float64)})


def test_a_closed_session_says_that_it_is_closed(backend: Backend) -> None:
    session = backend.open({"model": model(backend)}, variant(backend), BackendOptions())

    session.close()

    with pytest.raises(InferenceError, match="it was closed"):
        session.run({"x": PIXELS})


def test_an_engine_option_nobody_knows_disables_the_variant_rather_than_being_ignored(backend: Backend) -> None:
    with pytest.raises(UnsupportedFeature, match="MYSTERY"):
        backend.open({"model": model(backend)}, variant(backend, MYSTERY=1), BackendOptions())


def test_the_emulation_computes_the_same_float_model(backend: Backend) -> None:
    emulation = BackendOptions(graph_optimisation="disabled")

    session = backend.open({"model": model(backend)}, variant(backend), emulation)

    assert session.run({"x": PIXELS})["logits"].tolist() == [[0.0, 2.0, 1.0, 0.5]]


def test_threads_may_be_left_to_the_device_or_be_a_number(backend: Backend) -> None:
    for threads in ("tune", 1):
        backend.open({"model": model(backend)}, variant(backend, intra_op_threads=threads), BackendOptions())
    with pytest.raises(UnsupportedFeature, match="intra_op_threads"):
        backend.open({"model": model(backend)}, variant(backend, intra_op_threads=0), BackendOptions())


def test_an_engine_without_adapter_is_refused_with_the_names_of_those_that_exist() -> None:
    with pytest.raises(UnsupportedFeature, match=r"no adapter for it; choose one of onnxruntime, openvino, litert"):
        load_backend("abacus")
