"""What every client of ours promises, whatever it speaks: one suite, through each door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.client import BadRequest, Client, ModelNotServed, Refused, Step, TooLate, connect
from edge_runtime.doors.door import Listen
from edge_runtime.doors.serve import ServePlan, serving
from tests.fakes.pixels import picture, write_pixels
from tests.fakes.streams import Hearing, noise

TURNS = 5


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("served")
    write_pixels(folder / "pixels", "1.0.0")
    Hearing().write(folder / "vad")
    plan = ServePlan(
        (folder / "pixels", folder / "vad"), http=Listen("127.0.0.1", 0), uds=folder / "models.sock"
    )
    with serving(plan) as running:
        by_kind = {door.kind: door.address for door in running.doors}
        yield {
            "unix": by_kind["local"],
            "unix-stream": by_kind["local"].replace("unix:", "unix-stream:"),
            "http": by_kind["v2 HTTP"],
        }


@pytest.fixture(params=["unix", "unix-stream", "http"])
def client(request: pytest.FixtureRequest, addresses: dict[str, str]) -> Iterator[Client]:
    with connect(addresses[request.param]) as client:
        yield client


def array(values: Any) -> npt.NDArray[Any]:
    assert isinstance(values, np.ndarray)
    return values


@pytest.mark.parametrize("outputs", [None, ["logits"], ["classes"], ["classes", "logits"]])
def test_outputs_come_as_they_were_asked_for(client: Client, outputs: list[str] | None) -> None:
    answer = client.infer("pixels", {"image": picture(2)[None]}, outputs)

    assert list(answer.tensors) == (outputs or ["logits"])
    for name, values in answer.tensors.items():
        assert isinstance(values, list) == (name == "classes")


def test_outputs_that_are_one_text_are_refused_as_such(client: Client) -> None:
    with pytest.raises(BadRequest, match=r"give a list: \['classes'\]"):
        client.infer("pixels", {"image": picture(2)[None]}, outputs="classes")


@pytest.mark.parametrize("brightest", range(4))
def test_the_answer_is_the_models(client: Client, brightest: int) -> None:
    answer = client.infer("pixels", {"image": picture(brightest)[None]})

    assert array(answer["logits"]).argmax() == brightest
    assert array(answer["logits"]).dtype == np.float32


def test_a_batch_is_answered_in_order(client: Client) -> None:
    batch = np.stack([picture(brightest) for brightest in (3, 1, 2, 0, 3)])

    answer = client.infer("pixels", {"image": batch}, ["logits", "classes"])

    assert array(answer["logits"]).argmax(axis=1).tolist() == [3, 1, 2, 0, 3]
    assert len(answer["classes"]) == 5


def test_a_model_tells_what_it_takes(client: Client) -> None:
    described = client.describe("pixels")

    assert (described.name, described.version) == ("pixels", "1.0.0")
    assert [(one.name, one.dtype, one.shape) for one in described.inputs] == [("image", "uint8", (-1, 2, 2, 1))]
    assert [(one.name, one.dtype) for one in described.outputs] == [("logits", "float32"), ("classes", "bytes")]


@pytest.mark.parametrize(
    ("model", "inputs", "error"),
    [
        ("dogs", {"image": picture(0)[None]}, ModelNotServed),
        ("pixels", {"image": picture(0)[None].astype(np.float32)}, BadRequest),
        ("pixels", {"image": picture(0)[None, :1]}, BadRequest),
        ("pixels", {"image": [b"no picture"]}, BadRequest),
        ("pixels", {"picture": picture(0)[None]}, BadRequest),
        ("pixels", {}, BadRequest),
    ],
)
def test_what_is_wrong_has_a_type(client: Client, model: str, inputs: Any, error: type[Refused]) -> None:
    with pytest.raises(error, match=r"^cannot "):
        client.infer(model, inputs)

    assert client.infer("pixels", {"image": picture(0)[None]}).model == "pixels"


def test_an_unknown_output_is_named(client: Client) -> None:
    with pytest.raises(BadRequest, match="nonsense"):
        client.infer("pixels", {"image": picture(0)[None]}, ["nonsense"])


def test_a_deadline_that_cannot_be_kept_is_told(client: Client) -> None:
    with pytest.raises(TooLate):
        client.infer("pixels", {"image": picture(0)[None]}, deadline_s=1e-6)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan")])
def test_a_deadline_that_is_no_time_to_come_is_too_late(client: Client, deadline_s: float) -> None:
    with pytest.raises(TooLate):
        client.infer("pixels", {"image": picture(0)[None]}, deadline_s=deadline_s)


@pytest.mark.parametrize("deadline_s", [1e15, 1e300, float("inf")])
def test_a_deadline_beyond_every_life_is_none(client: Client, deadline_s: float) -> None:
    assert client.infer("pixels", {"image": picture(0)[None]}, deadline_s=deadline_s).model == "pixels"


def test_a_priority_that_no_message_holds_is_refused_and_the_client_goes_on(client: Client) -> None:
    asked = {"image": picture(0)[None]}
    for priority in (10**12, -(10**12), 1.0, 1.5, "high"):
        with pytest.raises(BadRequest) as refused:
            client.infer("pixels", asked, priority=priority)  # type: ignore[arg-type]
        told = f"cannot ask a model: priority is {priority!r}; use a whole number of 32 bits"
        assert (str(refused.value), refused.value.code) == (told, "bad_input")

    for priority in (-(1 << 31), (1 << 31) - 1, np.int8(3)):
        assert client.infer("pixels", asked, priority=priority).model == "pixels"


def heard(client: Client, name: str, parts: list[npt.NDArray[np.float32]], turn: int) -> npt.NDArray[Any]:
    step = Step(name, first=turn == 0, last=turn == TURNS - 1)
    return array(client.infer("vad", {"audio": parts[turn]}, ["output"], step=step)["output"])


def test_eight_interleaved_sequences_equal_eight_serial_ones(client: Client) -> None:
    sounds = [np.array_split(noise(0.3, seed=seed), TURNS) for seed in range(8)]
    serial = [np.concatenate([heard(client, "alone", parts, turn) for turn in range(TURNS)]) for parts in sounds]

    pieces: list[list[npt.NDArray[Any]]] = [[] for _ in sounds]
    for turn in range(TURNS):
        for place, parts in enumerate(sounds):
            pieces[place].append(heard(client, f"stream {place}", parts, turn))

    for interleaved, expected in zip(pieces, serial, strict=True):
        np.testing.assert_array_equal(np.concatenate(interleaved), expected)


def test_a_sequence_that_nobody_started_is_refused(client: Client) -> None:
    with pytest.raises(Refused, match="not started"):
        client.infer("vad", {"audio": noise(0.1)}, step=Step("unheard of"))


def test_no_door_is_needed_that_nobody_asked_for(tmp_path: Path) -> None:
    write_pixels(tmp_path / "pixels", "1.0.0")
    with serving(ServePlan((tmp_path / "pixels",), uds=tmp_path / "s")) as running:
        assert [door.kind for door in running.doors] == ["local"]
