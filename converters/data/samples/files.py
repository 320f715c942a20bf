"""A folder with one file per sample: images, sounds, `.npy` and `.npz` arrays; labels by sub-folder, table or mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from converters.data.samples.array_files import read_arrays
from converters.data.samples.labels import class_index, number
from converters.data.samples.rows import rows_of
from converters.data.samples.sample import Sample, Wanted, digest_of_arrays, file_in
from converters.data.truth import MaskFile, Truth
from converters.errors import BadDataset
from edge_runtime.contract.digest import Digest, digest_of_file
from edge_runtime.contract.ids import shown
from edge_runtime.inference.preprocessing.preprocess import Inputs

LABELS_FILE: Final = "labels.csv"
_TENSOR_ENDINGS: Final = frozenset({".npy", ".npz"})
_ENCODED_ENDINGS: Final = {
    "image": frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"}),
    "audio": frozenset({".wav"}),
}
_MASK_ENDINGS: Final = (".png", ".bmp")


@dataclass(frozen=True, slots=True)
class Files:
    """Reads one file per sample."""

    def read(self, sample: Sample, names: Sequence[str]) -> Inputs:
        """Encoded bytes, a `.npy` array, or a `.npz` with one array per input. Raises: OSError, BadDataset."""
        if sample.path.suffix.lower() not in _TENSOR_ENDINGS:
            return {names[0]: sample.path.read_bytes()}
        arrays = read_arrays(sample.path)
        if len(names) == 1 and len(arrays) == 1:
            return {names[0]: next(iter(arrays.values()))}
        return {name: arrays[name] for name in names if name in arrays}

    def digest(self, sample: Sample) -> Digest:
        """Of the arrays, or of the encoded bytes. Raises: OSError, BadDataset."""
        if sample.path.suffix.lower() in _TENSOR_ENDINGS:
            return digest_of_arrays(read_arrays(sample.path))
        return digest_of_file(sample.path)[0]


def list_folder(folder: Path, wanted: Wanted, masks: Path | None) -> list[Sample]:
    """The samples of a folder, always in the same order.

    Args:
        folder: class sub-folders, `labels.csv` (`file,label`), or plain files.
        wanted: which files count, and which labels.
        masks: folder with a mask of the same name for each file.

    Raises:
        BadDataset: empty, or labelled with what the model does not know.
    """
    endings = _endings(wanted)
    if masks is not None:
        samples = [Sample(path, _mask_of(path, masks)) for path in _files(folder, endings)]
    elif (folder / LABELS_FILE).is_file() and wanted.truth is not None:
        samples = _from_table(folder, wanted)
    elif subfolders := sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        samples = [
            Sample(path, _class_of(subfolder, wanted))
            for subfolder in subfolders
            for path in _files(subfolder, endings)
        ]
    else:
        samples = [Sample(path) for path in _files(folder, endings)]
    if not samples:
        because = f"it holds no {' or '.join(sorted(endings))} file"
        raise BadDataset(f"read {folder}", because, "name the folder of examples")
    return samples


def _endings(wanted: Wanted) -> frozenset[str]:
    kinds = list(wanted.inputs.values())
    # Bytes can be given to one input only; several inputs come as arrays.
    encoded = _ENCODED_ENDINGS.get(kinds[0], frozenset()) if len(kinds) == 1 else frozenset()
    return encoded or _TENSOR_ENDINGS


def _files(folder: Path, endings: frozenset[str]) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.suffix.lower() in endings)


def _class_of(subfolder: Path, wanted: Wanted) -> Truth | None:
    if wanted.truth != "class":
        return None
    return class_index(subfolder.name, wanted.labels, f"folder {subfolder.name}")


def _mask_of(path: Path, masks: Path) -> MaskFile:
    for ending in _MASK_ENDINGS:
        if (mask := masks / (path.stem + ending)).is_file():
            return MaskFile(mask)
    raise BadDataset(
        f"read the masks in {masks}", f"there is none for {path.name}",
        f"name it {path.stem}{_MASK_ENDINGS[0]}: one class number per pixel",
    )  # fmt: skip


def _from_table(folder: Path, wanted: Wanted) -> list[Sample]:
    table = folder / LABELS_FILE
    rows = rows_of(table, has_header=True)
    columns = list(rows[0])
    if "file" not in columns or (wanted.truth == "class" and "label" not in columns) or len(columns) < 2:
        raise BadDataset(f"read {table}", "it has no columns file,label", "write them in the first line")
    samples: list[Sample] = []
    for row in rows:
        path = file_in(folder, row["file"])
        if path is None:
            raise BadDataset(f"read {table}", f"there is no file {shown(row['file'])} beside it", "correct that row")
        samples.append(Sample(path, _truth_of(row, wanted)))
    return sorted(samples, key=lambda sample: sample.path)


def _truth_of(row: dict[str, str], wanted: Wanted) -> Truth:
    where = f"{LABELS_FILE}, file {row['file']}"
    if wanted.truth == "class":
        return class_index(row["label"], wanted.labels, where)
    return tuple(number(text, where) for column, text in row.items() if column != "file")
