import sys
from pathlib import Path

import numpy as np
import pytest

from converters.caching.cache import Cache
from converters.caching.stages import Stages, environment_here
from converters.evaluation import emulation
from converters.evaluation.emulation import Emulator, Subject, answer_elsewhere, list_emulators
from converters.evaluation.evaluate import Evaluated
from converters.evaluation.metrics.metric import Score
from converters.pipeline.asking import beside_here
from converters.pipeline.build import answers_here
from converters.planning.judge import Answered
from converters.planning.kernels import UNMEASURED, kernels_of, may_saturate
from edge_runtime.contract.errors import InferenceError
from tests.fakes.models import Build, release_manifest

VNNI = ("avx", "avx2", "fma", "avx512f", "avx512_vnni")
AVX2 = ("avx", "avx2", "fma")
_HERE = Emulator("x86_64", AVX2, (sys.executable,))
"""This machine itself, started as an emulator is."""


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


def test_whoever_waits_for_an_emulated_engine_hears_of_every_answer(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    build = Build("ort-float32")
    subject = Subject(release_manifest([build.id]), build.manifest(), {"model": build.content})
    questions = [{"image": np.full((1, 2, 2, 1), shade, np.uint8)} for shade in (0, 100, 200)]
    heard: list[int] = []

    answers = list(answer_elsewhere(_HERE, subject, questions, tmp_path / "asked", heard.append))

    assert heard == [1, 2, 3]
    assert [answer["logits"].shape for answer in answers] == [(1, 4)] * 3


def test_an_emulated_engine_that_ends_says_why(tmp_path: Path) -> None:
    build = Build("ort-float32", content=b"no model")
    subject = Subject(release_manifest([build.id]), build.manifest(), {"model": build.content})

    with pytest.raises(InferenceError, match=r"cannot ask ort-float32 on x86_64 without VNNI: .*refuses it") as raised:
        list(answer_elsewhere(_HERE, subject, [], tmp_path / "asked"))

    assert raised.value.code == UNMEASURED


def test_an_emulated_engine_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "TIMEOUT_S", 0.2)
    build = Build("ort-float32", content=b"")
    subject = Subject(release_manifest([build.id]), build.manifest(), {"model": build.content})
    endless = Emulator("x86_64", AVX2, (sys.executable, "-c", "import time; time.sleep(600)"))

    with pytest.raises(InferenceError, match="it took longer than 0 seconds"):
        list(answer_elsewhere(endless, subject, [], tmp_path / "asked"))


def _asked_elsewhere(shares: tuple[float, float], *, labelled: bool = True) -> Answered:
    """A candidate that loses 0.005 here, asked on a part of 16 samples: right here, and right elsewhere."""
    here = Answered("x86_64", False, (), 0.005 if labelled else None, 0.99, 40.0)
    there = Answered("x86_64 without VNNI", True, (), None, 0.0, 0.0)

    def found(share: float) -> Evaluated:
        score = Score("top1", share, 16) if labelled else None
        return Evaluated(score, Score("top1_agreement", share, 16), 40.0 if share > 0.5 else 6.0, 1.0, None)

    return beside_here(there, here, found(shares[1]), found(shares[0]))


def test_kernels_that_answer_a_part_alike_lose_what_this_machine_loses_on_the_whole() -> None:
    sound = _asked_elsewhere((0.875, 0.875))

    assert (sound.drop, sound.agreement, sound.snr_db) == (0.005, 0.99, 40.0)


def test_one_sample_of_a_part_is_no_loss() -> None:
    rounded = _asked_elsewhere((0.875, 0.8125))

    assert (rounded.drop, rounded.agreement) == (0.005, 0.99)


@pytest.mark.parametrize("labelled", [True, False])
def test_kernels_that_saturate_lose_more_than_this_machine(labelled: bool) -> None:
    saturated = _asked_elsewhere((0.875, 0.25), labelled=labelled)

    assert saturated.drop == (pytest.approx(0.005 + 0.625 - 1 / 16) if labelled else None)
    assert saturated.agreement < 0.5
    assert saturated.snr_db == 6.0
    assert saturated.is_narrow
