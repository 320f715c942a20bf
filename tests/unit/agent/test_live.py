"""The live model with the real engine: swaps, blame, and stand-ins that hide no fault from the update machine."""

from __future__ import annotations

import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_runtime.agent.live import Answered, LiveModel
from edge_runtime.agent.workload import EngineLimits
from edge_runtime.contract import reasons
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import ContractError, EdgeError, InferenceError
from edge_runtime.contract.ids import SlotId
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.inference.backend import BACKENDS
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Preprocessor
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from tests.fakes.faulty_backend import ENGINE, Faults, FaultyBackend, accelerated_facts
from tests.fakes.pixels import write_pixels
from tests.unit.agent.stores import FACTS, LIMITS, stored
from tests.unit.serving.releases import accelerated, png

MAIN = SlotId("main")
FAULT = EngineFault("run the model", "the accelerator was unplugged")


@pytest.fixture
def live(store: ContentStore) -> LiveModel:
    return LiveModel(MAIN, store, LIMITS, FACTS)


@dataclass
class Board:
    """A device whose accelerator fails on demand, and a release for it with a build for the CPU."""

    live: LiveModel
    faults: Faults
    npu: Activation
    cpu: Faults
    """Of the engine that needs no accelerator."""
    told: list[tuple[Activation, str]] = field(default_factory=list)

    def ask(self, brightest: int = 2) -> Answered:
        answered = self.live.ask_encoded(png(brightest))
        assert answered is not None
        return answered


def board(store: ContentStore, folder: Path, *, has_stand_in: bool = True) -> Board:
    faults, cpu = Faults(), Faults()
    told: list[tuple[Activation, str]] = []
    live = LiveModel(
        MAIN, store, EngineLimits(None, 1, None), accelerated_facts(),
        on_fault=lambda build, code: told.append((build, code)),
        registry={**BACKENDS, ENGINE: FaultyBackend(faults), "onnxruntime": FaultyBackend(cpu, "onnxruntime")},
    )  # fmt: skip
    npu = stored(store, accelerated(folder, has_stand_in=has_stand_in), 3)
    assert npu.variant == "npu"
    return Board(live, faults, npu, cpu, told)


def damage(store: ContentStore, digest: Digest) -> None:
    path = store.path_of(digest)
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[::-1])


def class_of(answered: Answered) -> object:
    return None if answered.answer is None else answered.answer["classes"][0]["label"]


def test_a_live_model_answers_and_a_picture_that_cannot_be_read_is_not_its_fault(
    live: LiveModel, good: Activation
) -> None:
    assert live.ask_encoded(png(2)) is None

    live.activate(good)
    answered, refused = live.ask_encoded(png(2)), live.ask_encoded(b"no picture")

    assert answered is not None
    assert (class_of(answered), answered.activation) == ("two", good)
    assert refused is not None
    assert (refused.answer, refused.error) == (None, "bad_input")
    health = live.health()
    assert (health.loaded, health.requests, health.errors) == (good.variant_digest, 1, 0)
    live.deactivate()
    assert live.health().loaded is None
    assert live.ask_encoded(png(2)) is None


def test_a_model_that_fails_its_golden_set_does_not_replace_what_answers(
    store: ContentStore, live: LiveModel, good: Activation, wrong: Activation
) -> None:
    live.activate(good)

    with pytest.raises(InferenceError) as refusal:
        live.activate(wrong)

    assert refusal.value.code == reasons.GOLDEN_FAILED
    assert live.health().loaded == good.variant_digest
    LiveModel(MAIN, store, LIMITS, FACTS, check_golden=False).activate(wrong)


def test_activating_what_is_loaded_takes_over_its_number_and_keeps_its_counters(
    live: LiveModel, good: Activation
) -> None:
    live.activate(good)
    live.ask_encoded(png(2))

    live.activate(replace(good, seq=9))

    assert live.activation == replace(good, seq=9)
    assert live.health().requests == 1


