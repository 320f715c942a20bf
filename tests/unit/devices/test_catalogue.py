import pytest

from devices.catalogue import FAMILIES, aliases_of, load_catalogue, parse_profile, resolve_targets
from devices.errors import DeviceError, UnknownTarget
from edge_runtime.contract.errors import ContractError

GOOD = b"""schema = "1.0"
id = "toaster"
title = "A toaster"
family = "kitchen"
arch = "x86_64"
isa = []
memory_bytes = 1
support_tier = "described"
[engines]
onnxruntime = "1.20"
"""


def test_every_profile_loads_and_belongs_to_its_family() -> None:
    catalogue = load_catalogue()

    assert {profile.id for profile in catalogue.values()} >= {"x86-64-cpu", "arm64-cpu", "raspberry-pi-5"}
    assert {member for members in FAMILIES.values() for member in members} <= catalogue.keys()


def test_no_profile_claims_a_measurement_that_is_not_committed() -> None:
    assert all(profile.support_tier != "measured" for profile in load_catalogue().values())


def test_accelerated_boards_are_described_with_the_engines_they_have() -> None:
    catalogue = load_catalogue()

    for name in FAMILIES["coral"]:
        assert catalogue[name].accelerator == "edgetpu-v1"
        assert "litert" in catalogue[name].engines
    for name in FAMILIES["jetson"]:
        assert catalogue[name].accelerator == "nvidia-gpu"
        assert "tensorrt" in catalogue[name].engines
    assert all("onnxruntime" in profile.engines for profile in catalogue.values())


def test_a_family_stands_for_its_profiles_each_once() -> None:
    chosen = [profile.id for profile in resolve_targets(("cpu", "raspberry-pi-5"))]

    assert chosen == ["arm64-cpu", "raspberry-pi-5", "x86-64-cpu"]
    assert aliases_of("raspberry-pi-5") == ("cpu",)


def test_an_unknown_target_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownTarget, match="use cpu, coral, jetson, arm64-cpu"):
        resolve_targets(("toaster",))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((b'arch = "x86_64"', b'arch = "x86_64"\nturbo = true'), "turbo"),
        ((b'arch = "x86_64"', b""), "arch"),
        ((b'id = "toaster"', b'id = "kettle"'), "calls itself"),
        ((b'"described"', b'"splendid"'), "support tier"),
        ((b"memory_bytes = 1", b"memory_bytes = "), "read profile"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(change: tuple[bytes, bytes], says: str) -> None:
    with pytest.raises((DeviceError, ContractError), match=says):
        parse_profile(GOOD.replace(*change), "toaster.toml")


def test_a_sound_profile_is_read() -> None:
    assert parse_profile(GOOD, "toaster.toml").engines == {"onnxruntime": "1.20"}
