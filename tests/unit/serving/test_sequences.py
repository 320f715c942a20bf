"""Sequences through a host: each is alone with the model, whatever others do, and a swap does as the release says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.serving import caretaker
from edge_runtime.serving.calls import BadCall, Call, Reply, SequenceStep, TensorMeta
from edge_runtime.serving.events import Event, Happened
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.served import Served
from tests.fakes.streams import FRAME, Hearing, noise

Sound = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vad")
    Hearing().write(folder)
    return folder


@pytest.fixture
def host() -> Iterator[ModelHost]:
    with ModelHost() as host:
        yield host


def step(served: Served, name: int | str, sound: Sound, *, start: bool = False, end: bool = False) -> Reply:
    return served.call(Call({"audio": sound}, sequence=SequenceStep(name, start, end)))


def scores(replies: list[Reply]) -> Sound:
    return np.concatenate([np.asarray(reply.tensors["output"]) for reply in replies])


def pieces(sound: Sound, count: int) -> list[Sound]:
    return np.array_split(sound, count)


def whole(served: Served, name: int | str, parts: list[Sound]) -> Sound:
    """A sequence from start to end, without anybody between."""
    last = len(parts) - 1
    return scores([step(served, name, part, start=turn == 0, end=turn == last) for turn, part in enumerate(parts)])


def test_a_model_that_remembers_shows_no_states(host: ModelHost, release: Path) -> None:
    served = host.load(release)

    assert served.inputs == (TensorMeta("audio", "float32", (-1,)),)
    assert [meta.name for meta in served.outputs] == ["output", "segments", "speech"]


def test_eight_interleaved_sequences_equal_eight_serial_ones(host: ModelHost, release: Path) -> None:
    served = host.load(release)
    sounds = [pieces(noise(0.4, seed=seed), 7) for seed in range(8)]
    serial = [whole(served, "alone", parts) for parts in sounds]

    replies: list[list[Reply]] = [[] for _ in sounds]
    for turn in range(7):
        for name, parts in enumerate(sounds):
            replies[name].append(step(served, name, parts[turn], start=turn == 0, end=turn == 6))

    for interleaved, expected in zip(replies, serial, strict=True):
        np.testing.assert_array_equal(scores(interleaved), expected)


def test_eight_sequences_on_eight_threads_equal_eight_serial_ones(host: ModelHost, release: Path) -> None:
    served = host.load(release)
    sounds = [pieces(noise(0.4, seed=seed), 7) for seed in range(8)]
    serial = [whole(served, "alone", parts) for parts in sounds]
    heard: dict[int, Sound] = {}

    def client(name: int) -> None:
        heard[name] = whole(served, name, sounds[name])

    threads = [threading.Thread(target=client, args=[name]) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    for name, expected in enumerate(serial):
        np.testing.assert_array_equal(heard[name], expected)


def test_public_outputs_of_a_sequence_are_one_document_for_each_piece(host: ModelHost, release: Path) -> None:
    served = host.load(release)
    sound = noise(0.5)
    first = Call({"audio": sound}, ("segments",), sequence=SequenceStep(1, start=True))
    last = Call({"audio": sound[:FRAME]}, ("segments",), sequence=SequenceStep(1, end=True))

    replies = [served.call(first), served.call(last)]

    documents = [reply.tensors["segments"] for reply in replies]
    assert [len(one) for one in documents] == [1, 2]
    assert all(json.loads(text) is not None for one in documents for text in one)  # type: ignore[arg-type]


def test_a_sequence_that_was_not_started_or_has_ended_is_refused(host: ModelHost, release: Path) -> None:
    served = host.load(release)
    sound = noise(0.1)
    whole(served, 7, pieces(sound, 2))

    for name in (7, 8):
        with pytest.raises(BadCall, match="not started here"):
            step(served, name, sound)


def test_starting_a_sequence_again_forgets_what_it_heard(host: ModelHost, release: Path) -> None:
    served = host.load(release)
    parts = pieces(noise(0.2), 2)
    expected = whole(served, 1, parts)

    step(served, 2, noise(0.3, seed=9), start=True)

    np.testing.assert_array_equal(whole(served, 2, parts), expected)


def test_more_sequences_than_the_release_allows_are_refused(host: ModelHost, tmp_path: Path) -> None:
    Hearing().streaming(max_sessions=2).write(tmp_path)
    served = host.load(tmp_path)
    for name in range(2):
        step(served, name, noise(0.1), start=True)

    with pytest.raises(InferenceError) as refusal:
        step(served, 2, noise(0.1), start=True)

    assert refusal.value.code == "sessions_full"


def test_sequences_stay_with_their_version_until_they_end(release: Path, tmp_path: Path) -> None:
    Hearing(version="2.0.0").write(tmp_path)
    events: list[Event] = []
    is_unloaded = threading.Event()

    def listen(event: Event) -> None:
        events.append(event)
        if event.what is Happened.UNLOADED:
            is_unloaded.set()

    with ModelHost(on_event=listen) as host:
        expected = whole(host.load(release), 1, pieces(noise(0.4), 4))
        served = host.find("vad")
        parts = pieces(noise(0.4), 4)
        replies = [step(served, "old", parts[0], start=True)]

        host.swap(tmp_path)
        replies.extend(step(served, "old", part) for part in parts[1:3])
        fresh = step(served, "new", parts[0], start=True)
        replies.append(step(served, "old", parts[3], end=True))

        assert {reply.version for reply in replies} == {"1.0.0"}
        assert fresh.version == "2.0.0"
        np.testing.assert_array_equal(scores(replies), expected)
        assert is_unloaded.wait(60)
        assert [event.version for event in events if event.what is Happened.UNLOADED] == ["1.0.0"]


def test_sequences_begin_anew_on_the_new_version_where_the_release_says_so(host: ModelHost, tmp_path: Path) -> None:
    for version in ("1.0.0", "2.0.0"):
        Hearing(version=version).streaming(on_swap="reset").write(tmp_path / version)
    host.load(tmp_path / "1.0.0")
    served = host.find("vad")
    parts = pieces(noise(0.4), 2)
    step(served, 1, parts[0], start=True)

    host.swap(tmp_path / "2.0.0")
    reply = step(served, 1, parts[1], end=True)

    assert reply.version == "2.0.0"
    np.testing.assert_array_equal(scores([reply]), whole(served, 2, [parts[1]]))


def test_a_model_with_open_sequences_does_not_leave_memory(release: Path) -> None:
    size = model_file(release).stat().st_size
    with ModelHost(3 * size) as host:
        served = host.load(release)
        step(served, 1, noise(0.1), start=True)

        with pytest.raises(InferenceError) as refusal:
            host.load(release, name="other")
        step(served, 1, noise(0.1), end=True)
        other = host.load(release, name="other")

        assert refusal.value.code == "memory"
        assert (served.variant, other.variant) == (None, "ort-fp32")


def model_file(release: Path) -> Path:
    return LayoutFolder(release).path_of(Hearing().variant().files[0].digest)


def test_a_sequence_whose_client_is_gone_does_not_keep_a_replaced_version_for_ever(
    release: Path, tmp_path: Path
) -> None:
    Hearing(version="2.0.0").write(tmp_path)
    is_unloaded = threading.Event()

    def listen(event: Event) -> None:
        if event.what is Happened.UNLOADED:
            is_unloaded.set()

    with ModelHost(on_event=listen, drain_s=0.0) as host:
        host.load(release)
        step(host.find("vad"), 1, noise(0.1), start=True)

        host.swap(tmp_path)

        assert is_unloaded.wait(60)
        with pytest.raises(BadCall):
            step(host.find("vad"), 1, noise(0.1))


def test_one_look_after_another_waits_for_replaced_versions_however_many_swaps_there_were(
    release: Path, tmp_path: Path
) -> None:
    with ModelHost() as host:
        host.load(release)
        step(host.find("vad"), 1, noise(0.1), start=True)
        for number in range(2, 6):
            Hearing(version=f"{number}.0.0").write(tmp_path / str(number))
            host.swap(tmp_path / str(number))
            step(host.find("vad"), number, noise(0.1), start=True)

        looks = [one for one in caretaker._CLOCK._due if one[3] is host._keeper.caretaker]

        assert len(looks) == 1
