"""The promises of the engine port, kept on every real model by every engine that can load it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import Backend, BackendOptions, Session, TensorInfo, is_direct, load_backend
from tests.fakes.shared_recipes import RECIPES
from tests.fakes.shared_releases import ENGINES, described, shared_variant

pytestmark = [pytest.mark.needs_shared, pytest.mark.slow]

CALLERS = 2
OPTIONS = BackendOptions(threads=1, concurrency=CALLERS)
UNTRANSLATED = ("tflite/ssd_mobilenet_v1_coco_quant.tflite", "openvino")
"""OpenVINO does not know its TFLite_Detection_PostProcess."""
PAIRS = [
    (name, engine)
    for name in RECIPES
    for engine in ENGINES[Path(name).suffix]
    if (name, engine) != UNTRANSLATED and "states" not in RECIPES[name]
]

DIRECT = [(name, engine) for name, engine in PAIRS if engine in {"onnxruntime", "openvino"}]
"""The engines whose sessions can be asked without checks, and on memory that stays."""


def identity(pair: tuple[str, str]) -> str:
    """Name of a test with this model and engine."""
    return "-".join([*Path(pair[0]).parts, pair[1]])


@dataclass(frozen=True)
class Loaded:
    backend: Backend
    manifest: VariantManifest
    files: dict[str, bytes]
    session: Session

    def question(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Numbers that such a tensor may hold, others for each seed."""
        rng = np.random.default_rng(seed)
        return {info.name: _filled(info, rng) for info in self.session.inputs}

    def answer(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        return self.session.run(self.question(seed))


@pytest.fixture(scope="module", params=PAIRS, ids=map(identity, PAIRS))
def loaded(request: pytest.FixtureRequest, shared: Path) -> Iterator[Loaded]:
    name, engine = request.param
    models = shared / "models"
    manifest, files = shared_variant(described(name, models), models / name, engine)
    backend = load_backend(engine)
    session = backend.open(files, manifest, OPTIONS)
    yield Loaded(backend, manifest, files, session)
    session.close()


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_tensors_are_called_and_typed_as_the_manifest_says(loaded: Loaded) -> None:
    for told, bindings in ((loaded.session.inputs, loaded.manifest.io.inputs),
                           (loaded.session.outputs, loaded.manifest.io.outputs)):  # fmt: skip
        types = {info.name: info.dtype for info in told}
        for binding in bindings.values():
            assert types[str(binding.tensor)] == binding.dtype


def test_an_answer_has_the_type_that_the_session_told_and_a_fixed_size_stays(loaded: Loaded) -> None:
    answer = loaded.answer(1)

    for info in loaded.session.outputs:
        assert answer[info.name].dtype == np.dtype(info.dtype)
        assert len(info.shape) in {0, answer[info.name].ndim}


def test_the_same_question_has_the_same_answer_and_another_one_another(loaded: Loaded) -> None:
    first, other, again = loaded.answer(1), loaded.answer(2), loaded.answer(1)

    assert same(first, again)
    assert other.keys() == first.keys()


def test_an_answer_belongs_to_its_caller(loaded: Loaded) -> None:
    kept = loaded.answer(1)
    copies = {name: array.copy() for name, array in kept.items()}

    for array in loaded.answer(2).values():
        array.fill(0)

    assert same(kept, copies)
    assert same(loaded.answer(1), copies)


def test_a_wrong_type_is_refused_by_the_tensors_name_and_the_session_goes_on(loaded: Loaded) -> None:
    expected, question = loaded.answer(1), loaded.question(1)
    name = next(iter(question))

    with pytest.raises(InferenceError, match=r"is float64, not (float32|uint8|int8)"):
        loaded.session.run({**question, name: question[name].astype(np.float64)})

    assert same(loaded.answer(1), expected)


def test_a_missing_tensor_and_one_too_many_are_refused(loaded: Loaded) -> None:
    question = loaded.question(1)

    with pytest.raises(InferenceError, match="and got"):
        loaded.session.run({})
    with pytest.raises(InferenceError, match="and got"):
        loaded.session.run({**question, "nobody": question[next(iter(question))]})


def test_a_wrong_size_is_refused_and_the_session_goes_on(loaded: Loaded) -> None:
    expected, question = loaded.answer(1), loaded.question(1)
    name = next(iter(question))
    wider = np.concatenate([question[name], question[name]], axis=-1)

    with pytest.raises(InferenceError) as refused:
        loaded.session.run({**question, name: wider})

    assert "\n" not in str(refused.value)
    assert same(loaded.answer(1), expected)


def test_as_many_callers_as_were_asked_for_get_their_own_answers(loaded: Loaded) -> None:
    alone = [loaded.answer(seed) for seed in range(CALLERS)]
    together: list[list[bool]] = [[] for _ in range(CALLERS)]
    barrier = threading.Barrier(CALLERS, timeout=60)

    def ask(seed: int) -> None:
        barrier.wait()
        for _ in range(4):
            together[seed].append(same(loaded.answer(seed), alone[seed]))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert together == [[True] * 4] * CALLERS


@pytest.mark.parametrize("loaded", DIRECT, indirect=True, ids=map(identity, DIRECT))
def test_without_its_checks_and_on_bound_memory_a_session_says_the_same(loaded: Loaded) -> None:
    session, question, expected = loaded.session, loaded.question(3), loaded.answer(3)
    assert is_direct(session)

    direct = dict(zip([info.name for info in session.outputs], session.call(question), strict=True))
    binding = session.bind({name: array.shape for name, array in question.items()})
    for name, array in question.items():
        binding.inputs[name][...] = array
    bound = {name: np.array(array) for name, array in binding.run().items()}

    assert same(direct, expected)
    assert same(bound, expected)


def test_a_closed_session_says_so_and_another_one_of_the_same_file_goes_on(loaded: Loaded) -> None:
    other = loaded.backend.open(loaded.files, loaded.manifest, OPTIONS)
    question = loaded.question(1)

    other.close()

    with pytest.raises(InferenceError, match="it was closed"):
        other.run(question)
    assert loaded.answer(1)


def _filled(info: TensorInfo, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = [size or 1 for size in info.shape]
    kind = np.dtype(info.dtype)
    if np.issubdtype(kind, np.floating):
        return rng.random(shape).astype(kind)
    ends = np.iinfo(kind)
    return rng.integers(ends.min, ends.max, shape, endpoint=True).astype(kind)
