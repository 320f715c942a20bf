"""States on their way from one call to the next: as they came, or stored otherwise."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.release import StateSpec, StreamSpec, TensorBinding
from edge_runtime.contract.steps import parse_preprocess
from edge_runtime.inference.backend import TensorInfo, as_fed
from edge_runtime.inference.states import Memory, compile_rules, compile_states
from tests.fakes.streams import Hearing

HEARING = Hearing()
STEPS = {name: parse_preprocess(steps) for name, steps in HEARING.release().preprocess.items()}


def memory_of(enters: TensorBinding, leaves: TensorBinding) -> Memory:
    variant = HEARING.variant()
    io = msgspec.structs.replace(
        variant.io,
        inputs={**variant.io.inputs, "state": enters},
        outputs={**variant.io.outputs, "stateN": leaves},
    )
    return Memory(compile_states(HEARING.release(), STEPS, msgspec.structs.replace(variant, io=io)))


def stored(scale: float, zero_point: int) -> TensorBinding:
    return TensorBinding(tensor="s", dtype="int8", scale=scale, zero_point=zero_point)


def test_a_state_goes_back_as_the_very_array_that_came() -> None:
    memory = memory_of(*[TensorBinding(tensor="s", dtype="float32")] * 2)
    came = np.full((1, 1, 3), 0.5, np.float32)

    rest = memory.keep({"stateN": came, "output": np.ones((1, 1))})

    assert rest.keys() == {"output"}
    assert memory.tensors["state"] is came
    memory.reset()
    assert not memory.tensors["state"].any()


def test_a_quantised_state_begins_with_its_zero_point_and_keeps_its_real_value() -> None:
    memory = memory_of(stored(0.02, 5), stored(0.01, -3))

    assert memory.tensors["state"].tolist() == [[[5, 5, 5]]]
    memory.keep({"stateN": np.asarray([[[97, -3, -128]]], np.int8)})

    # 97 is 1.00, -128 is -1.25.
    assert memory.tensors["state"].tolist() == [[[55, 5, round(-1.25 / 0.02) + 5]]]
    assert memory.tensors["state"].dtype == np.int8


def test_a_quantised_state_that_is_stored_alike_at_both_ends_is_not_touched() -> None:
    memory = memory_of(stored(0.01, -3), stored(0.01, -3))
    came = np.asarray([[[97, -3, -128]]], np.int8)

    memory.keep({"stateN": came})

    assert memory.tensors["state"] is came


def test_a_state_that_comes_back_in_another_shape_is_refused() -> None:
    memory = memory_of(*[TensorBinding(tensor="s", dtype="float32")] * 2)

    with pytest.raises(InferenceError, match=r"came back with shape \[1, 2, 3\], not \[1, 1, 3\]"):
        memory.keep({"stateN": np.zeros((1, 2, 3), np.float32)})


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        ({"in_": None}, ContractError, "does not say in, out and dtype"),
        ({"in_": None, "of_step": "decode"}, ContractError, "no frame step of id 'decode'"),
        ({"shape": [1 << 20, "N", 64]}, ContractError, "numbers, over"),
        ({"shape": [1, "N", 0]}, UnsupportedFeature, "only the batch axis N may vary"),
        ({"dtype": "float16"}, ContractError, "leaves as float32 and enters as float32"),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(state, kind, reason) -> None:
    (spec, *_) = HEARING.release().states
    release = msgspec.structs.replace(HEARING.release(), states=[msgspec.structs.replace(spec, **state)])

    with pytest.raises(kind, match=reason):
        compile_states(release, STEPS, HEARING.variant())


def test_two_states_do_not_share_a_tensor() -> None:
    (spec, *_) = HEARING.release().states
    twin = StateSpec(name="twin", in_="other", out=spec.out, dtype="float32", shape=spec.shape, init="zeros")
    release = msgspec.structs.replace(HEARING.release(), states=[spec, twin])

    with pytest.raises(ContractError, match="share a tensor"):
        compile_states(release, STEPS)


def test_states_without_a_stream_count_frames_where_there_are_frames() -> None:
    release = msgspec.structs.replace(HEARING.release(), stream=None)

    framed, rows = compile_rules(release, STEPS), compile_rules(release, {"input": ()})

    assert framed is not None
    assert rows is not None
    assert (framed.unit, rows.unit, framed.idle_s, framed.max_sessions) == ("frame", "row", None, 64)


def test_frames_that_nothing_makes_are_refused() -> None:
    release = msgspec.structs.replace(HEARING.release(), stream=StreamSpec(unit="frame", session="required"))

    with pytest.raises(ContractError, match="no step makes any"):
        compile_rules(release, {"input": ()})


def test_a_scalar_reaches_the_engine_as_a_scalar() -> None:
    fed = as_fed({"sr": np.asarray(16000)}, (TensorInfo("sr", "int64", ()),))

    assert fed["sr"].shape == ()
