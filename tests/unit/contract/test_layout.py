"""A release on disk: what it takes to be one, and what damage is noticed."""

import json
from pathlib import Path

import pytest

from edge_runtime.contract.digest import digest_of, hex_of
from edge_runtime.contract.errors import ContractError, DigestMismatch
from edge_runtime.contract.layout import LayoutFolder, open_variant
from tests.fakes.documents import MODEL_FILE, release_manifest, write_release


@pytest.fixture
def layout(tmp_path: Path) -> LayoutFolder:
    write_release(tmp_path)
    return LayoutFolder(tmp_path)


def test_a_written_release_opens_as_what_was_written(layout: LayoutFolder) -> None:
    release = layout.open()
    variants = [open_variant(layout, entry) for entry in release.index.variants]

    assert release.manifest == release_manifest()
    assert [variant.manifest.id for variant in variants] == ["ort-fp32", "ort-int8"]


def test_writing_the_same_release_twice_gives_the_same_digest(tmp_path: Path) -> None:
    assert write_release(tmp_path / "a") == write_release(tmp_path / "b")


def test_the_release_digest_is_the_digest_of_the_index_blob(layout: LayoutFolder) -> None:
    top = json.loads((layout.folder / "index.json").read_bytes())
    blob = layout.path_of(top["manifests"][0]["digest"]).read_bytes()

    assert layout.open().digest == digest_of(blob)


def test_every_flipped_byte_in_any_blob_is_noticed(layout: LayoutFolder) -> None:
    for path in sorted((layout.folder / "blobs" / "sha256").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises((DigestMismatch, ContractError)):
            _read_everything(layout)
        path.write_bytes(whole)

    _read_everything(layout)


def test_a_missing_blob_is_named_with_what_to_do(layout: LayoutFolder) -> None:
    release = layout.open()
    layout.path_of(release.index.variants[0].digest).unlink()

    with pytest.raises(ContractError, match="copy the whole release folder"):
        open_variant(layout, release.index.variants[0])


def test_a_folder_that_is_no_release_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="name the folder edge-convert wrote"):
        LayoutFolder(tmp_path).open()


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing", "there is no such folder"), ("file", "it is no folder"), ("empty", "there is no index.json in it")],
)
def test_what_is_no_folder_of_a_release_is_told_apart(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()

    with pytest.raises(ContractError) as refused:
        LayoutFolder(tmp_path / name).open()

    assert str(refused.value) == (f"cannot open release {tmp_path / name}: {says}; name the folder edge-convert wrote")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", r"index\.json is empty; copy the whole folder"), (b'{"schemaVersion"', r"cannot read .*json: 'Input")],
)
def test_a_layout_that_was_copied_by_half_is_named_by_its_file(layout: LayoutFolder, content: bytes, says: str) -> None:
    (layout.folder / "index.json").write_bytes(content)

    with pytest.raises(ContractError, match=says) as refused:
        layout.open()

    assert "_Oci" not in str(refused.value)


def test_a_layout_of_two_releases_is_refused(layout: LayoutFolder) -> None:
    top = json.loads((layout.folder / "index.json").read_bytes())
    top["manifests"] *= 2
    (layout.folder / "index.json").write_text(json.dumps(top))

    with pytest.raises(ContractError, match="exactly one release index"):
        layout.open()


def test_blobs_lists_everything_with_parents_after_children(layout: LayoutFolder) -> None:
    listed = [blob.digest for blob in layout.blobs()]

    assert {hex_of(digest) for digest in listed} == {path.name for path in (layout.folder / "blobs/sha256").iterdir()}
    assert listed[-1] == layout.open().digest
    assert digest_of(MODEL_FILE) in listed


def _read_everything(layout: LayoutFolder) -> None:
    for descriptor in layout.blobs():
        content = layout.read_blob(descriptor, max_bytes=descriptor.size)
        if digest_of(content) != descriptor.digest:
            raise DigestMismatch("read", "a flipped byte")
    release = layout.open()
    for entry in release.index.variants:
        open_variant(layout, entry)
