"""Pictures with boxes as COCO's `instances.json` keeps them (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from converters.data.samples.sample import Sample, file_in
from converters.data.truth import TrueBoxes
from converters.errors import BadDataset
from edge_runtime.contract.ids import shown


class _Image(msgspec.Struct, frozen=True):
    id: int | str
    file_name: str


class _Annotation(msgspec.Struct, frozen=True):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    """Left, top, width, height in pixels."""
    iscrowd: int = 0


class _Category(msgspec.Struct, frozen=True):
    id: int
    name: str


class _Instances(msgspec.Struct, frozen=True):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def list_coco(annotations: Path, folder: Path, labels: Sequence[str] | None) -> list[Sample]:
    """The pictures that a COCO file names, in its order, each with its boxes.

    Args:
        annotations: the JSON file.
        folder: where the pictures are.
        labels: label texts by class index, which categories are matched with; None: categories in order of their ids.

    Raises:
        BadDataset: unreadable, a picture is missing, or a category is none of the labels.
    """
    try:
        read = msgspec.json.decode(annotations.read_bytes(), type=_Instances)
    except (OSError, ValueError, RecursionError) as error:
        raise BadDataset(f"read {annotations}", shown(str(error), 200), "write COCO's instances format") from error
    classes = _classes(read.categories, labels)
    by_image: dict[int | str, list[_Annotation]] = {}
    for one in read.annotations:
        if one.category_id not in classes:
            because = f"category {one.category_id} is used and not declared"
            raise BadDataset(f"read {annotations}", because, "add it to categories")
        by_image.setdefault(one.image_id, []).append(one)
    samples: list[Sample] = []
    for image in read.images:
        path = file_in(folder, image.file_name)
        if path is None:
            because = f"there is no picture {shown(image.file_name)} in {folder}"
            raise BadDataset(f"read {annotations}", because, "correct that entry")
        boxes = _boxes(by_image.get(image.id, []), classes)
        if not np.isfinite(boxes.corners).all():
            because = f"a box of {shown(image.file_name)} ends beyond all numbers"
            raise BadDataset(f"read {annotations}", because, "correct that entry")
        samples.append(Sample(path, boxes))
    if not samples:
        raise BadDataset(f"read {annotations}", "it names no picture", "name the file of instances")
    return samples


def _classes(categories: Sequence[_Category], labels: Sequence[str] | None) -> dict[int, int]:
    ordered = sorted(categories, key=lambda category: category.id)
    if labels is None:
        return {category.id: index for index, category in enumerate(ordered)}
    if unknown := [category.name for category in ordered if category.name not in labels]:
        raise BadDataset(
            "match the labels", f"category {shown(unknown[0])} is none of the {len(labels)} labels",
            "use the label list's own words",
        )  # fmt: skip
    return {category.id: list(labels).index(category.name) for category in ordered}


def _boxes(annotations: Sequence[_Annotation], classes: dict[int, int]) -> TrueBoxes:
    sizes = np.array([one.bbox for one in annotations], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):
        corners = np.concatenate([sizes[:, :2], sizes[:, :2] + sizes[:, 2:]], axis=1)
    return TrueBoxes(
        corners=corners,
        classes=tuple(classes[one.category_id] for one in annotations),
        crowds=tuple(bool(one.iscrowd) for one in annotations),
    )
