"""OpenVINO Model API's `model_info`: in the rt_info of an IR file, or in the properties of an ONNX file.

Its images are BGR unless `reverse_input_channels` is set, and are resized with OpenCV's linear filter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from converters.errors import BadModel
from converters.starter.metadata.facts import AnswerFacts, Facts, Mode, PictureFacts
from edge_runtime.contract.ids import shown

SOURCE: Final = "OpenVINO model_info"
_PREFIX: Final = "model_info "
"""Of a property's key in an ONNX file."""
_OPENS: Final = "<model_info>"
_CLOSES: Final = "</model_info>"
_ENTRY: Final = re.compile(r'<([A-Za-z0-9_]+)\s+value="([^"]*)"')
_MODES: Final[Mapping[str, Mode]] = {
    "standard": "stretch",
    "fit_to_window": "fit_pad",
    "fit_to_window_letterbox": "fit_pad",
    "crop": "fit_crop",
}
_TASKS: Final = {"classification": "image_classification", "segmentation": "segmentation"}
_FILE_MAX_BYTES: Final = 256 * 1024 * 1024


def model_info_of_xml(path: Path) -> dict[str, str]:
    """The `model_info` of an IR file. Raises: BadModel: it has none, or cannot be read."""
    try:
        if path.stat().st_size > _FILE_MAX_BYTES:
            raise BadModel(f"read {path.name}", "it is too large", "name the .xml of an OpenVINO model")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModel(f"read {path.name}", shown(str(error), 120), "name the .xml of an OpenVINO model") from error
    first = text.find(_OPENS)
    last = text.find(_CLOSES, first)
    if -1 in {first, last}:
        raise BadModel(f"read {path.name}", "it has no model_info", "name the .xml of an OpenVINO model that has one")
    return {name: _unescaped(value) for name, value in _ENTRY.findall(text, first, last)}


def model_info_of_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """The `model_info` among an ONNX file's properties; empty when there is none."""
    return {key.removeprefix(_PREFIX): value for key, value in properties.items() if key.startswith(_PREFIX)}


def facts_of_model_info(info: Mapping[str, str]) -> Facts | None:
    """What a `model_info` says; None when it is empty. Raises: BadModel: a number is none."""
    if not info:
        return None
    try:
        mean, std = _numbers(info.get("mean_values")), _numbers(info.get("scale_values"))
        threshold = float(info["confidence_threshold"]) if "confidence_threshold" in info else None
        pad = float(info["pad_value"]) if "pad_value" in info else None
    except ValueError as error:
        raise BadModel(f"read {SOURCE}", shown(str(error), 80), "correct that entry") from error
    resize = info.get("resize_type")
    mode = _MODES.get(resize or "")
    anchor: Literal["center", "top_left"] = "center" if resize == "fit_to_window_letterbox" else "top_left"
    kind = info.get("model_type", "")
    notes = [f"{SOURCE} says resize_type {shown(resize)}, which is not known"] if resize and mode is None else []
    if "iou_threshold" in info:
        notes.append(f"{SOURCE} says model_type {shown(kind)}, iou_threshold {info['iou_threshold']}: for step nms")
    picture = PictureFacts(
        color="rgb" if info.get("reverse_input_channels", "").lower() in {"yes", "true", "1"} else "bgr",
        mode=mode,
        filter="bilinear",
        antialias=False,
        pad_value=(pad or 0.0) if mode == "fit_pad" else None,
        pad_anchor=anchor if mode == "fit_pad" else None,
        scale=1.0 if mean or std else None,
        mean=mean or ((0.0,) if std else None),
        std=std or ((1.0,) if mean else None),
    )
    answer = AnswerFacts("classes", min_score=threshold) if kind.lower() == "classification" else None
    labels = tuple(name.replace("_", " ") for name in info.get("labels", "").split())
    return Facts(
        SOURCE, picture=picture, answer=answer, labels=labels, task=_TASKS.get(kind.lower()), notes=tuple(notes)
    )


def _numbers(text: str | None) -> tuple[float, ...] | None:
    return tuple(float(part) for part in text.replace(",", " ").split()) if text else None


def _unescaped(value: str) -> str:
    from xml.sax.saxutils import unescape

    return unescape(value, {"&quot;": '"', "&apos;": "'"})
