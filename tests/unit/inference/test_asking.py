"""Asking an open model: straight through to the engine, from many threads, in buffers of its own."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edge_runtime import Model
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.inference.libraries.onnxruntime_session import guarded
from edge_runtime.inference.postprocessing.results import TensorAnswer
from edge_runtime.inference.requests.finite import NanPolicy
from edge_runtime.inference.requests.refusals import Closed, DeadlinePassed, Overloaded, Refused
from tests.fakes.models import Build, uint8_four_pixel_classifier, write_release
from tests.fakes.probe import SHAPE, probe_input, probe_onnx, times_onnx, write_model, write_probe

ONLY_ORT = ["onnxruntime"]
FAR_S = 60.0


@pytest.fixture(scope="module")
def probe_folder(tmp_path_factory) -> Path:
    return write_probe(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def probe(probe_folder: Path) -> Iterator[Model]:
    with Model.open(probe_folder, backends=ONLY_ORT) as model:
        yield model


@pytest.fixture
def pixels_folder(tmp_path) -> Path:
    write_release(tmp_path, [Build("ort-fp32")])
    return tmp_path


@pytest.fixture
def pixels(pixels_folder: Path) -> Iterator[Model]:
    with Model.open(pixels_folder, backends=ONLY_ORT) as model:
        yield model


def planes(array: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(probe_onnx()).run(None, {"x": array})[0]


def raw(answer) -> np.ndarray:
    assert isinstance(answer["y"], TensorAnswer)
    return answer["y"].array


def test_a_tensor_goes_in_and_comes_out_as_the_bare_engine_gives_it(probe: Model) -> None:
    for seed in range(3):
        array = probe_input(seed)

        assert np.array_equal(raw(probe.infer({"x": array})), planes(array)[0])
        assert np.array_equal(probe.infer_tensors({"x": array})["y"], planes(array))


def test_what_needs_no_preparation_reaches_the_engine_uncopied(probe: Model, monkeypatch) -> None:
    array = probe_input()
    probe.infer({"x": array})
    fed = []
    call = probe._asker._call
    monkeypatch.setattr(probe._asker, "_call", lambda given: fed.append(given["x"]) or call(given))

    probe.infer({"x": array})
    probe.infer_tensors({"x": array})
    probe.infer({"x": array[0]})
    probe.infer({"x": array[0]})

    assert [one is array for one in fed[:2]] == [True, True]
    assert np.shares_memory(fed[2], array)


@pytest.mark.parametrize(
    "given", [np.flip(probe_input(1), 3), probe_input(1).astype(">f4"), np.asfortranarray(probe_input(1))]
)
def test_arrays_that_lie_otherwise_in_memory_are_answered_by_their_numbers(probe: Model, given: np.ndarray) -> None:
    probe.infer({"x": probe_input()})

    assert np.array_equal(raw(probe.infer({"x": given})), planes(np.ascontiguousarray(given, np.float32))[0])


@pytest.mark.parametrize(
    ("inputs", "because"),
    [
        ({"x": np.zeros((1, 3, 224, 223), np.float32)}, "a size is 223"),
        ({"x": np.zeros((1, 3, 224, 224), np.float64)}, "its dtype is float64"),
        ({"x": np.zeros((33, 3, 224, 224), np.float32)}, "axis N is 33"),
        ({"x": np.zeros((3, 224), np.float32)}, "its shape is"),
        ({"z": np.zeros((1, 3, 224, 224), np.float32)}, "no such input"),
        ({"x": probe_input(), "z": probe_input()}, "no such input"),
        ({}, "missing"),
    ],
)
def test_wrong_arrays_are_refused_precisely_however_often_right_ones_were_asked(
    probe: Model, inputs: dict[str, np.ndarray], because: str
) -> None:
    probe.infer({"x": probe_input()})

    for ask in (probe.infer, probe.infer_tensors, probe.infer_batch):
        with pytest.raises(InferenceError, match=because):
            ask(inputs)

    assert probe.statistics().bad_input == 3


@pytest.mark.parametrize(
    ("given", "because"),
    [
        ([[0, 0], [255, 0]], "it is a list"),
        (None, "it is a NoneType"),
        (bytearray(b"x"), "it is a bytearray"),
        (np.ma.masked_equal(np.full((1, 2, 2, 1), 255, np.uint8), 255), "it is a masked array"),
    ],
)
def test_what_is_no_array_or_has_holes_is_refused_as_input_and_prepared(pixels: Model, given, because: str) -> None:
    for ask in (pixels.infer, pixels.infer_tensors, pixels.infer_batch):
        with pytest.raises(InferenceError, match=f"take input image: {because}"):
            ask({"image": given})

    assert pixels.statistics().bad_input == 3


def test_an_array_of_a_kind_of_its_own_is_answered_by_its_numbers(pixels: Model, tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0, 0], [255, 0]], np.uint8)[None, :, :, None])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")

    for _ in range(2):
        assert pixels.infer({"image": mapped}) == pixels.infer({"image": np.array(mapped)})


def test_a_batch_is_answered_row_by_row_and_counted_so(probe: Model) -> None:
    batch = np.concatenate([probe_input(seed) for seed in range(4)])

    first, again = probe.infer_batch({"x": batch}), probe.infer_batch({"x": batch})
    with pytest.raises(InferenceError, match="use infer_batch"):
        probe.infer({"x": batch})

    for answers in (first, again):
        assert np.array_equal([raw(answer) for answer in answers], planes(batch))
    assert probe.statistics().samples == 12


def test_results_are_the_callers_own(probe: Model) -> None:
    kept = probe.infer_tensors({"x": probe_input(0)})["y"]
    before = kept.copy()

    for seed in range(1, 20):
        probe.infer_tensors({"x": probe_input(seed)})

    assert np.array_equal(kept, before)


def test_a_call_allocates_nothing_that_stays_but_its_result(probe: Model) -> None:
    fed = {"x": probe_input()}
    probe.infer(fed)
    kept = [None] * 2000
    tracemalloc.start()
    try:
        for turn in range(50):
            kept[turn] = probe.infer(fed)
        held, _ = tracemalloc.get_traced_memory()
        kept[:50] = [None] * 50
        released, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(2000):
            probe.infer(fed)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held > released
    # Eight bytes a call: numbers of the histogram that outgrow those that Python keeps ready.
    assert after - released < 16384
    # While a call runs: its feed, its answer, and never a copy of the 602 KB that went in.
    assert peak - released < 32768


def test_two_outputs_over_one_tensor_own_each_its_numbers(tmp_path: Path) -> None:
    write_model(tmp_path, probe_onnx(), name="probe", takes=SHAPE[1:], gives=[3], outputs=["y", "also_y"])
    array = probe_input()

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        for answer in (model.infer({"x": array}), model.infer({"x": array}), *model.infer_batch({"x": array})):
            assert isinstance(other := answer["also_y"], TensorAnswer)
            raw(answer)[:] = -1

            assert np.array_equal(other.array, planes(array)[0])


def test_a_lease_allocates_nothing_from_run_to_run(probe: Model) -> None:
    with probe.lease() as buffers:
        buffers.run()
        tracemalloc.start()
        try:
            for _ in range(10):
                buffers.run()
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(1000):
                buffers.run()
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert after - before < 1024
    assert peak - before < 4096


def test_a_lease_answers_what_its_buffers_hold_now(probe: Model) -> None:
    with probe.lease(N=2) as buffers:
        outputs = buffers.run()
        for seed in range(3):
            batch = np.concatenate([probe_input(seed), probe_input(seed + 10)])
            buffers.inputs["x"][...] = batch

            assert buffers.run() is outputs
            assert np.array_equal(outputs["y"], planes(batch))


def test_a_lease_is_fed_the_models_constants_whoever_had_it_before(tmp_path) -> None:
    write_model(tmp_path, times_onnx(), name="times", takes=[2], gives=[2], constants={"factor": 3.0})

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        for _ in range(2):
            with model.lease(N=1) as buffers:
                buffers.inputs["x"][:] = [[1, 2]]

                assert buffers.run()["y"].tolist() == [[3, 6]]
                assert list(buffers.inputs) == ["x"]


def test_a_lease_obeys_the_nan_policy(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, nan="reject") as model, model.lease() as buffers:
        buffers.inputs["x"][:] = probe_input()
        buffers.run()
        buffers.inputs["x"][0, 1, 2, 3] = np.nan
        with pytest.raises(InferenceError, match="NaN or an infinity") as caught:
            buffers.run()

        assert caught.value.code == "not_finite"
        assert (model.statistics().not_finite, model.statistics().bad_input, model.statistics().success) == (1, 1, 1)
        assert model.admission.running == 0


def test_prepared_feeds_obey_the_nan_policy(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, nan="reject") as model:
        with pytest.raises(InferenceError, match="NaN or an infinity"):
            model.run_canonical({"x": np.full((1, 3, 224, 224), np.nan, np.float32)})

        assert (model.statistics().not_finite, model.statistics().bad_input) == (1, 1)


def test_as_many_buffers_are_kept_as_calls_may_run_however_many_sizes_were_leased(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, concurrency=2) as model:
        kept = []
        for size in range(1, 6):
            with model.lease(N=size) as buffers:
                kept.append(weakref.ref(buffers.inputs["x"]))
            del buffers
        assert [one() is not None for one in kept] == [False, False, False, True, True]

        with model.lease(N=5) as buffers:
            assert buffers.inputs["x"] is kept[-1]()
            model.close()
        del buffers
        assert [one() for one in kept] == [None] * 5


def test_leases_of_several_threads_do_not_share_buffers(probe: Model) -> None:
    def ask(seed: int) -> bool:
        with probe.lease() as buffers:
            for turn in range(5):
                array = probe_input(seed * 100 + turn)
                buffers.inputs["x"][...] = array
                if not np.array_equal(buffers.run()["y"], planes(array)):
                    return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(8)))


def test_a_lease_that_has_ended_reaches_nobodys_buffers(pixels: Model) -> None:
    picture = np.zeros((1, 2, 2, 1), np.uint8)
    with pixels.lease() as ended:
        first = ended.inputs["x"]
        first[...] = 1

    with pixels.lease() as current:
        current.inputs["x"][...] = 2
        question = {"image": picture}
        uses = (lambda: ended.inputs["x"], lambda: list(ended.inputs), ended.run, lambda: ended.fill(question))
        for use in uses:
            with pytest.raises(InferenceError, match="they were given back"):
                use()

        assert np.shares_memory(first, current.inputs["x"])
        assert (current.inputs["x"] == 2).all()
        assert np.allclose(current.run()["logits"], [[4, 4, 4, 4]])


def test_a_lease_of_a_model_with_steps_is_filled_with_what_people_have(pixels: Model) -> None:
    picture = np.array([[0, 0], [255, 0]], np.uint8)[None, :, :, None]

    with pixels.lease() as buffers:
        buffers.fill({"image": picture})
        logits = buffers.run()["logits"]

        assert np.allclose(logits, [[0, 0, 2, 0]])
        with pytest.raises(InferenceError, match="lease with the axes"):
            buffers.fill({"image": np.repeat(picture, 2, axis=0)})


@pytest.mark.parametrize(("axes", "because"), [({"N": 33}, "does not allow"), ({"M": 1}, "no input has it")])
def test_a_lease_of_sizes_that_the_model_does_not_take_is_refused(probe: Model, axes, because: str) -> None:
    with pytest.raises(InferenceError, match=because), probe.lease(**axes):
        pass


def test_leases_are_bounded(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, concurrency=1, queue_limit=1) as model:
        with model.lease(), model.lease(), pytest.raises(Overloaded), model.lease():
            pass
        with model.lease() as buffers:
            buffers.run()


def test_canonical_tensors_are_taken_in_place_of_public_inputs(pixels: Model) -> None:
    tensor = np.array([[[[0.0, 1.0], [0.0, 0.0]]]], np.float32)

    for _ in range(2):
        assert np.allclose(pixels.infer_tensors({"x": tensor})["logits"], [[0, 2, 0, 0]])
    with pytest.raises(InferenceError, match="a size is 3"):
        pixels.infer_tensors({"x": np.zeros((1, 1, 2, 3), np.float32)})
    with pytest.raises(InferenceError, match="its dtype is float64"):
        pixels.infer_tensors({"x": tensor.astype(np.float64)})


def test_a_file_that_does_the_last_steps_itself_takes_no_prepared_tensors(tmp_path) -> None:
    content = uint8_four_pixel_classifier()
    write_release(tmp_path, [Build("absorbing", content=content, absorbs=("norm", "layout"))])

    with (
        Model.open(tmp_path, backends=ONLY_ORT) as model,
        pytest.raises(InferenceError, match="does the last steps inside its file; give image"),
    ):
        model.infer_tensors({"x": np.zeros((1, 1, 2, 2), np.float32)})


def test_a_picture_that_needs_no_step_goes_straight_in(tmp_path, monkeypatch) -> None:
    content = uint8_four_pixel_classifier()
    write_release(tmp_path, [Build("absorbing", content=content, absorbs=("norm", "layout"))])
    picture = np.array([[0, 0], [255, 0]], np.uint8)[None, :, :, None]

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        slow = model.infer({"image": picture})
        monkeypatch.setattr(type(model.predictor.preprocess), "decode", None)
        fast = model.infer({"image": picture})

    assert fast == slow


def test_only_wanted_outputs_are_given_and_unknown_ones_refused(probe: Model) -> None:
    assert probe.infer_tensors({"x": probe_input()}, outputs=["y"]).keys() == {"y"}
    with pytest.raises(InferenceError, match="no such tensor; choose one of y"):
        probe.infer_tensors({"x": probe_input()}, outputs=["q"])


def test_without_the_engines_private_parts_the_public_ones_answer_alike(probe_folder: Path, monkeypatch) -> None:
    real = onnxruntime.InferenceSession

    class Closed:
        """A session of a version that keeps its inner parts to itself."""

        def __init__(self, *args, **wishes) -> None:
            session = real(*args, **wishes)
            for name in ("run", "get_inputs", "get_outputs", "get_providers"):
                setattr(self, name, getattr(session, name))
            self.io_binding = session.io_binding
            self.run_with_iobinding = session.run_with_iobinding

    monkeypatch.setattr(onnxruntime, "InferenceSession", Closed)
    array = probe_input()
    with Model.open(probe_folder, backends=ONLY_ORT) as model, model.lease() as buffers:
        assert not hasattr(model.predictor.session._session, "_sess")
        buffers.inputs["x"][...] = array

        assert np.array_equal(model.infer_tensors({"x": array})["y"], planes(array))
        assert np.array_equal(buffers.run()["y"], planes(array))


def test_an_engine_that_fails_says_so_by_code_and_the_next_call_is_answered(probe: Model, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("device lost")

    array = probe_input()
    probe.infer({"x": array})
    with monkeypatch.context() as patch:
        patch.setattr(probe._asker, "_call", guarded([broken], [], None))
        with pytest.raises(InferenceError, match="device lost") as caught:
            probe.infer({"x": array})

    assert caught.value.code == "engine_failed"
    assert np.array_equal(raw(probe.infer({"x": array})), planes(array)[0])
    assert (probe.statistics().failed, probe.statistics().success) == (1, 2)


def test_many_threads_each_get_the_answer_to_their_own_question(probe: Model) -> None:
    arrays = [probe_input(seed) for seed in range(16)]
    wanted = [planes(array)[0] for array in arrays]

    def ask(number: int) -> bool:
        return np.array_equal(raw(probe.infer({"x": arrays[number % 16]})), wanted[number % 16])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(400)))
    assert probe.statistics().success == 400


class Busy:
    """Keeps the only slot of a model until it is told to let go."""

    def __init__(self, model: Model) -> None:
        self._go = threading.Event()
        inside = threading.Event()
        self._thread = threading.Thread(target=model.ask, args=[lambda _: (inside.set(), self._go.wait(FAR_S))])
        self._thread.start()
        assert inside.wait(FAR_S)

    def let_go(self) -> None:
        self._go.set()
        self._thread.join()


def test_a_request_that_waits_past_its_deadline_never_reaches_the_engine(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, concurrency=1) as model:
        busy = Busy(model)

        with pytest.raises(DeadlinePassed):
            model.infer({"x": probe_input()}, deadline=time.monotonic() + 0.01)
        with pytest.raises(DeadlinePassed):
            model.infer_tensors({"x": probe_input()}, deadline=time.monotonic() - 1)
        busy.let_go()

        found = model.statistics()
        assert (found.expired, found.success, found.stages["run"].count) == (2, 0, 0)


def test_preparation_that_takes_too_long_is_not_followed_by_a_run(pixels: Model, monkeypatch) -> None:
    clock = [0.0]
    preprocess = pixels.predictor.preprocess
    slow = type(preprocess).decode

    def decode(self, inputs):
        clock[0] += 10.0
        return slow(self, inputs)

    monkeypatch.setattr(type(preprocess), "decode", decode)
    monkeypatch.setattr("edge_runtime.inference.requests.asker.monotonic", lambda: clock[0])

    with pytest.raises(DeadlinePassed):
        pixels._asker.infer({"image": np.zeros((1, 2, 2, 1), np.uint8)}, 5.0)

    assert (pixels.statistics().expired, pixels.statistics().stages["run"].count) == (1, 0)


def test_submitted_questions_come_back_on_another_thread_whatever_happens(probe: Model) -> None:
    outcomes: list[object] = []
    ended = threading.Semaphore(0)

    def done(outcome: object) -> None:
        outcomes.append((type(outcome).__name__, threading.current_thread() is threading.main_thread()))
        ended.release()

    probe.submit(lambda asker: asker.infer({"x": probe_input()}), done)
    assert ended.acquire(timeout=FAR_S)
    probe.submit(lambda asker: asker.infer({"x": np.zeros(3)}), done)
    assert ended.acquire(timeout=FAR_S)
    probe.submit(lambda _: 1 // 0, done)
    assert ended.acquire(timeout=FAR_S)

    assert outcomes == [("dict", False), ("BadInput", False), ("InferenceError", False)]


def test_a_coroutine_awaits_an_answer(probe: Model) -> None:
    array = probe_input()

    async def ask() -> list[np.ndarray]:
        futures = [asyncio.wrap_future(probe.infer_async({"x": array})) for _ in range(5)]
        return [raw(answer) for answer in await asyncio.gather(*futures)]

    for found in asyncio.run(ask()):
        assert np.array_equal(found, planes(array)[0])


def test_a_cancelled_future_never_reaches_the_engine(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, concurrency=1) as model:
        busy = Busy(model)
        future = model.infer_async({"x": probe_input()})

        assert future.cancel()
        busy.let_go()
        assert model.admission.wait_idle(FAR_S)

        assert (model.statistics().cancelled, model.statistics().success) == (1, 0)


def test_whoever_waits_for_futures_hears_of_a_cancelled_one(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, concurrency=1) as model:
        busy = Busy(model)
        future = model.infer_async({"x": probe_input()})

        future.cancel()

        assert wait([future], timeout=FAR_S).done == {future}
        busy.let_go()


def test_closing_lets_running_calls_end_and_refuses_the_rest(probe_folder: Path) -> None:
    model = Model.open(probe_folder, backends=ONLY_ORT, concurrency=1)
    busy = Busy(model)
    refused: list[EdgeError] = []
    model.submit(lambda asker: asker.infer({"x": probe_input()}), refused.append)
    with model.lease() as buffers:
        model.close()
        session = model.predictor.session

        assert session._session is not None
        busy.let_go()
        assert session._session is None
        with pytest.raises(Refused):
            buffers.run()
    assert [type(one) for one in refused] == [Closed]
    with pytest.raises(Closed):
        model.infer({"x": probe_input()})


def test_a_closed_model_holds_no_engine_though_it_is_still_named(probe_folder: Path) -> None:
    model = Model.open(probe_folder, backends=ONLY_ORT)
    engine = weakref.ref(model.predictor.session._session._sess)
    with model.lease() as buffers:
        buffers.run()
        model.infer({"x": probe_input()})
        model.close()
    del buffers
    gc.collect()

    assert engine() is None
    with pytest.raises(Closed):
        model.infer({"x": probe_input()})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_nan_policy_rejects_samples_or_looks_away(probe_folder: Path, bad: float) -> None:
    array = probe_input()
    array[0, 1, 2, 3] = bad

    with Model.open(probe_folder, backends=ONLY_ORT, nan="reject") as strict:
        strict.infer({"x": probe_input()})
        for ask in (strict.infer, strict.infer_tensors):
            with pytest.raises(InferenceError, match="NaN or an infinity") as caught:
                ask({"x": array})
        assert caught.value.code == "not_finite"
        assert (strict.statistics().not_finite, strict.statistics().bad_input) == (2, 2)
    with Model.open(probe_folder, backends=ONLY_ORT, nan="sample") as sampling:
        for _ in range(128):
            sampling.infer({"x": array})
        assert (sampling.statistics().not_finite, sampling.statistics().success) == (2, 128)
    with Model.open(probe_folder, backends=ONLY_ORT) as free:
        free.infer({"x": array})
        assert free.statistics().not_finite == 0


def test_warming_up_is_not_counted_as_an_answer(probe: Model) -> None:
    assert probe.warm_up() > 0

    assert probe.statistics().success == 0


def test_as_many_calls_run_at_once_as_was_asked_for(probe_folder: Path) -> None:
    with Model.open(probe_folder, backends=ONLY_ORT, concurrency=3) as model:
        together = threading.Barrier(3)

        def ask(_: int) -> bool:
            return bool(model.ask(lambda _: together.wait(FAR_S) >= 0))

        with ThreadPoolExecutor(3) as threads:
            assert all(threads.map(ask, range(3)))
        assert model.admission.slots == 3


@pytest.mark.parametrize("nan", ["off", "reject"])
def test_inputs_without_names_are_one_refusal(pixels_folder: Path, nan: NanPolicy) -> None:
    with Model.open(pixels_folder, backends=ONLY_ORT, nan=nan) as model:
        for ask in (model.infer, model.infer_batch, model.infer_tensors):
            with pytest.raises(InferenceError, match="cannot take the inputs: they are a list; give each by its name"):
                ask([{"image": b"png"}])


def test_arrays_without_names_are_refused_on_the_short_way_as_well(probe: Model) -> None:
    for ask in (probe.infer, probe.infer_batch, probe.infer_tensors):
        with pytest.raises(InferenceError, match="cannot take the inputs: they are a list"):
            ask([probe_input(1)])


@pytest.mark.parametrize("given", [Path("a.png"), "a.png", [7], None, 7])
def test_an_input_that_is_neither_array_nor_bytes_is_one_refusal(pixels: Model, given: object) -> None:
    for ask in (pixels.infer, pixels.infer_batch, pixels.infer_tensors):
        with pytest.raises(InferenceError, match=r"cannot take input image: it is a .*; give a numpy array, or bytes"):
            ask({"image": given})
