"""Isolated environments: whole or absent, named by their pins, and never mistaken for ready."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from converters.errors import BadToolchain
from converters.toolchains import TOOLCHAINS, find_installed, install, need_installed, toolchains_folder, why_missing
from edge_runtime.inference.environments.pinned import Pinned, find_python

OURS = (sys.version_info.major, sys.version_info.minor)


def wheel(folder: Path, name: str, python: str) -> Path:
    """A package of one module, which asks for that Python."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "ANSWER = 42\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Python: {python}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def stamp(place: Path, version: tuple[int, int], program: str) -> None:
    """What says that an environment was made to its end, and with which Python."""
    told = {"pins": [], "python": version, "program": program}
    (place / "ready.json").write_text(json.dumps(told))


def toolchain(*pins: str, probe: str = "pass", made_for: tuple[int, int] = OURS) -> Pinned:
    return Pinned("t", "for tests", pins, made_for, OURS, 1, probe)


def test_an_environment_is_made_once_and_runs_without_anything_of_ours(tmp_path: Path) -> None:
    made = toolchain(str(wheel(tmp_path, "isolated_thing", ">=3.8")), probe="import isolated_thing")
    said: list[str] = []

    installed = install(made, said.append, tmp_path / "chains")
    again = install(made, pytest.fail, tmp_path / "chains")

    program = "import isolated_thing\ntry:\n import msgspec\nexcept ImportError: print(isolated_thing.ANSWER)"
    finished = subprocess.run(
        [installed.python, "-c", program], env=installed.environment(), capture_output=True, text=True, check=True
    )
    assert finished.stdout == "42\n"
    assert again == installed == find_installed(made, tmp_path / "chains")
    assert said


@pytest.mark.lab
def test_a_package_that_wrongly_denies_an_older_python_is_installed_all_the_same(tmp_path: Path) -> None:
    newer = (OURS[0], OURS[1] + 7)
    made = toolchain(
        str(wheel(tmp_path, "picky_thing", f">={newer[0]}.{newer[1]}")), probe="import picky_thing", made_for=newer
    )

    installed = install(made, lambda _: None, tmp_path / "chains")

    assert installed.python.exists()


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    made = toolchain(str(wheel(tmp_path, "isolated_thing", ">=3.8")), probe="import isolated_thing")
    place = tmp_path / "chains" / made.key(OURS)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(tmp_path / "an-older-python")
    stamp(place, OURS, "/usr/bin/an-older-python")

    found, why = find_installed(made, tmp_path / "chains"), why_missing(made, tmp_path / "chains")
    installed = install(made, lambda _: None, tmp_path / "chains")

    assert found is None
    assert why == f"the environment {place} has lost its Python (/usr/bin/an-older-python)"
    assert installed.python.exists()


def test_an_environment_in_whose_place_another_python_stands_is_not_ready(tmp_path: Path) -> None:
    made = toolchain("x==1")
    place = tmp_path / made.key(OURS)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    stamp(place, (3, 2), "/usr/bin/python3.2")

    assert find_installed(made, tmp_path) is None
    assert "was made for Python 3.2, and another is in its place" in why_missing(made, tmp_path)


def test_a_python_that_only_moved_keeps_its_environment(tmp_path: Path) -> None:
    made = toolchain("x==1")
    place = tmp_path / made.key(OURS)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    stamp(place, OURS, "/opt/where-it-was/python")

    assert find_installed(made, tmp_path) is not None


def test_an_environment_of_another_python_or_machine_is_not_ours(tmp_path: Path) -> None:
    made = toolchain("x==1")
    place = tmp_path / f"{made.any_key}-cp32-mips-linux-gnu"
    place.mkdir()

    assert made.key(OURS) != made.key((3, 2))
    assert find_installed(made, tmp_path) is None
    assert why_missing(made, tmp_path) == f"the environment {place} was made for another Python or machine"


