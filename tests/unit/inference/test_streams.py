"""Sessions: what a model remembers, how a stream may be cut, and who may go on with it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime import Model
from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.inference.postprocessing.rendering import as_json, as_text
from edge_runtime.inference.postprocessing.stream_results import Segments, Track
from edge_runtime.inference.requests.refusals import DeadlinePassed
from edge_runtime.inference.streams import Hearer, Sessions
from tests.fakes.streams import FRAME, RATE_HZ, Hearing, noise, remembering_model, silero

ONLY_ORT = ["onnxruntime"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vad")
    Hearing().write(folder)
    with Model.open(folder, backends=ONLY_ORT) as opened:
        yield opened


def heard(model: Model, sound: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, list]:
    """Scores and segments of a sound that is fed in pieces of these sizes, over and over."""
    scores, segments, position, turn = [], [], 0, 0
    with model.start_session() as session:
        while position < len(sound):
            size = sizes[turn % len(sizes)]
            answer = session.feed(sound[position : position + size])
            scores.append(answer["speech"].scores)
            segments.extend(answer["segments"].segments)
            position, turn = position + size, turn + 1
        answer = session.end()
        scores.append(answer["speech"].scores)
        segments.extend(answer["segments"].segments)
    return np.concatenate(scores), segments


def by_hand(sound: np.ndarray) -> np.ndarray:
    """Scores of the small model, computed with nothing of ours."""
    import onnxruntime as ort

    session = ort.InferenceSession(remembering_model(), providers=["CPUExecutionProvider"])
    state, before, scores = np.zeros((1, 1, 3), np.float32), np.zeros(4, np.float32), []
    padded = np.concatenate([sound, np.zeros(-len(sound) % FRAME, np.float32)])
    for start in range(0, len(padded), FRAME):
        frame = padded[start : start + FRAME]
        fed = {"input": np.concatenate([before, frame])[None], "state": state, "sr": np.int64(RATE_HZ)}
        score, state = session.run(["output", "stateN"], {name: np.asarray(one) for name, one in fed.items()})
        before = frame[-4:]
        scores.append(float(score[0, 0]))
    return np.asarray(scores)


def test_a_whole_sound_is_one_session_from_its_beginning_to_its_end(model) -> None:
    sound = noise(0.5)

    first, second = (model.infer({"audio": sound})["speech"] for _ in range(2))

    assert isinstance(first, Track)
    assert np.array_equal(first.scores, by_hand(sound))
    assert np.array_equal(second.scores, first.scores)
    assert (first.start_s, first.step_s) == (0.0, 0.008)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), count=st.integers(1, 300))
def test_however_a_stream_is_cut_its_answers_are_the_same(model, sizes, count) -> None:
    sound = noise(0.3)[:count]

    whole = model.infer({"audio": sound})
    scores, segments = heard(model, sound, sizes)

    assert np.array_equal(scores, whole["speech"].scores)
    assert tuple(segments) == whole["segments"].segments


def test_streams_that_take_turns_answer_as_if_each_was_alone(model) -> None:
    sounds = [noise(0.2, seed=seed) for seed in range(8)]
    serial = [model.infer({"audio": sound})["speech"].scores for sound in sounds]

    sessions = [model.start_session() for _ in sounds]
    found: list[list[np.ndarray]] = [[] for _ in sounds]
    for start in range(0, len(sounds[0]), 30):
        for number, (session, sound) in enumerate(zip(sessions, sounds, strict=True)):
            found[number].append(session.feed(sound[start : start + 30])["speech"].scores)
    for number, session in enumerate(sessions):
        found[number].append(session.end()["speech"].scores)

    for alone, pieces in zip(serial, found, strict=True):
        assert np.array_equal(np.concatenate(pieces), alone)
    assert len({tuple(one) for one in serial}) == len(sounds)


def test_sessions_on_different_threads_do_not_hear_each_other(model) -> None:
    sounds = [noise(0.4, seed=seed) for seed in range(8)]
    serial = [model.infer({"audio": sound})["speech"].scores for sound in sounds]
    found: dict[int, np.ndarray] = {}
    start = threading.Barrier(len(sounds))

    def listen(number: int) -> None:
        start.wait()
        found[number] = heard(model, sounds[number], [7])[0]

    threads = [threading.Thread(target=listen, args=(number,)) for number in range(len(sounds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number, alone in enumerate(serial):
        assert np.array_equal(found[number], alone)


def test_tensors_carry_the_state_from_call_to_call(model) -> None:
    sound = noise(0.2)
    padded = np.concatenate([np.zeros(4, np.float32), sound])
    frames = np.stack([padded[start : start + 12] for start in range(0, len(sound), FRAME)])

    with model.start_session() as session:
        rows = [session.infer_tensors({"input": frames[start : start + 3]})["output"] for start in range(0, 25, 3)]
    with model.start_session() as session:
        pieces = [session.infer_tensors({"audio": sound[:90]}), session.infer_tensors({"audio": sound[90:]}, last=True)]

    assert np.array_equal(np.concatenate(rows)[:, 0], by_hand(sound))
    assert np.array_equal(np.concatenate([one["output"] for one in pieces])[:, 0], by_hand(sound))
    assert pieces[0].keys() == {"output"}


@pytest.mark.parametrize("hearing", [Hearing(), Hearing(tail="drop"), Hearing(tail="reflect", context=0)])
def test_a_measurement_asks_for_one_step_of_a_stream(tmp_path, hearing) -> None:
    content = remembering_model() if hearing.context else remembering_model(width=FRAME)
    hearing.but(content=content).write(tmp_path)

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        step = model.predictor.first_step({"audio": noise(4.0)})
        outputs = model.predictor.run_decoded(step)

    assert outputs["output"].shape == (1, 1)


def test_a_piece_that_fills_no_frame_answers_nothing_yet(model) -> None:
    with model.start_session() as session:
        tensors = session.infer_tensors({"audio": noise(0.3)[:5]})
        answer = session.feed(noise(0.3)[:2])

    assert tensors["output"].shape == (0, 1)
    assert answer["speech"].scores.size == 0
    assert answer["segments"] == Segments((), None)


def test_a_session_that_ended_takes_no_more(model) -> None:
    session = model.start_session()
    session.feed(noise(0.1))
    session.end()

    for go_on in (lambda: session.feed(noise(0.1)), session.end, lambda: session.infer_tensors({"audio": noise(0.1)})):
        with pytest.raises(InferenceError, match="it was ended; start another session") as caught:
            go_on()
        assert caught.value.code == "session_ended"


def test_what_was_refused_before_it_was_heard_may_be_given_again(tmp_path) -> None:
    Hearing().write(tmp_path)
    sound, broken = noise(0.2), noise(0.2)
    broken[7] = np.nan

    with Model.open(tmp_path, backends=ONLY_ORT, nan="reject") as model, model.start_session() as session:
        with pytest.raises(InferenceError, match="NaN or an infinity"):
            session.feed(broken)
        with pytest.raises(DeadlinePassed):
            session.feed(sound, deadline=0.0)
        scores = session.feed(sound)["speech"].scores
        counted = model.statistics()

    assert np.array_equal(scores, by_hand(sound))
    assert (counted.success, counted.bad_input, counted.expired) == (1, 1, 1)


def test_a_session_takes_a_slot_of_its_model_while_it_hears(tmp_path) -> None:
    Hearing().write(tmp_path)
    inside, leave, busy = threading.Event(), threading.Event(), []

    with Model.open(tmp_path, backends=ONLY_ORT, concurrency=1) as model:
        session = model.start_session()
        held = threading.Thread(target=model.ask, args=(lambda _: (inside.set(), leave.wait(10)),))
        held.start()
        inside.wait(10)
        fed = threading.Thread(target=lambda: busy.append(session.feed(noise(0.1))))
        fed.start()
        while not model.admission.waiting:
            threading.Event().wait(0.001)
        waited = not busy
        leave.set()
        for thread in (held, fed):
            thread.join()

    assert waited
    assert len(busy) == 1


def test_two_callers_of_one_session_are_told_so(model) -> None:
    session = model.start_session()
    inside, leave = threading.Event(), threading.Event()
    run_once = session._run_once

    def slow(feeds):
        inside.set()
        leave.wait(10)
        return run_once(feeds)

    session._run_once = slow
    caller = threading.Thread(target=session.feed, args=(noise(0.1)[:8],))
    caller.start()
    inside.wait(10)

    with pytest.raises(InferenceError, match="another thread is using it") as caught:
        session.feed(noise(0.1))
    leave.set()
    caller.join()

    assert caught.value.code == "session_in_use"
    session.close()


def test_only_as_many_sessions_as_the_release_allows(tmp_path) -> None:
    Hearing().streaming(max_sessions=2, idle_ms=60000).write(tmp_path)

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        first, _ = model.start_session(), model.start_session()
        with pytest.raises(InferenceError, match="2 are open, as many as the release allows; end one, or wait") as full:
            model.start_session()
        first.end()
        model.start_session()

    assert full.value.code == "sessions_full"


def test_an_idle_session_is_forgotten_and_says_so(model) -> None:
    clock = [100.0]
    sequencer = model.predictor.sequencer
    hasty = type(sequencer)(
        sequencer.preprocess,
        type(sequencer.rules)("frame", None, 60.0, 1, "drain"),
        sequencer.states,
        sequencer.reader,
        sequencer.framing,
        sequencer.shapes,
    )
    heard_by = Hearer(hasty, model.predictor.run_once, dict)
    sessions = Sessions(heard_by, now=lambda: clock[0])

    left = sessions.start()
    clock[0] += 59
    left.feed(noise(0.1))
    clock[0] += 61
    sessions.start()

    assert sessions.count == 1
    with pytest.raises(InferenceError, match="nobody used it for 60 s"):
        left.feed(noise(0.1))


def test_after_a_gap_the_model_begins_anew(tmp_path) -> None:
    Hearing().streaming(reset=["session_start", "gap"], gap_ms=1000).write(tmp_path)
    before, after = noise(0.2, seed=1), noise(0.2, seed=2)

    with Model.open(tmp_path, backends=ONLY_ORT) as model, model.start_session() as session:
        alone = model.infer({"audio": after})["speech"].scores
        first = session.feed(before, at_s=10.0)["speech"]
        second = session.feed(after, at_s=10.2 + 0.9)["speech"]
        third = session.feed(after, at_s=20.0)["speech"]

    assert first.start_s == pytest.approx(10.0)
    assert second.start_s == pytest.approx(10.2)
    assert not np.array_equal(second.scores, alone)
    assert third.start_s == pytest.approx(20.0)
    assert np.array_equal(third.scores, alone)


def test_a_call_that_fails_ends_the_session_for_its_state_is_lost(model) -> None:
    session = model.start_session()
    session._run_once = lambda _: (_ for _ in ()).throw(InferenceError("run the model", "out of luck"))

    with pytest.raises(InferenceError, match="out of luck"):
        session.feed(noise(0.1))
    with pytest.raises(InferenceError, match="lost its place in the stream"):
        session.feed(noise(0.1))


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (np.zeros(8, np.int16), "int16, not float32"),
        (np.zeros((8, 2), np.float32), r"its shape is \[8, 2\]"),
        (b"\0", "not a complete WAVE file"),
    ],
)
def test_a_piece_that_is_no_sound_is_refused_and_the_session_goes_on(model, piece, reason) -> None:
    with model.start_session() as session:
        with pytest.raises(InferenceError, match=reason):
            session.feed(piece)
        scores = session.feed(noise(0.2))["speech"].scores

    assert np.array_equal(scores, by_hand(noise(0.2)))


def test_states_and_unknown_tensors_are_not_taken_from_callers(model) -> None:
    with model.start_session() as session, pytest.raises(InferenceError, match="no such input"):
        session.infer_tensors({"input": np.zeros((1, 12), np.float32), "state": np.zeros((1, 1, 3), np.float32)})


def test_a_sound_too_short_for_a_frame_has_no_answer_where_tails_are_dropped(tmp_path) -> None:
    Hearing(tail="drop").write(tmp_path)

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        with pytest.raises(InferenceError, match="it has 7 samples, one frame takes 8"):
            model.infer({"audio": noise(0.1)[:7]})
        assert model.infer({"audio": noise(0.1)[:15]})["speech"].scores.size == 1


@pytest.mark.parametrize(
    ("hearing", "kind", "reason"),
    [
        (Hearing(init="random"), UnsupportedFeature, "it begins with 'random'"),
        (Hearing(state=(1, "M", 3)), UnsupportedFeature, "only the batch axis N may vary"),
        (Hearing().streaming(unit="chunk"), UnsupportedFeature, "unit 'chunk'"),
        (Hearing().streaming(reset=["gap"]), ContractError, "a gap of no length"),
        (Hearing().streaming(max_sessions=0), ContractError, "no session at all"),
        (
            Hearing(hysteresis={**Hearing().hysteresis, "pad_ms": 9}),
            ContractError,
            "could overlap; make min_off_ms at least twice pad_ms",
        ),
        (Hearing(hysteresis={**Hearing().hysteresis, "off": 0.7}), ContractError, "begins at 0.6 and ends below 0.7"),
    ],
)
def test_a_release_whose_states_make_no_sense_is_refused_with_the_reason(tmp_path, hearing, kind, reason) -> None:
    hearing.write(tmp_path)

    with pytest.raises(InferenceError) as caught:
        Model.open(tmp_path, backends=ONLY_ORT)

    assert reason in str(caught.value)


def test_a_model_that_remembers_warms_up_and_lends_no_buffers(tmp_path) -> None:
    Hearing().write(tmp_path)

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        with pytest.raises(InferenceError, match="no such tensor"):
            model.infer_tensors({"audio": noise(0.2)}, outputs=["stateN"])
        took_s = model.warm_up()
        alone = model.infer({"audio": noise(0.2)})["speech"].scores
        with pytest.raises(InferenceError, match="start a session"), model.lease():
            pass

    assert took_s > 0
    assert np.array_equal(alone, by_hand(noise(0.2)))


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"input": np.zeros((1, 12), np.float64)}, "its dtype is float64, not float32"),
        ({"input": np.zeros((1, 11), np.float32)}, "a size is 11"),
        ({"input": np.zeros((1, 12), np.float32), "sr": np.asarray(16000)}, "the model has no such input"),
    ],
)
def test_prepared_rows_that_the_model_does_not_take_are_refused_and_the_session_goes_on(model, tensors, reason) -> None:
    with model.start_session() as session:
        with pytest.raises(InferenceError, match=reason):
            session.infer_tensors(tensors)
        scores = session.feed(noise(0.2))["speech"].scores

    assert np.array_equal(scores, by_hand(noise(0.2)))


def test_a_model_without_states_starts_no_session(tmp_path) -> None:
    from tests.fakes.models import Build, write_release

    write_release(tmp_path, [Build("ort-fp32")])

    model = Model.open(tmp_path, backends=ONLY_ORT)
    with model, pytest.raises(InferenceError, match="ask it with infer") as caught:
        model.start_session()

    assert caught.value.code == "stateless"


def test_answers_about_a_stream_look_the_same_in_text_and_json(model) -> None:
    answer = model.infer({"audio": noise(1.0)})
    track, segments = answer["speech"], answer["segments"]

    assert as_text(track).startswith("125 frames of 8 ms: ")
    assert as_json(track) == {"start_s": 0.0, "step_s": 0.008, "scores": track.scores.tolist()}
    assert len(segments.segments) > 2
    assert as_json(segments)["segments"][0] == {
        "start_s": round(segments.segments[0].start_s, 3),
        "end_s": round(segments.segments[0].end_s, 3),
    }
    assert as_text(Segments((), 1.5)) == "since 1.50 s"
    assert as_text(Segments((), None)) == "no segment"


@pytest.mark.needs_shared
def test_silero_hears_as_much_speech_as_when_asked_by_hand(tmp_path, shared) -> None:
    silero(shared).write(tmp_path)
    sound = (shared / "models/data/audio/speech_test.wav").read_bytes()

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        answer = model.infer({"audio": sound})

    assert answer["speech"].scores.size == 1875
    assert np.mean(answer["speech"].scores > 0.5) == pytest.approx(0.774, abs=0.005)
    first, second = answer["segments"].segments[:2]
    assert (first.start_s, first.end_s) == pytest.approx((0.0, 2.05), abs=0.07)
    assert (second.start_s, second.end_s) == pytest.approx((2.66, 4.67), abs=0.07)


@pytest.mark.needs_shared
def test_silero_warms_up_at_its_own_sample_rate(tmp_path, shared) -> None:
    silero(shared).write(tmp_path)

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        assert model.warm_up() > 0


@pytest.mark.needs_shared
def test_eight_streams_through_silero_equal_eight_alone(tmp_path, shared) -> None:
    from edge_runtime.inference.preprocessing.wav import decode_audio

    silero(shared).write(tmp_path)
    with Model.open(tmp_path, backends=ONLY_ORT, threads=1) as model:
        (spec,) = model.predictor.preprocess.inputs
        whole = decode_audio((shared / "models/data/audio/speech_test.wav").read_bytes(), spec)
        sounds = [whole[start : start + 32000] for start in range(0, 8 * 64000, 64000)]
        serial = [model.infer({"audio": sound})["speech"].scores for sound in sounds]

        sessions = [model.start_session() for _ in sounds]
        found: list[list[np.ndarray]] = [[] for _ in sounds]
        for start in range(0, 32000, 700):
            for number, session in enumerate(sessions):
                found[number].append(session.feed(sounds[number][start : start + 700])["speech"].scores)
        for number, session in enumerate(sessions):
            found[number].append(session.end()["speech"].scores)

    for alone, pieces in zip(serial, found, strict=True):
        assert np.array_equal(np.concatenate(pieces), alone)
