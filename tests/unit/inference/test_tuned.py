"""What was tuned on a machine counts there, with the engine it was tuned with, and never stops a model from opening."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from edge_runtime import Model
from edge_runtime.contract.device_profile import DeviceFacts, EngineFact
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import BackendOptions, Files, Session
from edge_runtime.inference.tuned import FILE_NAME, TunedFrom, default_folder, fingerprint_of, read_choices
from edge_runtime.inference.tuned_choice import TunedChoice
from edge_runtime.serving.variants import read_origin
from edge_runtime.tuning.kept import keep
from tests.fakes.models import Build, SpyBackend, write_release

FACTS = DeviceFacts(
    arch="x86_64", isa=["avx2"], cpu="Some CPU", cores=4, memory_bytes=2**33, os="Linux", python="3.11",
    engines=[EngineFact(name="onnxruntime", version="1.20.0", providers=["cpu"])],
)  # fmt: skip


class Listening(SpyBackend):
    """Remembers with which options it was asked to open."""

    def __init__(self) -> None:
        super().__init__()
        self.options: list[BackendOptions] = []
        self.providers: list[list[str]] = []

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        self.options.append(options)
        self.providers.append(manifest.target.provider)
        return super().open(files, manifest, options)


def opened(release: Path, state: TunedFrom, facts: DeviceFacts = FACTS, **wishes: object) -> tuple[str, int | None]:
    """The variant that was taken, and the threads it was opened with."""
    backend = Listening()
    with Model.open(release, facts=facts, registry={"onnxruntime": backend}, tuned=state, **wishes) as model:  # type: ignore[arg-type]
        return model.variant_id, backend.options[-1].threads


def choice(folder: Path, variant: str, **changes: object) -> TunedChoice:
    with Model.open(folder, variant=variant, facts=FACTS, registry={"onnxruntime": SpyBackend()}) as model:
        made = TunedChoice(
            release=model.release_digest, variant=model.variant_digest, fingerprint=fingerprint_of(FACTS),
            engine="onnxruntime 1.20.0", threads=3, batch=1, p50_ms=1.0, at="2026-11-24T10:00:00Z", is_winner=True,
        )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_release(tmp_path / "r", [Build("a-usual"), Build("b-tuned", options={"intra_op_threads": "tune"})])
    return tmp_path / "r"


def kept(state: Path, *choices: TunedChoice) -> Path:
    keep(state, choices[0].release, choices[0].fingerprint, choices)
    return state


def test_the_winner_is_taken_with_its_threads(release: Path, tmp_path: Path) -> None:
    assert opened(release, tmp_path / "none") == ("a-usual", None)

    assert opened(release, kept(tmp_path / "s", choice(release, "b-tuned"))) == ("b-tuned", 3)


def test_of_several_providers_the_tuned_one_alone_is_opened(tmp_path: Path) -> None:
    write_release(tmp_path / "r", [Build("two", providers=("cuda", "cpu"))])
    backend = Listening()
    state = kept(tmp_path / "s", choice(tmp_path / "r", "two", provider="cpu"))

    with Model.open(tmp_path / "r", facts=FACTS, registry={"onnxruntime": backend}, tuned=state) as model:
        assert backend.providers == [["cpu"]]
        assert model.variant.manifest.target.provider == ["cuda", "cpu"]


def test_what_the_caller_wishes_comes_first(release: Path, tmp_path: Path) -> None:
    state = kept(tmp_path / "s", choice(release, "b-tuned"))

    assert opened(release, state, threads=1) == ("b-tuned", 1)
    assert opened(release, state, variant="a-usual") == ("a-usual", None)


def test_models_that_are_served_begin_with_the_winner(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path / "edgefleet", choice(release, "b-tuned"))
    usual = read_origin(release, None, lambda _engines: FACTS)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    tuned = read_origin(release, None, lambda _engines: FACTS)

    assert [one.id for one in usual.variants] == ["a-usual", "b-tuned"]
    assert [one.id for one in tuned.variants] == ["b-tuned", "a-usual"]


def test_threads_that_a_variant_fixes_stay(tmp_path: Path) -> None:
    write_release(tmp_path / "r", [Build("fixed", options={"intra_op_threads": 2})])

    assert opened(tmp_path / "r", kept(tmp_path / "s", choice(tmp_path / "r", "fixed"))) == ("fixed", None)


@pytest.mark.parametrize(
    "changes",
    [{"cores": 8}, {"isa": ["avx2", "fma"]}, {"cpu": "Another"},
     {"engines": [EngineFact(name="onnxruntime", version="1.21.0", providers=["cpu"])]}],
)  # fmt: skip
def test_another_machine_or_engine_version_has_another_choice(release: Path, tmp_path: Path, changes) -> None:
    state = kept(tmp_path / "s", choice(release, "b-tuned"))

    assert opened(release, state, msgspec.structs.replace(FACTS, **changes)) == ("a-usual", None)


@pytest.mark.parametrize("content", [b"", b"{", b'{"choices":[{}]}', b'{"schema":"9.0","choices":[]}', b"[" * 9999])
def test_a_file_that_cannot_be_read_stops_no_model(release: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)

    assert read_choices(tmp_path) == ()
    assert opened(release, tmp_path) == ("a-usual", None)


def test_who_wakes_up_an_accelerator_and_who_does_not_find_the_same_choices(release: Path, tmp_path: Path) -> None:
    state = kept(tmp_path / "s", choice(release, "b-tuned"))

    assert opened(release, state, msgspec.structs.replace(FACTS, accelerators=["nvidia-gpu"])) == ("b-tuned", 3)


def test_a_provider_that_is_gone_takes_its_choice_along(tmp_path: Path) -> None:
    write_release(tmp_path / "r", [Build("two", providers=("cuda", "cpu"))])
    backend = Listening()
    state = kept(tmp_path / "s", choice(tmp_path / "r", "two", provider="cuda"))

    with Model.open(tmp_path / "r", facts=FACTS, registry={"onnxruntime": backend}, tuned=state) as model:
        assert model.tuned is None
    assert backend.providers == [["cuda", "cpu"]]


def test_choices_of_other_releases_stay_when_one_is_kept_or_forgotten(release: Path, tmp_path: Path) -> None:
    mine, other = choice(release, "b-tuned"), choice(release, "b-tuned", release=digest_of(b"other"))
    kept(kept(tmp_path / "s", other), mine)
    assert set(read_choices(tmp_path / "s")) == {mine, other}

    keep(tmp_path / "s", mine.release, mine.fingerprint, [])

    assert read_choices(tmp_path / "s") == (other,)
    assert [path.name for path in (tmp_path / "s").iterdir()] == [FILE_NAME]


def test_several_who_tune_at_once_each_keep_what_they_found(release: Path, tmp_path: Path) -> None:
    found = [choice(release, "b-tuned", release=digest_of(b"%d" % number)) for number in range(16)]

    with ThreadPoolExecutor(len(found)) as crew:
        list(crew.map(lambda one: kept(tmp_path / "s", one), found))

    assert set(read_choices(tmp_path / "s")) == set(found)
    assert [path.name for path in (tmp_path / "s").iterdir()] == [FILE_NAME]


def test_a_model_opens_as_if_nothing_had_been_tuned_when_it_is_told_so(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path / "edgefleet", choice(release, "b-tuned"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert opened(release, None) == ("b-tuned", 3)
    assert opened(release, "off") == ("a-usual", None)


def test_choices_lie_where_the_desktop_specification_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_folder() == Path("/var/state/edgefleet")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder() == Path("/home/me/.local/state/edgefleet")


@pytest.mark.parametrize("threads", [-5, 0, 10**7])
def test_a_number_of_threads_that_no_machine_has_is_not_tried(release: Path, tmp_path: Path, threads: int) -> None:
    made = choice(release, "b-tuned", threads=threads)
    keep(tmp_path / "state", made.release, made.fingerprint, [made])

    assert opened(release, tmp_path / "state") == ("a-usual", None)


@pytest.mark.parametrize("batch", [-1, 0, 10**9])
def test_a_batch_that_nobody_measured_is_not_tried(release: Path, tmp_path: Path, batch: int) -> None:
    made = choice(release, "b-tuned", batch=batch)
    keep(tmp_path / "state", made.release, made.fingerprint, [made])

    assert opened(release, tmp_path / "state") == ("a-usual", None)


def test_a_choice_for_a_provider_that_does_not_work_here_is_passed_over(release: Path, tmp_path: Path) -> None:
    made = choice(release, "b-tuned", provider="npu")
    keep(tmp_path / "state", made.release, made.fingerprint, [made])

    assert opened(release, tmp_path / "state", variant="b-tuned") == ("b-tuned", None)
