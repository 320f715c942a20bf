"""Small pictures of samples for a report: few, bounded, and none where somebody may be recognised."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Final

import numpy as np

from converters.pipeline.material import Material
from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.backend import Array

SIDE_MAX: Final = 144
BYTES_MAX: Final = 400_000
"""Of all pictures of a report together."""


def pictures_of(material: Material, positions: Iterable[int]) -> dict[str, str]:
    """Pictures of samples of the evaluation set by position, as data URIs; empty where the input is no image."""
    names = [spec.name for spec in material.preprocessor.inputs if spec.kind == "image"]
    found: dict[str, str] = {}
    taken = 0
    for position in positions if names else ():
        uri = _picture(material, position, names[0])
        taken += len(uri)
        if taken > BYTES_MAX:
            break
        if uri:
            found[str(position)] = uri
    return found


def _picture(material: Material, position: int, name: str) -> str:
    dataset = material.evaluation
    try:
        read = dataset.source.read(dataset.samples[position], [name])
        pixels = material.preprocessor.decode(read)[name]
        return data_uri(pixels[..., ::-1] if _is_bgr(material, name) else pixels)
    except (EdgeError, OSError, ValueError, KeyError):
        # It could be read a minute ago; a report without it is still a report.
        return ""


def _is_bgr(material: Material, name: str) -> bool:
    first = [steps[0] for steps in material.draft.manifest.preprocess.values() if steps]
    return any(step.get("from") == name and step.get("color") == "bgr" for step in first)


def data_uri(pixels: Array) -> str:
    """A picture as a data URI, scaled down to fit.

    Args:
        pixels: uint8 [1, height, width, channels] or [height, width, channels], RGB or grey.
    """
    from PIL import Image

    array = np.asarray(pixels)[0] if pixels.ndim == 4 else np.asarray(pixels)
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).convert("RGB")
    picture.thumbnail((SIDE_MAX, SIDE_MAX))
    stream = io.BytesIO()
    # What is small stays exact; photographs are smaller as JPEG.
    kind = "PNG" if max(array.shape[:2]) <= 64 else "JPEG"
    picture.save(stream, kind, quality=80)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
