"""Hugging Face's `preprocessor_config.json`: how an image processor or a feature extractor prepares its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from converters.errors import BadModel
from converters.starter.metadata.facts import Facts, Filter, Mode, PictureFacts, SoundFacts
from edge_runtime.contract.ids import shown

_RESAMPLE: Final[dict[int, Filter]] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "area"}
"""Pillow's numbers; 5, Hamming, is not in the vocabulary."""
_UNIT: Final = 1 / 255


def facts_of_huggingface(path: Path) -> Facts:
    """What a preprocessor configuration says. Raises: BadModel: it cannot be read or is something else."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadModel(f"read {path.name}", shown(str(error), 120), "name a preprocessor_config.json") from error
    if not isinstance(document, dict) or not document.keys() & {"image_mean", "do_resize", "size", "sampling_rate"}:
        raise BadModel(f"read {path.name}", "it is no preprocessor configuration", "name a preprocessor_config.json")
    try:
        if "sampling_rate" in document:
            return _sound(path.name, document)
        return _picture(path.name, document)
    except (TypeError, ValueError, KeyError) as error:
        because = f"an entry is not what it should be ({shown(str(error), 80)})"
        raise BadModel(f"read {path.name}", because, "correct it") from error


def _sound(source: str, document: dict[str, Any]) -> Facts:
    told = {key: document[key] for key in ("n_fft", "hop_length", "num_mel_bins", "feature_size", "padding_value")
            if key in document}  # fmt: skip
    parts = ", ".join(f"{key} {value}" for key, value in told.items())
    notes = (f"{source} also says {parts}: write the steps that its feature extractor performs",) if told else ()
    return Facts(source, sound=SoundFacts(int(document["sampling_rate"]), 1), notes=notes)


def _picture(source: str, document: dict[str, Any]) -> Facts:
    mode, size = _size(document)
    crop = _extent(document["crop_size"]) if document.get("do_center_crop") and "crop_size" in document else None
    normalises = document.get("do_normalize", "image_mean" in document)
    rescales = document.get("do_rescale", True)
    notes: list[str] = []
    resample = document.get("resample")
    if resample is not None and resample not in _RESAMPLE:
        notes.append(f"{source} says resample {resample}, which no step does")
    if document.get("crop_pct") is not None:
        notes.append(f"{source} says crop_pct {document['crop_pct']}: resize to size / crop_pct before the crop")
    picture = PictureFacts(
        color="rgb",
        mode=mode,
        size=size,
        filter=_RESAMPLE.get(resample) if isinstance(resample, int) else None,
        # Image processors resize with Pillow, or with torchvision's antialiased twin of it.
        antialias=True,
        crop=crop,
        scale=float(document.get("rescale_factor", _UNIT)) if rescales else 1.0,
        mean=tuple(float(one) for one in document["image_mean"]) if normalises else (0.0,),
        std=tuple(float(one) for one in document["image_std"]) if normalises else (1.0,),
    )
    return Facts(source, picture=picture, notes=tuple(notes))


def _size(document: dict[str, Any]) -> tuple[Mode | None, tuple[int, int] | None]:
    if document.get("do_resize") is False:
        return "none", None
    size = document.get("size")
    if size is None:
        return None, None
    if isinstance(size, dict) and "shortest_edge" in size:
        edge = int(size["shortest_edge"])
        return "shortest_side", (edge, edge)
    return "stretch", _extent(size)


def _extent(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])
