from dataclasses import replace

from converters.planning.planner import Candidate, plan_build
from converters.planning.search import Tried, find_better, mixed_from, outdone, worth_mixing
from converters.planning.sensitivity import CurvePoint, LayerError, Sensitivity
from devices.catalogue import resolve_targets
from tests.unit.converters.test_recipe import parsed

PLAN = plan_build(
    parsed(prefer="size"), resolve_targets(("cpu",)), {"onnxruntime": True, "openvino": True, "nncf": True}
)
BY_ID = {one.id: one for one in PLAN.candidates}
FLOAT, TENSOR, FULL, SAFE, OPENVINO = (
    BY_ID[name] for name in ("ort-float32", "ort-int8-tensor", "ort-int8-full", "ort-int8", "openvino-int8")
)
HALF, WHOLE = BY_ID["openvino-float16-weights"], BY_ID["openvino-float32"]


def tried(candidate: Candidate, *, ships: bool = True, lost: float = 0.0) -> Tried:
    return Tried(candidate, candidate.arch if ships else (), lost)


def test_the_first_int8_variant_that_passes_ends_the_search_of_its_engine_only() -> None:
    passed = [tried(FLOAT), tried(TENSOR)]

    assert find_better(SAFE, passed, "size") == "ort-int8-tensor passed, and size prefers it"
    assert not find_better(OPENVINO, passed, "size")


def test_a_refused_variant_and_a_float_variant_end_nothing() -> None:
    assert not find_better(FULL, [tried(FLOAT), tried(TENSOR, ships=False)], "size")


def test_a_variant_that_passed_for_one_architecture_ends_no_search_for_the_others() -> None:
    only_arm = Tried(TENSOR, ("aarch64",), 0.0)

    assert not find_better(SAFE, [only_arm], "latency")
    assert find_better(replace(SAFE, arch=("aarch64",)), [only_arm], "latency")


def test_a_variant_outdoes_no_twin_that_passed_for_more_architectures() -> None:
    percentile = Tried(BY_ID["ort-int8-percentile"], ("aarch64",), 0.0)

    assert outdone([tried(SAFE, lost=0.009), percentile]) == {}


def test_the_float_variant_is_always_built() -> None:
    assert not find_better(FLOAT, [tried(TENSOR)], "size")


def test_whole_weights_are_built_unless_half_of_their_size_answers_alike() -> None:
    alike, lossy = replace(tried(HALF), repeats=True), tried(HALF)

    assert "openvino-float16-weights answers as the source model" in find_better(WHOLE, [tried(FLOAT), alike], "size")
    assert not find_better(WHOLE, [tried(FLOAT), lossy], "size")
    assert not find_better(WHOLE, [replace(alike, arch=("aarch64",))], "size")


def test_who_prefers_accuracy_goes_on_while_something_is_lost() -> None:
    assert not find_better(SAFE, [tried(FULL, lost=0.002)], "accuracy")
    assert find_better(SAFE, [tried(FULL, lost=0.0)], "accuracy")


def test_a_mixed_candidate_starts_from_the_one_that_loses_least_and_only_where_none_passed() -> None:
    lossy = [Tried(TENSOR, (), 0.3, is_lossy=True), Tried(SAFE, (), 0.02, is_lossy=True)]
    clipped = tried(FULL, ships=False, lost=0.001)

    assert worth_mixing([tried(FLOAT), *lossy, clipped]) == SAFE
    assert worth_mixing([tried(FLOAT), clipped]) is None
    assert worth_mixing([*lossy, tried(FULL)]) is None


def test_a_mixed_candidate_bears_the_nodes_it_leaves_in_float() -> None:
    layer = LayerError(node="conv3", op="Conv", alone_db=3.0)
    found = Sensitivity(
        samples=4, base_db=5.0, weights_db=6.0, layers=[layer], curve=[CurvePoint(nodes=["conv3"], snr_db=20.0)]
    )
    flat = Sensitivity(samples=4, base_db=5.0, weights_db=6.0, layers=[layer])

    mixed = mixed_from(SAFE, found)

    assert mixed
    assert (mixed.id, mixed.method.excluded) == ("ort-int8-mixed", ("conv3",))
    assert mixed_from(SAFE, flat) is None


def test_of_variants_that_differ_only_in_their_ranges_the_one_that_loses_least_ships() -> None:
    percentile = BY_ID["ort-int8-percentile"]

    assert outdone([tried(SAFE, lost=0.009), tried(percentile, lost=0.004)]) == {SAFE.id: percentile.id}
    assert outdone([tried(SAFE, lost=0.009), tried(percentile, lost=0.009)]) == {percentile.id: SAFE.id}
    assert outdone([tried(SAFE, lost=0.009), tried(percentile, ships=False, lost=0.0)]) == {}
    assert outdone([tried(TENSOR, lost=0.009), tried(SAFE, lost=0.0), tried(OPENVINO, lost=0.0)]) == {}