@pytest.mark.parametrize("fault", [ValueError("x"), IndexError("x"), MemoryError(), ContractError("x", "y")])
def test_whatever_a_broken_model_causes_is_counted_and_the_device_goes_on(
    live: LiveModel, good: Activation, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    live.activate(good)

    def fail(*_: object) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(Predictor, "interpret", fail)
        failed = live.ask_encoded(png(2))
    answered = live.ask_encoded(png(2))

    assert failed is not None
    assert failed.answer is None
    assert failed.error == ("contract" if isinstance(fault, ContractError) else "inference")
    assert answered is not None
    assert answered.answer is not None
    assert (live.health().requests, live.health().errors) == (2, 1)


def test_a_picture_that_breaks_its_parser_is_not_the_models_fault(
    live: LiveModel, good: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.activate(good)

    def fail(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(Preprocessor, "decode", fail)
    answered = live.ask_encoded(png(2))

    assert answered is not None
    assert answered.error == "bad_input"
    assert (live.health().requests, live.health().errors) == (0, 0)


def test_a_model_that_breaks_at_its_golden_set_is_refused_as_the_update_machine_expects(
    live: LiveModel, good: Activation, wrong: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.activate(good)

    def fail(*_: object) -> None:
        raise ValueError("no class")

    with monkeypatch.context() as broken:
        broken.setattr(Predictor, "run_decoded", fail)
        with pytest.raises(InferenceError, match="breaks at its golden set") as refusal:
            live.activate(wrong)

    assert refusal.value.code == reasons.LOAD_FAILED
    assert live.activation == good


def test_whoever_asks_while_models_swap_always_gets_an_answer_of_one_of_them(
    store: ContentStore, live: LiveModel, good: Activation, tmp_path: Path
) -> None:
    write_pixels(tmp_path / "layout", "3.0.0")
    other = stored(store, tmp_path / "layout", 4)
    live.activate(good)
    is_over = threading.Event()

    def ask() -> set[object]:
        seen: set[object] = set()
        while not is_over.is_set():
            answered = live.ask_encoded(png(1))
            seen.add(answered and (class_of(answered), answered.error))
        return seen

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        for turn in range(10):
            live.activate((other, good)[turn % 2])
        is_over.set()

    assert set().union(*(one.result() for one in asking)) == {("one", None)}


def test_a_call_that_hangs_in_the_old_model_keeps_nobody_from_asking_the_new_one(
    store: ContentStore, good: Activation, tmp_path: Path
) -> None:
    slow = board(store, tmp_path)
    slow.live.activate(slow.npu)
    slow.faults.blocks = gate = threading.Event()

    with ThreadPoolExecutor(2) as threads:
        begun = slow.faults.runs
        hanging = threads.submit(slow.ask, 3)
        while slow.faults.runs == begun:
            slow.faults.running.acquire(timeout=60)
        swap = threads.submit(slow.live.activate, good)
        while slow.live.activation != good:
            assert not swap.done()
        answered = slow.ask(2)
        gate.set()

    assert (class_of(answered), answered.activation) == ("two", good)
    assert class_of(hanging.result()) == "three"


def test_when_an_engine_fails_another_build_answers_and_the_candidate_is_still_to_blame(
    store: ContentStore, tmp_path: Path
) -> None:
    device = board(store, tmp_path)
    device.live.activate(device.npu)
    device.faults.at_run = FAULT

    answered = device.ask(3)

    assert class_of(answered) == "three"
    assert (answered.error, answered.activation.variant) == (None, "cpu")
    assert device.told == [(device.npu, reasons.ENGINE_FAILED)]
    health = device.live.health()
    assert health.loaded == answered.activation.variant_digest != device.npu.variant_digest
    assert health.stand_in == answered.activation
    assert (health.errors, health.requests) == (1, 1)
    assert "the accelerator was unplugged" in health.detail
    assert device.live.activation == device.npu


def test_what_a_stand_in_answered_does_not_speak_for_the_build_that_came_back(
    store: ContentStore, tmp_path: Path
) -> None:
    device = board(store, tmp_path)
    device.live.activate(device.npu)
    device.ask()
    device.faults.at_run = FAULT
    for _ in range(20):
        device.ask()

    device.faults.at_run = None
    while device.live.health().stand_in is not None:
        device.faults.running.acquire(timeout=0.05)
    device.ask()

    health = device.live.health()
    assert health.loaded == device.npu.variant_digest
    assert (health.errors, health.requests) == (1, 3)


def test_a_fault_of_the_build_before_is_not_charged_to_the_one_that_took_over(
    store: ContentStore, good: Activation, tmp_path: Path
) -> None:
    device = board(store, tmp_path)
    device.live.activate(device.npu)
    device.faults.at_run = FAULT
    device.cpu.blocks_open = gate = threading.Event()

    with ThreadPoolExecutor(2) as threads:
        failing = threads.submit(device.ask)
        while not device.cpu.opened:  # its stand-in is being loaded
            device.faults.running.acquire(timeout=0.05)
        device.cpu.blocks_open = None
        swap = threads.submit(device.live.activate, good)
        while device.live.activation != good:
            assert not swap.done()
        gate.set()
        failing.result()
        swap.result()
    before = device.live.health().requests
    device.ask()

    health = device.live.health()
    assert (health.loaded, health.errors, health.requests) == (good.variant_digest, 0, before + 1)
    assert device.told == [(device.npu, reasons.ENGINE_FAILED)]


def test_without_another_build_on_the_device_the_fault_is_the_answer_and_counts(
    store: ContentStore, tmp_path: Path
) -> None:
    device = board(store, tmp_path, has_stand_in=False)
    device.live.activate(device.npu)
    device.faults.at_run = FAULT

    failed = device.ask(3)

    assert (failed.answer, failed.error, failed.activation) == (None, reasons.ENGINE_FAILED, device.npu)
    assert device.told == []
    health = device.live.health()
    assert (health.loaded, health.errors, health.requests) == (device.npu.variant_digest, 1, 1)


def test_a_build_that_does_not_load_is_refused_though_another_one_would(
    store: ContentStore, good: Activation, tmp_path: Path
) -> None:
    device = board(store, tmp_path)
    device.live.activate(good)
    device.faults.at_open = InferenceError("load the delegate", "no device was found", code=reasons.LOAD_FAILED)

    with pytest.raises(InferenceError, match="no device was found") as refusal:
        device.live.activate(device.npu)

    assert refusal.value.code == reasons.LOAD_FAILED
    assert device.live.health().loaded == good.variant_digest


def test_a_build_that_does_not_fit_is_refused_though_its_fallback_would(store: ContentStore, tmp_path: Path) -> None:
    device = board(store, tmp_path)
    live = LiveModel(MAIN, store, LIMITS, FACTS)

    with pytest.raises(InferenceError) as refusal:
        live.activate(device.npu)

    assert refusal.value.code == reasons.NO_VARIANT
    assert live.health().loaded is None


def test_a_damaged_build_that_is_not_meant_keeps_nobody_from_activating_the_one_that_is(
    tmp_path: Path,
) -> None:
    store = ContentStore(tmp_path / "store")
    device = board(store, tmp_path)
    (other,) = (one for one in LayoutFolder(tmp_path / "accelerated-1.0.0").open().index.variants if one.id == "cpu")
    damage(store, other.digest)

    device.live.activate(device.npu)

    assert class_of(device.ask(3)) == "three"
    damage(store, device.npu.variant_digest)
    device.live.deactivate()
    with pytest.raises(EdgeError) as refusal:
        device.live.activate(device.npu)
    assert refusal.value.code == reasons.DIGEST_MISMATCH


def test_a_build_that_runs_out_of_memory_at_its_golden_set_is_refused_for_that(
    store: ContentStore, good: Activation, tmp_path: Path
) -> None:
    device = board(store, tmp_path)
    device.live.activate(good)
    device.faults.at_run = MemoryError()

    with pytest.raises(InferenceError) as refusal:
        device.live.activate(device.npu)

    assert refusal.value.code == reasons.MEMORY
    assert device.live.health().loaded == good.variant_digest


def test_activating_a_build_again_after_its_engine_failed_tries_it_anew(store: ContentStore, tmp_path: Path) -> None:
    device = board(store, tmp_path)
    device.live.activate(device.npu)
    device.faults.at_run = FAULT
    device.ask()
    with pytest.raises(InferenceError):
        device.live.activate(device.npu)
    assert device.ask().activation.variant == "cpu"

    device.faults.at_run = None
    device.live.activate(device.npu)

    health = device.live.health()
    assert (health.loaded, health.errors, health.stand_in) == (device.npu.variant_digest, 0, None)
