import errno
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.caching.cache import Cache
from converters.caching.stages import (
    Environment,
    Once,
    Stage,
    StageEvent,
    Stages,
    environment_here,
    key_of,
    pack,
    unpack,
)
from converters.errors import BadDataset, CannotWrite, CompileFailed
from edge_runtime.contract.digest import Digest
from edge_runtime.inference.backend import Array

HERE = Environment(tools={"onnxruntime": "1.32.0"}, code=Digest("sha256:0"), machine={"arch": "x86_64"})
STAGE = Stage("compile", "ort-int8", {"model": "sha256:1", "options": {"reduce_range": True}})


@dataclass(frozen=True, slots=True)
class Made:
    files: dict[str, bytes]
    answers: Array
    drop: float | None = None


MADE = Made({"model": b"weights"}, np.arange(6, dtype=np.float32).reshape(2, 3), 0.25)


class Counted:
    """Work that remembers how often it was done."""

    def __init__(self, result: Made = MADE) -> None:
        self.times = 0
        self.result = result

    def __call__(self) -> Made:
        self.times += 1
        return self.result


def states(stages: Stages) -> list[str]:
    return [event.state for event in stages.log]


def test_a_stage_is_done_once_and_found_by_the_next_run(tmp_path: Path) -> None:
    work = Counted()
    first, second = Stages(HERE, Cache(tmp_path)), Stages(HERE, Cache(tmp_path))

    first.run(STAGE, Made, work)
    found = second.run(STAGE, Made, work)

    assert work.times == 1
    assert found.files == MADE.files
    assert found.drop == MADE.drop
    np.testing.assert_array_equal(found.answers, MADE.answers)
    assert found.answers.dtype == np.float32
    assert (states(first), states(second)) == (["done"], ["cached"])


def test_without_a_cache_every_stage_is_done() -> None:
    work, stages = Counted(), Stages(HERE)

    stages.run(STAGE, Made, work)
    stages.run(STAGE, Made, work)

    assert work.times == 2


@pytest.mark.parametrize(
    "changed",
    [
        (Stage("measure", "ort-int8", STAGE.inputs), HERE),
        (Stage("compile", "ort-int8", {**STAGE.inputs, "model": "sha256:2"}), HERE),
        (Stage("compile", "ort-int8", {**STAGE.inputs, "options": {"reduce_range": False}}), HERE),
        (STAGE, Environment({"onnxruntime": "1.33.0"}, HERE.code, HERE.machine)),
        (STAGE, Environment(HERE.tools, Digest("sha256:9"), HERE.machine)),
        (STAGE, Environment(HERE.tools, HERE.code, {"arch": "aarch64"})),
    ],
    ids=["kind", "input", "option", "tool", "code", "machine"],
)
def test_whatever_a_result_depends_on_changes_its_key(changed: tuple[Stage, Environment]) -> None:
    assert key_of(*changed) != key_of(STAGE, HERE)


def test_what_a_stage_is_called_and_an_unbound_machine_do_not_change_its_key() -> None:
    unbound = Stage("calibration", "photos", {"data": "sha256:1"}, is_machine_bound=False)
    elsewhere = Environment(HERE.tools, HERE.code, {"arch": "aarch64"})

    assert key_of(unbound, HERE) == key_of(unbound, elsewhere)
    assert key_of(Stage("compile", "renamed", STAGE.inputs), HERE) == key_of(STAGE, HERE)


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4) | st.floats(allow_nan=False,
       allow_infinity=False), max_size=4))  # fmt: skip
def test_the_order_in_which_inputs_are_named_does_not_change_a_key(inputs: dict[str, object]) -> None:
    backwards = dict(reversed(list(inputs.items())))

    assert key_of(Stage("s", "", inputs), HERE) == key_of(Stage("s", "", backwards), HERE)


def test_a_stage_that_failed_is_tried_again(tmp_path: Path) -> None:
    stages = Stages(HERE, Cache(tmp_path))

    def refuse() -> Made:
        raise CompileFailed("compile", "out of memory")

    with pytest.raises(CompileFailed):
        stages.run(STAGE, Made, refuse)
    stages.run(STAGE, Made, Counted())

    assert states(stages) == ["failed", "done"]


@pytest.mark.parametrize("content", [b"", b"\xc1", pack({"other": 1}), pack(Made({}, np.zeros(1)))[:-3]])
def test_a_result_that_cannot_be_read_is_made_again(tmp_path: Path, content: bytes) -> None:
    work, cache = Counted(), Cache(tmp_path)
    cache.store(key_of(STAGE, HERE), "compile", "", {"result.msgpack": content})

    found = Stages(HERE, cache).run(STAGE, Made, work)

    assert work.times == 1
    assert found.files == MADE.files


