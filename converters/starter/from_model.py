"""A commented recipe made from a model: what model and metadata say is filled in, the rest is marked `CHANGE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, get_args, get_type_hints

from converters.model.ending import Activation, activation_in
from converters.model.source import Imported, Port
from converters.planning.recipe_outputs import OutputKind
from converters.starter.guess import Guess, guess_answer, has_one_channel, layout_of, looks_like_image, shape_text
from converters.starter.metadata.facts import AnswerFacts, Facts, PictureFacts, SoundFacts, contradictions, merge
from converters.starter.sequences import (
    find_memory,
    frame_lines,
    heard_lines,
    memory_lines,
)
from converters.starter.toml_text import COLUMN, commented, inline, one_line, quoted, value_text
from edge_runtime.contract.question_steps import Detect
from edge_runtime.contract.steps import RawStep

_HEAD = (
    "# Recipe for edge-convert build. Paths are relative to this file. Lines with CHANGE need your knowledge:",
    "# nothing that changes numbers has a default, because a wrong guess here costs accuracy in silence.",
)
_NAMES: Final[Mapping[str, str]] = {
    "classes": "classes", "detections": "objects", "segmentation": "mask", "anomaly": "anomaly", "score": "score",
}  # fmt: skip
"""What applications call an answer, by its kind."""
_WITH_LABELS: Final = frozenset({"classes", "detections", "segmentation"})
_DOUBTS: Final[Mapping[tuple[str, str], str]] = {
    ("detect", "activation"): 'CHANGE to "softmax" or "sigmoid" if the scores are raw numbers',
    ("detect", "min_score"): "CHANGE: weaker objects are left out",
    ("nms", "iou"): "CHANGE: boxes that overlap more are one object",
    ("reconstruction", "metric"): 'CHANGE: as in training; "mae" is the mean absolute error',
    ("segment", "resize_to"): 'CHANGE to "input" for a mask of the size that the model takes',
}
_CALIBRATION = (
    "[calibration]",
    'folder = "calibration"       # CHANGE: unlabelled examples that set the int8 ranges',
    "",
)
_GOLDEN = (
    "[golden]                     # questions every device must answer before it takes the release over",
    "count = 16",
    "own_snr_min = 20.0           # dB against the variant's own float emulation: is this silicon right?",
    "float_snr_min = 15.0         # dB against the source model: is this variant good?",
)
_PRIVACY = "contains_personal_data = true  # CHANGE to false if nobody can be recognised in these examples"
_LABELLED: Final[Mapping[str, str]] = {
    "classes": "CHANGE: class sub-folders, or files and labels.csv (file,label)",
    "detections": 'CHANGE: photos; with annotations = "instances.json" (COCO) labels judge, without them agreement',
    "segmentation": 'CHANGE: photos; masks = "masks" names a folder of class numbers per pixel',
    "anomaly": "CHANGE: files and labels.csv (file,label) with 0 for normal, 1 for anomalous",
    "score": "CHANGE: files and labels.csv (file,label) with 0 and 1",
}
"""Where truth comes from, by kind of answer."""
_UNLABELLED: Final[Mapping[str, str]] = {"detections": "with annotations", "segmentation": "with masks"}
"""What is judged without labels unless they are named, by kind of answer."""


def starter_text(model: str, imported: Imported, known: Sequence[Facts] = ()) -> str:
    """A recipe in TOML.

    Args:
        model: its path, as the recipe says it.
        imported: the model.
        known: what metadata says about it, the source that counts most first.
    """
    told, memory = merge(known), find_memory(imported)
    imported = memory.without(imported)
    guess = memory.heard(imported) or guess_answer(imported)
    kind = told.answer.kind if told.answer else guess.kind
    lines = [
        *_HEAD,
        *(f"# NOTE: {one_line(note)}" for note in contradictions(known, imported.inputs)),
        f"model = {quoted(model)}",
        'name = "my-model"            # CHANGE: a-z 0-9 -',
        'version = "1.0.0"',
        _task_line(told, guess),
        'targets = ["cpu"]            # edge-device profiles lists the others',
        "",
        "[licence]",
        *_licence(told),
        "",
    ]
    for number, port in enumerate(imported.inputs):
        if memory.is_sound:
            lines += frame_lines(port)
        else:
            lines += _input_lines(port, number, told if number == 0 else merge(()))
    lines += memory_lines(memory)
    lines += heard_lines(guess) if memory.is_sound else _outputs(imported, told, guess)
    # A file whose numbers are integers already has its ranges.
    lines += () if imported.facts.is_quantised else _CALIBRATION
    return "\n".join([*lines, *_judged_by(kind)]) + "\n"


def _task_line(told: Facts, guess: Guess) -> str:
    if told.task:
        return f'task = "{told.task}"'
    return commented(f'task = "{guess.task}"', "CHANGE: guessed; what applications ask for")


def _judged_by(kind: str) -> list[str]:
    """How the build is judged, as far as the kind of answer says."""
    bounds = ['max_drop = { "*" = 0.01 }    # accuracy a variant may lose; by profile, family or *']
    if kind in _UNLABELLED:
        bounds = ['min_agreement = { "*" = 0.9 }  # of the answers, with the source model; by profile, family or *',
                  f"# max_drop = {{ \"*\" = 0.01 }}    # instead, {_UNLABELLED[kind]}: accuracy a variant may lose"]
    elif kind not in _LABELLED:
        bounds = ['min_snr_db = { "*" = 15.0 }  # without a metric: how far a variant may be from the source model']
    truth = "truth_min = 0.75             # share of right answers: is this model good?"
    return [
        "[evaluation]",
        f'folder = "evaluation"        # {_LABELLED.get(kind, "CHANGE: other examples")}',
        "",
        *_GOLDEN,
        *([truth] if kind == "classes" else []),
        _PRIVACY,
        "",
        "[limits]",
        *bounds,
    ]


def _licence(told: Facts) -> list[str]:
    if told.licence is None:
        return ['spdx = "unknown"             # CHANGE: SPDX identifier of the weights\' licence']
    said = f"# {one_line(told.source)}: {one_line(told.licence)[:80]}"
    return [said, 'spdx = "unknown"             # CHANGE to the SPDX identifier of that']


_MADE_FROM_FILES: Final = (
    "image, audio and table are made from files by steps",
    "grey pictures are image, features of sounds audio, both made from files by steps",
)


def _input_lines(port: Port, number: int, told: Facts) -> list[str]:
    if told.sound is not None:
        return _sound_lines(port, told.sound, told.source)
    if looks_like_image(port):
        return _image_lines(port, told.picture or PictureFacts(), told.source)
    name = "input" if number == 0 else f"input-{number}"
    return [
        f"[inputs.{name}]  # {port.dtype} {shape_text(port)}, from .npy or .npz files",
        f"tensor = {quoted(port.name)}",
        commented('kind = "tensor"', f"CHANGE: {_MADE_FROM_FILES[has_one_channel(port)]} (docs/how-to)"),
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
        f"tensor = {quoted(port.name)}",
        commented('kind = "image"', 'CHANGE to "tensor" if it takes features, not pictures' if channels == 1 else ""),
        commented(f"color = {color}", f"from {source}" if told.color else hint),
        commented('exif = "apply"', 'turn photos upright as their camera says; "ignore": leave them'),
        f"# from {source}" if is_whole
        else "# CHANGE: as in training; Pillow and torchvision antialias, OpenCV's linear filter does not",
        f"resize = {resize}",
        *([commented(f"crop = {list(told.crop)}", f"from {source}")] if told.crop else []),
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
    return inline(written), is_whole


def _side(told: PictureFacts, axis: int) -> object:
    return told.size[axis] if told.size else "CHANGE"


def _scaling(port: Port, told: PictureFacts, source: str, channels: int) -> tuple[float, list[float], list[float], str]:
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
        f"tensor = {quoted(port.name)}",
        'kind = "audio"',
        commented(f"sample_rate_hz = {told.sample_rate_hz}", f"from {source}"),
        commented(f"channels = {told.channels or 1}", f"from {source}" if told.channels else "CHANGE: 1 is mono"),
        commented('dtype = "float32"', "samples in -1..1; int16: as sound files hold them"),
        f"# CHANGE: the steps that make the model's {shape_text(port)} of it (docs/how-to)",
        "steps = []",
        "",
    ]


def _outputs(imported: Imported, told: Facts, guess: Guess) -> list[str]:
    """The answer first, as told or guessed, then outputs that it does not read, as they are."""
    has_background = any(step.get("family") == "ultraface" for step in guess.steps)
    order = ", the background first" if has_background else ""
    labels = f'labels = "labels.txt"        # CHANGE: one label per line, in the order of the classes{order}'
    if told.labels:
        labels = commented('labels = "labels.txt"', f"edge-convert recipe MODEL --labels labels.txt writes what "
                            f"{told.source} say: {len(told.labels)} labels")  # fmt: skip
    if told.answer is not None:
        main, steps = imported.outputs[0], told.answer.steps
        lines = _told_lines(main, told.answer, told.source, labels, activation_in(imported, main.name))
    else:
        main, steps = guess.port, guess.steps
        lines = _guessed_lines(guess, labels, activation_in(imported, main.name))
    read = {main.name, *(str(value) for step in steps for value in step.values())}
    for port in imported.outputs:
        lines += _plain_lines(port) if port.name not in read else []
    return lines


def _plain_lines(port: Port) -> list[str]:
    return [f"[outputs.{port.name}]" if port.name.isidentifier() and port.name.isascii() else "[outputs.more]",
            f"tensor = {quoted(port.name)}", 'kind = "tensor"', ""]  # fmt: skip


def _told_lines(port: Port, told: AnswerFacts, source: str, labels: str, ending: Activation) -> list[str]:
    if told.steps:
        return _detector_lines(port, told, source, labels)
    score = told.min_score
    return [
        *_head(port, "classes"),
        'kind = "classes"             # "tensor" hands out the numbers as they are',
        commented(f'activation = "{told.activation}"', f"from {source}") if told.activation else _activation(ending),
        "k = 5",
        *([commented(f"min_score = {score:.6g}", f"from {source}")] if score is not None else []),
        labels,
        "",
    ]


def _guessed_lines(guess: Guess, labels: str, ending: Activation) -> list[str]:
    name = _NAMES.get(guess.kind, "answer")
    lines = [
        *_head(guess.port, name),
        commented(f'kind = "{guess.kind}"', f"CHANGE: guessed, because {guess.because}"),
        f"# kinds: {', '.join(get_args(OutputKind))} (docs/how-to/describe-inputs-and-answers.md)",
    ]
    if guess.kind == "classes":
        lines += [_activation(ending), "k = 5"]
    if guess.kind in _WITH_LABELS:
        lines.append(labels)
    lines.append("")
    for step in guess.steps:
        lines.append(f"[[outputs.{name}.steps]]")
        lines += [commented(f"{key} = {value_text(value)}", _doubts(step, key)) for key, value in step.items()]
        lines.append("")
    return lines


def _head(port: Port, name: str) -> list[str]:
    return [f"[outputs.{name}]".ljust(COLUMN) + f"# {port.dtype} {shape_text(port)}", f"tensor = {quoted(port.name)}"]


def _activation(ending: Activation) -> str:
    if ending != "none":
        return commented('activation = "none"', f"the model ends in a {ending}")
    hint = 'CHANGE to "none" if these are scores already, to "sigmoid" if several classes may be true'
    return commented('activation = "softmax"', hint)


def _doubts(step: RawStep, key: str) -> str:
    """What to ask oneself about a guessed field of a step; empty where nothing can be wrong."""
    if step["op"] == "detect" and key in {"family", "box_format", "box_units"}:
        values = ", ".join(get_args(get_type_hints(Detect)[key]))
        more = "; ultraface: its first class is the background" if step[key] == "ultraface" else ""
        return f"CHANGE: one of {values}{more}"
    return _DOUBTS.get((str(step["op"]), key), "")


def _detector_lines(port: Port, told: AnswerFacts, source: str, labels: str) -> list[str]:
    lines = ["[outputs.objects]", f"tensor = {quoted(port.name)}", 'kind = "detections"', labels, ""]
    for step in told.steps:
        lines += [commented("[[outputs.objects.steps]]", f"from {source}")]
        lines += [f"{key} = {value_text(value)}" for key, value in step.items()]
        if step["op"] == "detect" and "min_score" not in step:
            lines.append(commented("min_score = 0.5", "CHANGE: weaker objects are left out"))
        lines.append("")
    return lines
