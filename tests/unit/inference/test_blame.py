"""Who is to blame when there is no answer: callers in process are told the question's faults from the engine's."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_runtime import Model
from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.reasons import ENGINE_FAILED, MEMORY
from edge_runtime.inference.blame import BadInput, EngineFault, blame_engine, blame_question
from edge_runtime.inference.preprocessing.preprocess import Preprocessor
from edge_runtime.inference.requests.refusals import DeadlinePassed
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.fakes.models import Build, write_release
from tests.fakes.pixels import picture
from tests.fakes.probe import SHAPE, probe_input, probe_onnx, write_model


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def pixels(tmp_path: Path, faults: Faults) -> Iterator[Model]:
    write_release(tmp_path, [Build("ort-fp32")])
    with Model.open(tmp_path, registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as model:
        yield model


def question() -> dict[str, np.ndarray]:
    return {"image": picture(2)[None]}


@pytest.mark.parametrize(
    "inputs",
    [
        {"picture": np.zeros((1, 2, 2, 1), np.uint8)},
        {"image": np.zeros((1, 2, 2, 1), np.float32)},
        {"image": np.zeros((1, 2, 2, 7), np.uint8)},
        {"image": b"no picture"},
        {},
        7,
    ],
    ids=["name", "dtype", "shape", "bytes", "none", "no names"],
)
def test_a_question_that_the_model_does_not_take_is_to_blame(pixels: Model, inputs) -> None:
    for ask in (pixels.infer, pixels.infer_batch, pixels.infer_tensors):
        with pytest.raises(BadInput) as refusal:
            ask(inputs)

        assert refusal.value.code == "bad_input"
    assert pixels.statistics().faults == 0


def test_bytes_that_break_their_parser_are_to_blame(pixels: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(Preprocessor, "decode", fail)

    with pytest.raises(BadInput, match="unpack requires a buffer"):
        pixels.infer({"image": b"no picture"})


@pytest.mark.parametrize(
    "fault", [RuntimeError("device lost"), EngineFault("run", "device lost")]
)
def test_an_engine_that_fails_is_to_blame_whoever_asks(pixels: Model, faults: Faults, fault: Exception) -> None:
    pixels.infer(question())
    faults.at_run = fault
    feeds = pixels.predictor.preprocess(question())

    for ask, given in (
        (pixels.infer, question()), (pixels.infer_batch, question()), (pixels.infer_tensors, question()),
        (pixels.infer_tensors, feeds), (pixels.run_canonical, feeds),
    ):  # fmt: skip
        with pytest.raises(EngineFault, match="device lost") as caught:
            ask(given)

        assert caught.value.code == ENGINE_FAILED
    faults.at_run = None
    assert pixels.infer(question())
    counted = pixels.statistics()
    assert (counted.success, counted.failed, counted.faults) == (2, 5, 5)


def test_memory_that_runs_out_while_a_question_is_prepared_is_a_reason_of_its_own(
    pixels: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Preprocessor, "decode", fail)

    for ask in (pixels.infer, pixels.infer_batch, pixels.infer_tensors):
        with pytest.raises(InferenceError, match="not enough memory") as caught:
            ask({"image": picture(2).tolist()})  # type: ignore[arg-type]
        assert caught.value.code == MEMORY


def test_leased_buffers_blame_whom_every_other_call_blames(pixels: Model, faults: Faults) -> None:
    too_many = {"image": np.zeros((3, 2, 2, 1), np.uint8)}
    with pixels.lease() as buffers:
        for inputs in ({"image": b"no picture"}, {"picture": picture(2)}, too_many, 7):
            with pytest.raises(BadInput):
                buffers.fill(inputs)  # type: ignore[arg-type]
        buffers.fill(question())
        for fault, code in ((RuntimeError("lost"), ENGINE_FAILED), (MemoryError(), MEMORY)):
            faults.at_run = fault
            with pytest.raises(InferenceError) as caught:
                buffers.run()
            assert caught.value.code == code
        faults.at_run = None
        assert buffers.run()
    counted = pixels.statistics()
    assert (counted.success, counted.failed, counted.faults) == (1, 2, 2)


def test_tensors_of_a_name_that_the_file_does_not_have_are_the_callers_fault(pixels: Model) -> None:
    with pytest.raises(BadInput, match="nothing"):
        pixels.run_canonical({"nothing": np.zeros((1, 1, 2, 2), np.float32)})

    assert pixels.statistics().faults == 0


def test_memory_that_runs_out_in_the_engine_is_a_reason_of_its_own(pixels: Model, faults: Faults) -> None:
    faults.at_run = MemoryError()

    with pytest.raises(InferenceError) as caught:
        pixels.infer(question())

    assert caught.value.code == MEMORY
    assert not isinstance(caught.value, BadInput | EngineFault)


def test_more_rows_than_the_file_takes_never_look_like_a_failing_engine_however_often_they_are_sent(
    tmp_path: Path,
) -> None:
    file = onnx.load_from_string(probe_onnx())
    for tensor in (*file.graph.input, *file.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    release = write_model(tmp_path / "r", file.SerializeToString(), name="probe", takes=SHAPE[1:], gives=[3])

    with Model.open(release) as model:
        for _ in range(2):
            for ask in (model.infer_batch, model.infer_tensors):
                with pytest.raises(BadInput, match="its file takes"):
                    ask({"x": np.repeat(probe_input(), 2, axis=0)})
        assert model.infer({"x": probe_input()})


@pytest.mark.parametrize("blame", [blame_question, blame_engine])
def test_an_error_with_a_code_of_its_own_stays_what_it_is(blame) -> None:
    refusal = DeadlinePassed()

    with pytest.raises(DeadlinePassed) as raised:
        blame(refusal)

    assert raised.value is refusal


@pytest.mark.parametrize("blame", [blame_question, blame_engine])
def test_an_interruption_is_nobodys_fault(blame) -> None:
    with pytest.raises(KeyboardInterrupt):
        blame(KeyboardInterrupt())


def test_what_breaks_the_contract_is_blamed_by_where_it_happened() -> None:
    with pytest.raises(BadInput, match="cannot x: y"):
        blame_question(ContractError("x", "y"))
    with pytest.raises(EngineFault, match="cannot x: y"):
        blame_engine(ContractError("x", "y"))
