"""Models in a host: asked by name and version, with arrays and with pictures, swapped while they are asked."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from edge_runtime.contract import reasons
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Inputs, Preprocessor
from edge_runtime.serving.calls import BYTES, Call, Reply, TensorMeta, UnknownModel, UnknownVersion
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.seating import ServedState
from edge_runtime.serving.statistics import Spent
from tests.fakes.pixels import picture
from tests.unit.serving.releases import about, brightest, plain, png


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("first"), "1.0.0")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("second"), "2.0.0", 1.001)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("wrong"), "3.0.0", -1.0)


@pytest.fixture
def host() -> Iterator[ModelHost]:
    with ModelHost() as host:
        yield host


def test_a_model_says_what_it_takes_and_gives(host: ModelHost, first: Path) -> None:
    served = host.load(first)

    assert (served.name, served.version, served.state) == ("pixels", "1.0.0", ServedState.READY)
    assert served.inputs == (TensorMeta("image", "uint8", (-1, 2, 2, 1)),)
    assert served.outputs == (TensorMeta("logits", "float32", (-1, 4)), TensorMeta("classes", BYTES, (-1,)))


def test_arrays_pictures_and_prepared_tensors_get_the_same_answer(host: ModelHost, first: Path) -> None:
    served = host.load(first)
    prepared = (picture(2).reshape(1, 1, 2, 2) / 255.0).astype(np.float32)

    replies = [served.call(call) for call in (about(2), Call({"image": [png(2)]}), Call({"x": prepared}))]

    assert [brightest(reply) for reply in replies] == [2, 2, 2]
    assert {(reply.model, reply.version) for reply in replies} == {("pixels", "1.0.0")}


def test_each_encoded_picture_gets_its_row_and_its_public_answer(host: ModelHost, first: Path) -> None:
    served = host.load(first)

    reply = served.call(Call({"image": [png(3), png(0), png(1)]}, ("logits", "classes")))

    logits, classes = reply.tensors["logits"], reply.tensors["classes"]
    assert isinstance(classes, list)
    assert not isinstance(logits, list)
    assert logits.argmax(axis=1).tolist() == [3, 0, 1]
    assert [json.loads(one)[0]["label"] for one in classes] == ["three", "zero", "one"]


def test_the_pictures_of_one_call_are_never_all_in_memory(
    host: ModelHost, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = host.load(first)
    decode = Preprocessor.decode
    decoded: list[weakref.ref[np.ndarray]] = []
    most_alive = 0

    def watched(self: Preprocessor, inputs: Inputs) -> dict[str, np.ndarray]:
        nonlocal most_alive
        found = decode(self, inputs)
        decoded.append(weakref.ref(found["image"]))
        most_alive = max(most_alive, sum(one() is not None for one in decoded))
        return found

    monkeypatch.setattr(Preprocessor, "decode", watched)
    reply = served.call(Call({"image": [png(number % 4) for number in range(8)]}, ("classes",)))

    assert len(reply.tensors["classes"]) == len(decoded) == 8
    assert most_alive <= 2


@pytest.mark.parametrize(
    "call",
    [
        Call({"picture": picture(1)[None]}),
        Call({"image": picture(1)[None].astype(np.float32)}),
        Call({"image": [b"no picture"]}),
        Call({"image": []}),
        Call({"image": [png(1)]}, ("nothing",)),
        Call({"x": [png(1)]}),
    ],
    ids=["name", "dtype", "bytes", "nothing", "output", "encoded tensor"],
)
def test_a_bad_call_is_refused_as_such_and_harms_nobody(host: ModelHost, first: Path, call: Call) -> None:
    served = host.load(first)

    with pytest.raises(BadInput):
        served.call(call)

    assert brightest(served.call(about(1))) == 1
    statistics = served.statistics()
    assert (statistics.success.count, statistics.fail.count, statistics.faults) == (1, 1, 0)
    assert statistics.bad_input == 1


def test_only_the_time_of_answered_calls_is_told_beside_their_number(host: ModelHost, first: Path) -> None:
    served = host.load(first)
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()

    served.submit(Call({}), outcomes.put)
    refusal = outcomes.get(timeout=30)
    refused = served.statistics()
    served.submit(about(3), outcomes.put)
    outcomes.get(timeout=30)
    answered = served.statistics()

    assert isinstance(refusal, BadInput)
    assert (refused.success, refused.queue) == (Spent(), Spent())
    assert (refused.fail.count, refused.fail.ns > 0) == (1, True)
    steps = answered.queue.ns + answered.compute_infer.ns
    assert (answered.success.count, answered.queue.count) == (1, 1)
    assert 0 < answered.queue.ns < steps <= answered.success.ns
    assert answered.fail == refused.fail


def test_models_and_versions_that_are_not_served_are_named(host: ModelHost, first: Path) -> None:
    host.load(first)

    with pytest.raises(UnknownModel, match="cannot ask model 'faces'"):
        host.find("faces")
    with pytest.raises(UnknownVersion, match=r"served are 1\.0\.0"):
        host.find("pixels", "9")
    assert host.find("pixels", "1.0.0").version == "1.0.0"


def test_a_name_follows_a_swap_and_the_old_version_is_gone(host: ModelHost, first: Path, second: Path) -> None:
    pinned, by_name = host.load(first), host.find("pixels")

    host.swap(second)

    assert by_name.call(about(1)).version == "2.0.0"
    assert [one.version for one in host.models()] == ["2.0.0"]
    with pytest.raises(UnknownVersion):
        pinned.call(about(1))


def test_a_swap_replaces_what_is_served_and_loads_nothing_beside_it(
    host: ModelHost, first: Path, second: Path
) -> None:
    host.load(first, name="things")

    with pytest.raises(UnknownModel, match="swap model 'pixels': served are things; load it, or say with name="):
        host.swap(second)

    assert [(one.name, one.version) for one in host.models()] == [("things", "1.0.0")]


def test_a_release_that_fails_its_golden_set_replaces_nothing(host: ModelHost, first: Path, wrong: Path) -> None:
    served = host.load(first)

    with pytest.raises(InferenceError) as refusal:
        host.swap(wrong)

    assert refusal.value.code == reasons.GOLDEN_FAILED
    assert served.call(about(1)).version == "1.0.0"


def test_a_release_that_breaks_at_its_golden_set_is_refused_with_a_reason(
    host: ModelHost, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = host.load(first)

    def fail(*_: object) -> None:
        raise ValueError("no class")

    with monkeypatch.context() as broken:
        broken.setattr(Predictor, "interpret", fail)
        with pytest.raises(InferenceError, match=r"breaks at its golden set \(ValueError") as refusal:
            host.swap(second)

    assert refusal.value.code == reasons.LOAD_FAILED
    assert brightest(served.call(about(1))) == 1


def test_a_version_loaded_beside_answers_when_it_is_asked_for(host: ModelHost, first: Path, second: Path) -> None:
    host.load(first)
    host.load(second)

    versions = [host.find("pixels", version).call(about(0)).version for version in (None, "1.0.0", "2.0.0")]

    assert versions == ["1.0.0", "1.0.0", "2.0.0"]


def test_unloading_a_name_ends_all_its_versions(host: ModelHost, first: Path, second: Path) -> None:
    host.load(first)
    host.load(second)

    host.unload("pixels")

    assert host.models() == ()
    with pytest.raises(UnknownModel):
        host.find("pixels")


def test_a_call_whose_deadline_has_passed_is_refused(host: ModelHost, first: Path) -> None:
    served = host.load(first)

    with pytest.raises(InferenceError) as refusal:
        served.call(Call({"image": picture(1)[None]}, deadline=0.0))

    assert refusal.value.code == "deadline"


def test_a_submitted_call_tells_its_outcome_once_whatever_it_is(host: ModelHost, first: Path) -> None:
    served = host.load(first)
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()

    served.submit(about(3), outcomes.put)
    answered = outcomes.get(timeout=60)
    served.submit(Call({"image": [b"no picture"]}), outcomes.put)
    refused = outcomes.get(timeout=60)

    assert isinstance(answered, Reply)
    assert brightest(answered) == 3
    assert isinstance(refused, BadInput)
    assert outcomes.empty()


def test_of_two_who_unload_the_same_model_the_later_is_told_that_it_is_gone(host: ModelHost, first: Path) -> None:
    host.load(first)
    tables = host._changing

    class Overtaken:
        """The other one has its turn first."""

        def __enter__(self) -> None:
            host._changing = tables
            host.unload("pixels")
            tables.acquire()

        def __exit__(self, *_: object) -> None:
            tables.release()

    host._changing = Overtaken()  # type: ignore[assignment]

    with pytest.raises(UnknownModel):
        host.unload("pixels")
