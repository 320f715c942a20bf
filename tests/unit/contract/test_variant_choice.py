"""Which variant fits which device, and in which order."""

import pytest

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import EngineRequirement, Resources, VariantManifest
from edge_runtime.contract.target import Target
from edge_runtime.contract.variant_choice import OfferedVariant, choose, find_misfit, version_satisfies
from tests.fakes.documents import facts, variant_manifest


def offered(manifest: VariantManifest, latency_ms: float | None = None) -> OfferedVariant:
    return OfferedVariant(digest_of(manifest.id.encode()), manifest, latency_ms)


INT8 = offered(variant_manifest("ort-int8", "int8"))
FLOAT = offered(variant_manifest())


def test_an_unmeasured_int8_variant_is_tried_before_the_float_one() -> None:
    assert choose((FLOAT, INT8), facts()).candidates == (INT8, FLOAT)


def test_a_measured_faster_variant_comes_first_whatever_its_precision() -> None:
    fast = offered(FLOAT.manifest, latency_ms=1.0)
    slow = offered(INT8.manifest, latency_ms=1.2)

    assert choose((slow, fast), facts()).candidates == (fast, slow)


def test_the_winner_of_the_device_class_comes_first() -> None:
    assert choose((INT8, FLOAT), facts(), winner=FLOAT.digest).candidates[0] == FLOAT


def test_the_order_does_not_depend_on_the_order_of_the_offer() -> None:
    assert choose((INT8, FLOAT), facts()) == choose((FLOAT, INT8), facts())


@pytest.mark.parametrize(
    ("changes", "device", "because"),
    [
        ({"target": Target(engine="openvino", precision="int8")}, {}, "the device has no openvino"),
        ({"target": Target(engine="onnxruntime", precision="int8", arch=["aarch64"])}, {}, "this device is x86_64"),
        ({"target": Target(engine="onnxruntime", precision="int8", isa_all=["avx512_vnni"])}, {}, "lacks avx512_vnni"),
        ({"target": Target(engine="onnxruntime", precision="int8", accelerator="nvidia-gpu")}, {}, "no nvidia-gpu"),
        ({"target": Target(engine="onnxruntime", precision="int8", provider=["cuda"])}, {}, "needs provider cuda"),
        ({"engine": EngineRequirement(version=">=99")}, {}, "needs onnxruntime >=99"),
        ({"requires": ["telepathy"]}, {}, "requires 'telepathy'"),
        ({"resources": Resources(peak_bytes=900, method="x")}, {"memory_bytes": 1000}, "the device grants 800"),
    ],
)
def test_a_variant_that_cannot_run_is_rejected_with_the_reason(
    changes: dict[str, object], device: dict[str, object], because: str
) -> None:
    misfit = find_misfit(variant_manifest("odd", **changes), facts(**device))

    assert misfit is not None
    assert misfit.variant == VariantId("odd")
    assert because in misfit.because


def test_an_engine_with_several_providers_fits_when_one_matches() -> None:
    gpu = facts(engines=[EngineFact(name="onnxruntime", version="1.32.0", providers=["cuda", "cpu"])])

    assert find_misfit(variant_manifest(), gpu) is None


@pytest.mark.parametrize(
    ("version", "requirement", "holds"),
    [
        ("1.17", ">=1.17", True),
        ("1.17.0", ">=1.17", True),
        ("1.9", ">=1.17", False),
        ("1.18.1+cu12", ">=1.17,<2", True),
        ("2.0", ">=1.17,<2", False),
        ("1.0", None, True),
        ("1.0", "about 1", False),
        ("unknown", ">=1", False),
        ("2026.4.1-22982", ">=2024.4", True),
        ("1.17rc1.5", "==1.17", True),
        ("1.17", " >= 1.17 , < 2 ", True),
        ("1.17", "!=1.17", False),
        ("1.17", "<=1.17.0", True),
        ("1.17", ">=1.", False),
        ("1.17", ">=1.x", False),
        ("1.17", ">=-1", False),
        ("1.17", ">=\u0661", False),
        ("1.17", ">", False),
        ("v1.17", ">=1", False),
    ],
)
def test_version_requirements(version: str, requirement: str | None, holds: bool) -> None:
    assert version_satisfies(version, requirement) is holds