def test_environments_that_only_their_pins_named_are_removed_once_there_is_another(tmp_path: Path) -> None:
    made, chains = toolchain(str(wheel(tmp_path, "isolated_thing", ">=3.8"))), tmp_path / "chains"
    others = [f"{made.any_key}-cp32-mips-linux-gnu", "t-runtime-0123456789ab", "t-0123456789abcdef"]
    for name in (made.any_key, "t-0123456789ab", *others):
        (chains / name / "bin").mkdir(parents=True)
    (chains / "t-ba9876543210").touch()
    said: list[str] = []

    installed = install(made, said.append, chains)

    kept = {one.name for one in chains.iterdir() if one.is_dir()}
    assert kept == {installed.folder.name, *others}
    assert f"removing {chains / 't-0123456789ab'}, which nothing uses any more" in said


def test_one_that_is_ready_and_broken_is_made_anew_when_it_is_asked_for(tmp_path: Path) -> None:
    made = toolchain(str(wheel(tmp_path, "isolated_thing", ">=3.8")), probe="import isolated_thing")
    installed = install(made, lambda _: None, tmp_path / "chains")
    [module] = installed.folder.glob("lib/python*/site-packages/isolated_thing.py")
    module.unlink()

    again = install(made, lambda _: None, tmp_path / "chains")

    assert again == installed
    assert module.exists()


@pytest.mark.parametrize("broken", ["pin", "probe"])
def test_what_cannot_be_installed_leaves_nothing_and_says_why_in_one_line(tmp_path: Path, broken: str) -> None:
    sound = str(wheel(tmp_path, "isolated_thing", ">=3.8"))
    made = toolchain(str(tmp_path / "absent-1.0-py3-none-any.whl")) if broken == "pin" else toolchain(
        sound, probe="raise SystemExit('it does not run here')"
    )  # fmt: skip

    with pytest.raises(BadToolchain, match=r"^cannot install toolchain t: .+; check the network") as refused:
        install(made, lambda _: None, tmp_path / "chains")

    assert "\n" not in str(refused.value)
    assert find_installed(made, tmp_path / "chains") is None
    assert not (tmp_path / "chains" / made.key(OURS)).exists()


def test_a_half_made_environment_is_not_ready_and_is_made_again(tmp_path: Path) -> None:
    made = toolchain(str(wheel(tmp_path, "isolated_thing", ">=3.8")))
    leftover = tmp_path / "chains" / made.key(OURS) / "bin" / "python"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("cut off in the middle")

    assert find_installed(made, tmp_path / "chains") is None
    assert install(made, lambda _: None, tmp_path / "chains").python.stat().st_size != len("cut off in the middle")


def test_other_pins_are_another_environment() -> None:
    one = TOOLCHAINS["tflite"]

    assert one.key(OURS) != replace(one, pins=(*one.pins[:-1], "typing-extensions==4.0")).key(OURS)


def test_a_python_that_is_too_old_is_refused_with_the_one_that_is_needed(tmp_path: Path) -> None:
    future = (9, 9)
    made = replace(toolchain("x==1"), made_for=future, oldest=future)

    assert find_python(future, future) is None
    with pytest.raises(BadToolchain, match=r"Python 9\.9 is not installed; install Python 9\.9"):
        install(made, lambda _: None, tmp_path)


def test_a_program_that_only_pretends_to_be_the_wanted_python_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "python9.9"
    stub.write_text("#!/bin/sh\necho 'version manager: python9.9 is not active' >&2\nexit 127\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_python((9, 9), OURS) == (sys.executable, OURS)


def test_what_is_missing_names_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFLEET_TOOLCHAINS", str(tmp_path))

    with pytest.raises(BadToolchain, match="edge-convert toolchain install tflite-quant"):
        need_installed("tflite-quant")
    with pytest.raises(BadToolchain, match="use tflite, tflite-quant"):
        need_installed("tflight")
    assert toolchains_folder() == tmp_path


def test_every_pin_is_exact() -> None:
    assert all("==" in pin for one in TOOLCHAINS.values() for pin in one.pins)