def test_a_folder_is_filled_once(tmp_path: Path) -> None:
    done: list[Path] = []

    def write(folder: Path) -> None:
        done.append(folder)
        (folder / "0.npz").write_bytes(b"numbers")

    filled = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        filled.append(Stages(HERE, Cache(tmp_path / "cache")).fill(STAGE, tmp_path / name, write))

    assert done == [tmp_path / "first"]
    assert [one.read("0.npz") for one in filled] == [b"numbers", b"numbers"]
    assert list((tmp_path / "second").iterdir()) == []
    assert (filled[1].folder() / "0.npz").read_bytes() == b"numbers"


def test_a_folder_whose_entry_went_away_meanwhile_is_filled_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()

    def write(folder: Path) -> None:
        (folder / "0.npz").write_bytes(b"numbers")

    Stages(HERE, cache).fill(STAGE, tmp_path / "first", write)
    found = Stages(HERE, cache).fill(STAGE, tmp_path / "second", write)
    cache.clear()

    assert found.read("0.npz") == b"numbers"


def test_a_full_disk_below_a_stage_is_one_clear_error(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "work").mkdir()

    with pytest.raises(CannotWrite, match=r"cannot prepare compile ort-int8 .*: No space left on device; free some"):
        Stages(HERE).fill(STAGE, tmp_path / "work", write)


def test_what_cannot_be_made_fails_once_and_everybody_who_asks_hears_why(tmp_path: Path) -> None:
    def make() -> Path:
        (tmp_path / "calibration").mkdir()
        raise BadDataset("use 3.png", "it is cut")

    workshop = Once(make)

    for _ in range(2):
        with pytest.raises(BadDataset, match=r"cannot use 3\.png: it is cut"):
            workshop()


def test_a_listener_hears_what_begins_and_how_it_ends() -> None:
    heard: list[StageEvent] = []

    Stages(HERE, listener=heard.append).run(STAGE, Made, Counted())

    assert {event.title for event in heard} == {"compile ort-int8"}
    assert [event.state for event in heard] == ["running", "done"]


def test_arrays_that_would_run_code_are_neither_kept_nor_read() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        pack(np.array([object()], dtype=object))


@pytest.mark.parametrize("header", ["{'descr': (", "(" * 5000, "{'descr':'<f4','fortran_order':False,'shape':(9,)}"])
def test_a_damaged_result_in_the_cache_is_made_again(tmp_path: Path, header: str) -> None:
    body = b"\x93NUMPY\x01\x00" + len(header + "\n").to_bytes(2, "little") + header.encode() + b"\n"
    damaged = msgspec.msgpack.encode({"files": {}, "answers": body})
    cache, work = Cache(tmp_path), Counted()
    cache.store(key_of(STAGE, HERE), "compile", "", {"result.msgpack": damaged})

    found = Stages(HERE, cache).run(STAGE, Made, work)

    assert (work.times, found.files) == (1, MADE.files)


def test_packing_is_deterministic_and_reversible() -> None:
    assert pack(MADE) == pack(Made(dict(MADE.files), MADE.answers.copy(), 0.25))
    assert unpack(pack(MADE), Made).files == MADE.files


def test_the_code_of_this_package_is_part_of_every_key() -> None:
    here = environment_here({})

    assert here.code.startswith("sha256:")
    assert here.tools["numpy"] == np.__version__


def said(folder: Path) -> None:
    (folder / "said").write_bytes(pack(MADE))


def test_a_damaged_file_of_a_filled_folder_does_the_stage_again_and_says_so(tmp_path: Path) -> None:
    cache, heard = Cache(tmp_path / "cache"), []
    cache.store(key_of(STAGE, HERE), "compile", "", {"said": b"\x81nonsense", "more": b""})
    (tmp_path / "work").mkdir()

    found = Stages(HERE, cache, heard.append).fill(STAGE, tmp_path / "work", said)

    assert found.value("said", Made).files == MADE.files
    assert [event.state for event in heard] == ["cached", "running", "done"]
    assert [path.name for path in found.folder().iterdir()] == ["said"]


def test_files_from_the_cache_that_fail_their_check_are_written_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.store(key_of(STAGE, HERE), "compile", "", {"said": b"\x81nonsense"})
    (tmp_path / "work").mkdir()

    found = Stages(HERE, cache).fill(
        STAGE, tmp_path / "work", said, lambda folder: unpack((folder / "said").read_bytes(), Made)
    )

    assert (found.folder() / "said").read_bytes() == pack(MADE)
    assert cache.read(key_of(STAGE, HERE), "said") == pack(MADE)
