"""A commented recipe made from a model: what model and metadata say is filled in, the rest is marked `CHANGE`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from converters.model.source import Imported, Port
from converters.starter.metadata.facts import AnswerFacts, Facts, PictureFacts, SoundFacts, contradictions, merge

_COLUMN = 29
"""Where comments start."""
_HEAD = (
    "# Recipe for edge-convert build. Paths are relative to this file. Lines with CHANGE need your knowledge:",
    "# nothing that changes numbers has a default, because a wrong guess here costs accuracy in silence.",
)
_TAIL = (
    "[calibration]",
    'folder = "calibration"       # CHANGE: unlabelled examples that set the int8 ranges',
    "",
    "[evaluation]",
    'folder = "evaluation"        # CHANGE: class sub-folders, or files and labels.csv (file,label)',
    "",
    "[golden]                     # questions every device must answer before it takes the release over",
    "count = 16",
    "own_snr_min = 20.0           # dB against the variant's own float emulation: is this silicon right?",
    "float_snr_min = 15.0         # dB against the source model: is this variant good?",
    "truth_min = 0.75             # share of right answers: is this model good?",
    "contains_personal_data = true  # CHANGE to false if nobody can be recognised in these examples",
    "",
    "[limits]",
    'max_drop = { "*" = 0.01 }    # accuracy a variant may lose; by profile, family or *',
)


def starter_text(model: str, imported: Imported, known: Sequence[Facts] = ()) -> str:
    """A recipe in TOML.

    Args:
        model: name of its file.
        imported: the model.
        known: what metadata says about it, the source that counts most first.
    """
    told = merge(known)
    is_image = looks_like_image(imported.inputs[0])
    task = told.task or ("image_classification" if is_image else "classification")
    lines = [
        *_HEAD,
        *(f"# NOTE: {_one_line(note)}" for note in contradictions(known, imported.inputs)),
        f"model = {_quoted(model)}",
        'name = "my-model"            # CHANGE: a-z 0-9 -',
        'version = "1.0.0"',
        f'task = "{task}"',
        'targets = ["cpu"]            # edge-device profiles lists the others',
        "",
        "[licence]",
        *_licence(told),
        "",
    ]
    for number, port in enumerate(imported.inputs):
        lines += _input_lines(port, number, told if number == 0 else merge(()))
    used: set[str] = set()
    for number, port in enumerate(imported.outputs):
        if port.name not in used:
            lines += _output_lines(port, told, is_first=number == 0)
        if number == 0 and told.answer is not None:
            used |= {str(value) for step in told.answer.steps for value in step.values()}
    return "\n".join([*lines, *_TAIL]) + "\n"


def looks_like_image(port: Port) -> bool:
    """Whether an input takes pictures: float32, four axes, one or three channels."""
    return port.dtype == "float32" and len(port.shape) == 4 and layout_of(port) is not None


def layout_of(port: Port) -> Literal["NCHW", "NHWC"] | None:
    """Where the one or three channels stand; None when nowhere."""
    if len(port.shape) != 4:
        return None
    if port.shape[1] in {1, 3}:
        return "NCHW"
    return "NHWC" if port.shape[3] in {1, 3} else None


def _licence(told: Facts) -> list[str]:
    if told.licence is None:
        return ['spdx = "unknown"             # CHANGE: SPDX identifier of the weights\' licence']
    said = f"# {_one_line(told.source)}: {_one_line(told.licence)[:80]}"
    return [said, 'spdx = "unknown"             # CHANGE to the SPDX identifier of that']


def _input_lines(port: Port, number: int, told: Facts) -> list[str]:
    if told.sound is not None:
        return _sound_lines(port, told.sound, told.source)
    if looks_like_image(port):
        return _image_lines(port, told.picture or PictureFacts(), told.source)
    shape = [size or "N" for size in port.shape]
    return [
        f"[inputs.{'input' if number == 0 else f'input-{number}'}]  # {port.dtype} {shape}, from .npy or .npz files",
        f"tensor = {_quoted(port.name)}",
        'kind = "tensor"',
        "",
    ]


def _image_lines(port: Port, told: PictureFacts, source: str) -> list[str]:
    layout = layout_of(port)
    channels = (port.shape[1] if layout == "NCHW" else port.shape[3]) or 1
    color = '"gray"' if channels == 1 else f'"{told.color or "rgb"}"'
    hint = "" if channels == 1 else "CHANGE to bgr if it was trained on OpenCV images"
    resize, is_whole = _resize(port, layout, told)
    scale, mean, std, certainty = _scaling(port, told, source, channels)
    return [
        "[inputs.image]",
        f"tensor = {_quoted(port.name)}",
        'kind = "image"',
        _commented(f"color = {color}", f"from {source}" if told.color else hint),
        _commented('exif = "apply"', 'turn photos upright as their camera says; "ignore": leave them'),
        f"# from {source}" if is_whole
        else "# CHANGE: as in training; Pillow and torchvision antialias, OpenCV's linear filter does not",
        f"resize = {resize}",
        *([_commented(f"crop = {list(told.crop)}", f"from {source}")] if told.crop else []),
        f"# y = (x * scale - mean) / std per channel, x in 0..255                {certainty}",
        f"normalize = {{ scale = {scale}, mean = {mean}, std = {std} }}",
        f'layout = "{layout}"',
        "",
    ]  # fmt: skip


def _resize(port: Port, layout: str | None, told: PictureFacts) -> tuple[str, bool]:
    """The table, and whether metadata said all of it."""
    height, width = port.shape[2:] if layout == "NCHW" else port.shape[1:3]
    size = list(told.size) if told.size and told.crop else [height or _side(told, 0), width or _side(told, 1)]
    written: dict[str, object] = {
        "mode": told.mode or "stretch",
        "size": size,
        "filter": told.filter or "bilinear",
        "antialias": True if told.antialias is None else told.antialias,
    }
    if told.mode == "fit_pad":
        written |= {"pad_value": [told.pad_value or 0.0], "pad_anchor": told.pad_anchor or "center"}
    is_whole = None not in {told.mode, told.filter, told.antialias}
    return _inline(written), is_whole


def _side(told: PictureFacts, axis: int) -> object:
    return told.size[axis] if told.size else "CHANGE"


def _scaling(
    port: Port, told: PictureFacts, source: str, channels: int
) -> tuple[float, list[float], list[float], str]:
    """Scale, means and deviations to begin with, and how sure they are.

    A quantised input says which pictures it takes as they are.
    """
    if told.mean is not None and told.std is not None:
        return told.scale or 1.0, list(told.mean), list(told.std), f"from {source}"
    if port.stored is None:
        return 1.0, [0.0] * channels, [255.0] * channels, "CHANGE: as in training"
    shift = 128 if port.stored.dtype == "int8" else 0
    mean, std = float(port.stored.zero_point + shift), float(f"{1 / port.stored.scale:.7g}")
    return 1.0, [mean] * channels, [std] * channels, "as the file is quantised"


def _sound_lines(port: Port, told: SoundFacts, source: str) -> list[str]:
    return [
        "[inputs.audio]",
        f"tensor = {_quoted(port.name)}",
        'kind = "audio"',
        _commented(f"sample_rate_hz = {told.sample_rate_hz}", f"from {source}"),
        _commented(f"channels = {told.channels or 1}", f"from {source}" if told.channels else "CHANGE: 1 is mono"),
        _commented('dtype = "float32"', "samples in -1..1; int16: as sound files hold them"),
        f"# CHANGE: the steps that make the model's {[size or 'N' for size in port.shape]} of it (docs/how-to)",
        "steps = []",
        "",
    ]


def _output_lines(port: Port, told: Facts, *, is_first: bool) -> list[str]:
    if not is_first:
        return [f"[outputs.{port.name}]" if port.name.isidentifier() and port.name.isascii() else "[outputs.more]",
                f"tensor = {_quoted(port.name)}", 'kind = "tensor"', ""]  # fmt: skip
    labels = 'labels = "labels.txt"        # CHANGE: one label per line, in the order of the classes'
    if told.labels:
        labels = _commented('labels = "labels.txt"', f"edge-convert recipe MODEL --labels labels.txt writes what "
                            f"{told.source} say: {len(told.labels)} labels")  # fmt: skip
    if told.answer is not None and told.answer.steps:
        return _detector_lines(port, told.answer, told.source, labels)
    return _class_lines(port, told.answer, told.source, labels)


def _class_lines(port: Port, told: AnswerFacts | None, source: str, labels: str) -> list[str]:
    activation = _commented('activation = "softmax"', 'CHANGE to "none" if the model ends in a softmax already')
    if told is not None and told.activation is not None:
        activation = _commented(f'activation = "{told.activation}"', f"from {source}")
    score = told.min_score if told is not None else None
    return [
        f"[outputs.classes]            # {port.dtype} {[size or 'N' for size in port.shape]}",
        f"tensor = {_quoted(port.name)}",
        "# other kinds: detections, segmentation, anomaly, values, score, embedding, tensor (docs/how-to)",
        'kind = "classes"             # "tensor" hands out the numbers as they are',
        activation,
        "k = 5",
        *([_commented(f"min_score = {score:.6g}", f"from {source}")] if score is not None else []),
        labels,
        "",
    ]


def _detector_lines(port: Port, told: AnswerFacts, source: str, labels: str) -> list[str]:
    lines = ["[outputs.objects]", f"tensor = {_quoted(port.name)}", 'kind = "detections"', labels, ""]
    for step in told.steps:
        lines += [_commented("[[outputs.objects.steps]]", f"from {source}")]
        lines += [f"{key} = {_value(value)}" for key, value in step.items()]
        if step["op"] == "detect" and "min_score" not in step:
            lines.append(_commented("min_score = 0.5", "CHANGE: weaker objects are left out"))
        lines.append("")
    return lines


def _commented(code: str, comment: str) -> str:
    return f"{code:{_COLUMN}}# {_one_line(comment)}" if comment else code


def _one_line(text: str) -> str:
    """Foreign text as a comment can hold it: a line break in it must not begin a line of the recipe."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _inline(table: Mapping[str, object]) -> str:
    return "{ " + ", ".join(f"{key} = {_value(value)}" for key, value in table.items()) + " }"


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _quoted(value)
        case float():
            return f"{value:.7g}" if value != int(value) else f"{value:.1f}"
        case _:
            return str(value).replace("'", '"') if isinstance(value, list) else str(value)


def _quoted(text: str) -> str:
    # What JSON escapes, TOML reads.
    return json.dumps(text, ensure_ascii=False)
