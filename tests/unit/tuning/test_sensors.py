"""Energy from the files that Linux shows, and the reason where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_runtime.contract.errors import InferenceError
from edge_runtime.tuning.sensors import Ina3221, Rapl, find_sensor
from tests.fakes.mqtt_client import eventually


def rapl(root: Path, **energy_uj: int) -> Path:
    for name, value in energy_uj.items():
        zone = root / name.replace("_", ":").replace("rapl", "intel-rapl")
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "energy_uj").write_text(f"{value}\n")
        (zone / "max_energy_range_uj").write_text("1000000\n")
    return root


def ina(root: Path, rails: dict[str, tuple[int, int]]) -> Path:
    chip = root / "hwmon3"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina3221\n")
    for channel, (label, (millivolt, milliampere)) in enumerate(rails.items(), 1):
        (chip / f"in{channel}_label").write_text(label + "\n")
        (chip / f"in{channel}_input").write_text(f"{millivolt}\n")
        (chip / f"curr{channel}_input").write_text(f"{milliampere}\n")
    return root


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    sensor = Rapl(rapl(tmp_path, rapl_0=100, rapl_1=200, rapl_0_0=50))
    sensor.start()
    rapl(tmp_path, rapl_0=600_100, rapl_1=400_200, rapl_0_0=900_000)

    assert sensor.stop() == pytest.approx(1.0)
    assert sensor.title == "RAPL, 2 packages"


def test_a_counter_that_wrapped_around_is_put_right(tmp_path: Path) -> None:
    sensor = Rapl(rapl(tmp_path, rapl_0=900_000))
    sensor.start()
    rapl(tmp_path, rapl_0=100_000)

    assert sensor.stop() == pytest.approx(0.2)


def test_the_input_rail_of_a_jetson_carries_everything(tmp_path: Path) -> None:
    sensor = Ina3221(ina(tmp_path, {"VDD_IN": (5000, 2000), "VDD_CPU": (5000, 1000)}))
    sensor.start()

    assert sensor.title == "INA3221, VDD_IN"
    assert eventually(lambda: sensor._joules > 0)
    assert sensor.stop() > 0


def test_rails_without_a_common_one_are_added_up(tmp_path: Path) -> None:
    sensor = Ina3221(ina(tmp_path, {"CPU": (5000, 1000), "GPU": (5000, 3000)}))

    assert sensor._watts() == pytest.approx(20.0)


def test_a_machine_without_sensors_says_so(tmp_path: Path) -> None:
    found, why = find_sensor(tmp_path / "none", tmp_path / "neither")

    assert found is None
    assert why == "this board has no INA3221 monitor; this machine has no RAPL counter"


def test_a_counter_for_root_only_is_named(tmp_path: Path) -> None:
    root = rapl(tmp_path, rapl_0=1)
    counter = root / "intel-rapl:0" / "energy_uj"
    counter.chmod(0)
    if os.access(counter, os.R_OK):
        # Root reads everything; a folder in the file's place is the nearest that refuses.
        counter.unlink()
        counter.mkdir()

    with pytest.raises(InferenceError, match=r"readable for root only|cannot be read"):
        Rapl(root)
    assert find_sensor(root, tmp_path / "none")[0] is None
