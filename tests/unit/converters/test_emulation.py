from pathlib import Path

from converters.caching.cache import Cache
from converters.caching.stages import Stages, environment_here
from converters.evaluation.emulation import Emulator, list_emulators
from converters.pipeline.build import answers_here
from converters.planning.kernels import kernels_of, may_saturate

VNNI = ("avx", "avx2", "fma", "avx512f", "avx512_vnni")
AVX2 = ("avx", "avx2", "fma")


def test_only_x86_without_a_dot_product_may_saturate() -> None:
    assert may_saturate("x86_64", AVX2)
    assert may_saturate("x86_64", (*AVX2, "avx512f", "avx512bw"))
    assert not may_saturate("x86_64", VNNI)
    assert not may_saturate("x86_64", (*AVX2, "avx_vnni"))
    assert not may_saturate("aarch64", ("asimd",))
    assert {kernels_of("x86_64", AVX2), kernels_of("aarch64", ())} == {"x86_64 without VNNI", "aarch64"}


def test_an_older_cpu_is_emulated_only_where_the_machine_is_not_one() -> None:
    (emulator,) = list_emulators("x86_64", VNNI, "/usr/bin/{}".format, aarch64_root=None)

    assert emulator.is_narrow
    assert emulator.command[:3] == ("/usr/bin/qemu-x86_64", "-cpu", "Haswell")
    assert not list_emulators("x86_64", AVX2, "/usr/bin/{}".format, aarch64_root=None)


def test_the_static_build_of_the_emulator_will_do_and_none_is_no_error() -> None:
    def only_static(name: str) -> str | None:
        return f"/usr/bin/{name}" if name.endswith("-static") else None

    (emulator,) = list_emulators("x86_64", VNNI, only_static, aarch64_root=None)

    assert emulator.command[0] == "/usr/bin/qemu-x86_64-static"
    assert not list_emulators("x86_64", VNNI, lambda _: None, aarch64_root=None)


def test_arm_needs_a_root_file_system_of_its_own(tmp_path: Path) -> None:
    (emulator,) = list_emulators("x86_64", AVX2, "/usr/bin/{}".format, aarch64_root=tmp_path)

    assert (emulator.arch, emulator.is_narrow) == ("aarch64", False)
    assert str(tmp_path) in emulator.command


def test_what_is_installed_below_the_root_is_known_without_starting_it(tmp_path: Path) -> None:
    packages = tmp_path / "usr/local/lib/python3.11/dist-packages"
    (packages / "onnxruntime-1.20.0.dist-info").mkdir(parents=True)
    (packages / "onnxruntime-1.20.0.dist-info/METADATA").write_text("Name: onnxruntime\nVersion: 1.20.0\n")

    (emulator,) = list_emulators("x86_64", AVX2, "/usr/bin/{}".format, aarch64_root=tmp_path)

    assert emulator.installed == ("onnxruntime 1.20.0",)


def test_an_emulator_that_did_not_start_is_tried_again_and_one_that_did_is_not(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text('#!/bin/sh\necho started >> "$0.log"\ntest -e "$0.works"\n')
    program.chmod(0o755)
    emulator = Emulator("aarch64", (), (str(program),), ("onnxruntime",))

    def probe() -> bool:
        return answers_here(emulator, Stages(environment_here({}), Cache(tmp_path / "cache")))

    assert not probe()
    (tmp_path / "qemu.works").touch()
    assert probe()
    assert probe()
    assert (tmp_path / "qemu.log").read_text().count("started") == 2
