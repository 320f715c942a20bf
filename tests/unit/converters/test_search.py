from converters.planner import Candidate, plan_build
from converters.search import Tried, find_better
from devices.catalogue import resolve_targets
from tests.unit.converters.test_recipe import parsed

PLAN = plan_build(
    parsed(prefer="size"), resolve_targets(("cpu",)), {"onnxruntime": True, "openvino": True, "nncf": True}
)
BY_ID = {one.id: one for one in PLAN.candidates}
FLOAT, TENSOR, FULL, SAFE, OPENVINO = (
    BY_ID[name] for name in ("ort-float32", "ort-int8-tensor", "ort-int8-full", "ort-int8", "openvino-int8")
)


def tried(candidate: Candidate, *, ships: bool = True, lost: float = 0.0) -> Tried:
    return Tried(candidate, ships, lost)


def test_the_first_int8_variant_that_passes_ends_the_search_of_its_engine_only() -> None:
    passed = [tried(FLOAT), tried(TENSOR)]

    assert find_better(SAFE, passed, "size") == "ort-int8-tensor passed, and size prefers it"
    assert not find_better(OPENVINO, passed, "size")


def test_a_refused_variant_and_a_float_variant_end_nothing() -> None:
    assert not find_better(FULL, [tried(FLOAT), tried(TENSOR, ships=False)], "size")


def test_the_float_variant_is_always_built() -> None:
    assert not find_better(FLOAT, [tried(TENSOR)], "size")


def test_who_prefers_accuracy_goes_on_while_something_is_lost() -> None:
    assert not find_better(SAFE, [tried(FULL, lost=0.002)], "accuracy")
    assert find_better(SAFE, [tried(FULL, lost=0.0)], "accuracy")
