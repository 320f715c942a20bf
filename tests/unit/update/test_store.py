"""The content store and the pointers: whole or absent, whatever the disk does."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.contract.digest import Digest, digest_of, digest_of_file, hex_of
from edge_runtime.contract.errors import ContractError, DigestMismatch, TransportError, UpdateError
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.layout import FILE_MEDIA_TYPE, Descriptor
from edge_runtime.update.disk import Disk
from edge_runtime.update.pointers import Pointed, SlotPointers
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from tests.fakes.documents import SLOT

CONTENT = b"model bytes" * 100
BLOB = Descriptor(mediaType=FILE_MEDIA_TYPE, digest=digest_of(CONTENT), size=len(CONTENT))


class FaultyDisk(Disk):
    """The real disk, whose n-th call fails; `calls` counts them."""

    def __init__(self, fails_at: int = 0, number: int = errno.EIO) -> None:
        self.calls = 0
        self._fails_at = fails_at
        self._number = number

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._fails_at:
            raise OSError(self._number, os.strerror(self._number))

    def write(self, path: Path, content: bytes) -> None:
        self._count()
        super().write(path, content)

    def flush(self, path: Path) -> None:
        self._count()
        super().flush(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def flush_folder(self, folder: Path) -> None:
        self._count()
        super().flush_folder(folder)


def fill(content: bytes = CONTENT) -> Callable[[Path], None]:
    def write(stage: Path) -> None:
        stage.write_bytes(content)

    return write


def activation(seq: int) -> Activation:
    digest = digest_of(str(seq).encode())
    return Activation(seq, None, digest, 10, VariantId("a"), digest, {"threshold": 0.5, "region": [0.0, 1.0]})


def leftovers(root: Path) -> list[Path]:
    return [path for folder in ("objects", "stage") for path in (root / folder).iterdir()]


def test_a_blob_is_stored_read_only_under_its_digest(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)

    store.ensure(BLOB, fill())

    path = store.path_of(BLOB.digest)
    assert (path.name, path.read_bytes()) == (hex_of(BLOB.digest), CONTENT)
    assert path.stat().st_mode & 0o777 == 0o444
    assert store.read_blob(BLOB, max_bytes=BLOB.size) == CONTENT
    assert leftovers(tmp_path) == [path]


def test_a_blob_that_is_there_is_not_filled_again(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store.put(CONTENT)

    store.ensure(BLOB, fill(b"never called"))

    store.verify(BLOB)


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"!", b"?" * len(CONTENT), b""])
def test_other_bytes_than_promised_are_never_kept(tmp_path: Path, content: bytes) -> None:
    store = ContentStore(tmp_path)

    with pytest.raises(DigestMismatch):
        store.ensure(BLOB, fill(content))

    assert leftovers(tmp_path) == []


def test_a_broken_download_is_kept_to_be_continued_and_a_failed_one_is_not(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)

    def breaks(error: Exception) -> Callable[[Path], None]:
        def write(stage: Path) -> None:
            stage.write_bytes(CONTENT[:10])
            raise error

        return write

    with pytest.raises(TransportError):
        store.ensure(BLOB, breaks(TransportError("fetch", "it broke")))
    assert store.has_partial(BLOB.digest)
    with pytest.raises(UpdateError):
        store.ensure(BLOB, breaks(UpdateError("fetch", "the disk is full", code="disk_full")))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EIO, "internal")])
def test_a_disk_that_fails_at_any_call_leaves_nothing_half_stored(tmp_path: Path, number: int, code: str) -> None:
    counted = FaultyDisk()
    ContentStore(tmp_path / "counted", counted).put(CONTENT)

    for call in range(3, counted.calls + 1):
        root = tmp_path / str(call)
        disk = FaultyDisk(call, number)
        store = ContentStore(root, disk)
        with pytest.raises(UpdateError) as caught:
            store.put(CONTENT)
        assert caught.value.code == code
        assert leftovers(root) == []
        store.put(CONTENT)
        store.verify(BLOB)


def test_a_disk_that_fails_at_any_call_leaves_old_or_new_pointers(tmp_path: Path) -> None:
    counted = FaultyDisk()
    pointers = SlotPointers(tmp_path / "counted", counted)
    pointers.activate(SLOT, activation(1))
    before = counted.calls
    pointers.activate(SLOT, activation(2))

    for call in range(before + 1, counted.calls + 1):
        pointers = SlotPointers(tmp_path / str(call), FaultyDisk(call))
        pointers.activate(SLOT, activation(1))
        with pytest.raises(UpdateError):
            pointers.activate(SLOT, activation(2))
        pointed = pointers.read(SLOT)
        assert pointed.current in {activation(1).seq: activation(1), 2: activation(2)}.values()
        assert pointed.previous in (None, activation(1))
        pointers.activate(SLOT, activation(2))
        assert pointers.read(SLOT) == Pointed(activation(2), activation(1))


def test_damage_on_disk_is_found_and_removed(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store.put(CONTENT)
    path = store.path_of(BLOB.digest)
    path.chmod(0o644)
    path.write_bytes(b"?" * len(CONTENT))

    with pytest.raises(DigestMismatch, match="damaged"):
        store.verify(BLOB)

    assert not store.has(BLOB)
    with pytest.raises(ContractError, match="does not hold it"):
        store.verify(BLOB)


def test_what_engines_built_goes_with_its_variant(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    kept = store.put(b"kept")
    for variant in (kept, digest_of(b"gone")):
        (store.built / hex_of(variant) / "machine").mkdir(parents=True)

    store.sweep({kept})

    assert [path.name for path in store.built.iterdir()] == [hex_of(kept)]
    assert (store.built / hex_of(kept) / "machine").is_dir()


def test_garbage_is_swept_and_what_is_kept_stays(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    kept = store.put(CONTENT)
    store.put(b"garbage")

    assert store.sweep({kept}) == len(b"garbage")
    assert leftovers(tmp_path) == [store.path_of(kept)]


def test_leftovers_of_a_former_run_go_but_downloads_in_progress_stay(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    other = Digest("sha256:" + "0" * 64)
    for digest in (BLOB.digest, other):
        (tmp_path / "stage" / f"{hex_of(digest)}.part").write_bytes(b"half")

    store.drop_leftovers({BLOB.digest})

    assert [path.name for path in leftovers(tmp_path)] == [f"{hex_of(BLOB.digest)}.part"]


def test_a_tenth_of_the_new_bytes_is_kept_in_reserve(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store._disk.free_bytes = lambda folder: 1099  # type: ignore[method-assign]

    store.check_reserve(999)
    with pytest.raises(UpdateError) as caught:
        store.check_reserve(1000)

    assert caught.value.code == "disk_full"


def test_going_back_restores_what_was_there_even_when_that_was_nothing(tmp_path: Path) -> None:
    pointers = SlotPointers(tmp_path)
    pointers.activate(SLOT, activation(1))

    pointers.restore(SLOT, None)

    assert pointers.read(SLOT) == Pointed(None, None)
    assert pointers.slots() == (SLOT,)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"seq": 1}', b"\xff\xfe", b"x" * 100_000])
def test_a_damaged_pointer_names_nothing_and_says_so(tmp_path: Path, content: bytes) -> None:
    pointers = SlotPointers(tmp_path)
    pointers.activate(SLOT, activation(1))
    pointers.activate(SLOT, activation(2))
    (tmp_path / SLOT / "current.json").write_bytes(content)

    assert pointers.read(SLOT) == Pointed(None, activation(1), damaged=True)


INSTALLER = """
import itertools, sys
from pathlib import Path
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import SlotId, VariantId
from edge_runtime.update.pointers import SlotPointers
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
root = Path(sys.argv[1])
store, pointers = ContentStore(root), SlotPointers(root / "slots")
store.drop_leftovers()
print("ready", flush=True)
for seq in itertools.count(int(sys.argv[2])):
    digest = store.put(b"%d" % seq * 200_000)
    pointers.activate(SlotId("main"), Activation(seq, None, digest, 1, VariantId("a"), digest, {}))
    print(seq, flush=True)
"""


@pytest.mark.slow
def test_a_killed_installer_leaves_only_whole_files_and_no_acknowledged_install_is_lost(tmp_path: Path) -> None:
    done = 0
    for kill_after in (1, 3, 2, 5):
        with subprocess.Popen(
            [sys.executable, "-c", INSTALLER, str(tmp_path), str(done + 1)], stdout=subprocess.PIPE, text=True
        ) as installer:
            assert installer.stdout is not None
            assert installer.stdout.readline() == "ready\n"
            for _ in range(kill_after):
                done = int(installer.stdout.readline())
            installer.send_signal(signal.SIGKILL)
            rest = installer.stdout.read().split()
            done = int(rest[-1]) if rest else done

        current = SlotPointers(tmp_path / "slots").read(SLOT).current
        assert current is not None
        assert current.seq >= done
        for path in (tmp_path / "objects").iterdir():
            assert hex_of(digest_of_file(path)[0]) == path.name
        assert digest_of_file(ContentStore(tmp_path).path_of(current.release))[0] == current.release
