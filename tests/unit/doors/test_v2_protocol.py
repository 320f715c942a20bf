"""What both doors of the protocol read from a request and say in an answer."""

import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError, EdgeError, InferenceError
from edge_runtime.contract.ids import VariantId
from edge_runtime.doors.v2.problems import Status, retry_after_s, status_of
from edge_runtime.doors.v2.protocol import Schedule, Wish, call_of, classified, outputs_of, read_schedule, read_wish
from edge_runtime.doors.v2.regions import RegionRange
from edge_runtime.inference.streams import SESSION_ENDED, SESSION_IN_USE, SESSIONS_FULL
from edge_runtime.serving.calls import BadCall, Reply, SequenceStep, UnknownVersion


def test_a_request_without_parameters_waits_for_nothing() -> None:
    assert read_schedule({}, 5.0) == Schedule(None, 0, None)


def test_a_timeout_in_microseconds_becomes_a_deadline() -> None:
    assert read_schedule({"timeout": 250_000}, 5.0).deadline == 5.25


def test_a_lower_level_is_more_urgent_and_no_level_stands_between() -> None:
    urgent, silent, patient = (read_schedule(level, 0.0).priority for level in ({"priority": 1}, {}, {"priority": 20}))

    assert urgent > silent > patient


def test_a_sequence_is_named_by_a_number_or_a_text() -> None:
    numbered = read_schedule({"sequence_id": 7, "sequence_start": True}, 0.0)
    named = read_schedule({"sequence_id": "camera", "sequence_end": True}, 0.0)

    assert numbered.sequence == SequenceStep(7, start=True)
    assert named.sequence == SequenceStep("camera", end=True)


@pytest.mark.parametrize("nobody", [0, ""])
def test_sequence_zero_is_no_sequence(nobody: object) -> None:
    assert read_schedule({"sequence_id": nobody, "sequence_start": True}, 0.0).sequence is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"timeout": -1},
        {"timeout": 1.5},
        {"timeout": True},
        {"timeout": 1 << 60},
        {"priority": "high"},
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_id": "x" * 257},
        {"sequence_id": 1, "sequence_start": 1},
    ],
)
def test_an_impossible_parameter_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(BadCall):
        read_schedule(parameters, 0.0)


def test_parameters_that_nobody_here_knows_are_left_alone() -> None:
    assert read_schedule({"my_tag": "x"}, 0.0) == Schedule()


def test_an_output_goes_to_shared_memory_or_becomes_classes() -> None:
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 16}

    assert read_wish("y", region) == Wish("y", 0, RegionRange("r", 0, 16))
    assert read_wish("y", {"classification": 3}) == Wish("y", 3)
    with pytest.raises(BadCall, match="one of both"):
        read_wish("y", {"classification": 3, **region})


def test_an_output_is_asked_for_once() -> None:
    with pytest.raises(BadCall, match="twice"):
        call_of({}, (Wish("y"), Wish("y")), Schedule())


def test_without_a_wish_the_reply_is_given_as_it_is() -> None:
    reply = Reply({"scores": np.zeros((2, 3), np.float32), "classes": [b"{}", b"{}"]}, "m", "1", VariantId("v"))

    assert [(one.name, one.datatype, one.shape) for one in outputs_of(reply, ())] == [
        ("scores", "FP32", (2, 3)),
        ("classes", "BYTES", (2,)),
    ]


def test_outputs_come_in_the_order_in_which_they_were_asked_for() -> None:
    reply = Reply({"a": np.zeros(1), "b": np.ones(1, np.int64)}, "m", "1", VariantId("v"))

    assert [one.name for one in outputs_of(reply, (Wish("b"), Wish("a")))] == ["b", "a"]


def test_the_best_classes_of_each_row_come_as_score_and_index() -> None:
    scores = np.array([[0.1, 0.5, 0.4], [2.0, 1.0, 2.0]], np.float32)

    found = classified("scores", scores, 2)

    assert (found.datatype, found.shape) == ("BYTES", (2, 2))
    assert found.values == [b"0.500000:1", b"0.400000:2", b"2.000000:0", b"2.000000:2"]


def test_classes_are_called_as_the_release_calls_them() -> None:
    found = classified("scores", np.array([0.0, 2.0, 1.0]), 3, ("zero", "one"))

    assert found.values == [b"2.000000:1:one", b"1.000000:2", b"0.000000:0:zero"]


def test_more_classes_than_there_are_gives_all() -> None:
    assert classified("scores", np.array([1, 2]), 10).shape == (2,)


@pytest.mark.parametrize("values", [[b"text"], np.zeros((0, 3))])
def test_what_holds_no_numbers_has_no_classes(values: object) -> None:
    with pytest.raises(BadCall, match="no numbers"):
        classified("scores", values, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadCall("a", "b"), Status(400, "INVALID_ARGUMENT")),
        (UnknownVersion("a", "b"), Status(404, "NOT_FOUND")),
        (InferenceError("a", "b", code="deadline"), Status(504, "DEADLINE_EXCEEDED")),
        (InferenceError("a", "b", code="overloaded"), Status(503, "RESOURCE_EXHAUSTED")),
        (InferenceError("a", "b", code=SESSIONS_FULL), Status(503, "RESOURCE_EXHAUSTED")),
        (InferenceError("a", "b", code=SESSION_IN_USE), Status(400, "FAILED_PRECONDITION")),
        (InferenceError("a", "b", code=SESSION_ENDED), Status(400, "FAILED_PRECONDITION")),
        (ContractError("a", "b", code="never heard of"), Status(400, "INVALID_ARGUMENT")),
        (InferenceError("a", "b", code="load_failed"), Status(500, "INTERNAL")),
    ],
)
def test_every_error_has_its_status_at_both_doors(error: EdgeError, status: Status) -> None:
    assert status_of(error) == status


def test_whoever_is_refused_for_now_is_told_when_to_come_again() -> None:
    assert retry_after_s(InferenceError("a", "b", code="overloaded")) == 1.0
    assert retry_after_s(BadCall("a", "b")) is None
