"""The recipe: everything a build depends on, typed; what changes numbers must be written, and unknown keys are refused.

Command-line options make the same recipe, so there is one definition of a build.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from converters.errors import BadRecipe
from converters.planning.configuration import Table
from converters.planning.recipe_inputs import InputRecipe, input_problems
from converters.planning.recipe_mistakes import at_line, explain, shown_cut
from converters.planning.recipe_outputs import OutputRecipe, output_problems
from converters.planning.recipe_states import Constant, StateRecipe, StreamRecipe, state_problems, stream_problems
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import parse_layer_name, parse_model_name, parse_version, shown

Precision = Literal["float32", "float16", "int8"]
EngineName = Literal["onnxruntime", "openvino", "litert", "tensorrt"]
Prefer = Literal["latency", "accuracy", "size"]

_NOT_READABLE: Final = "a value in it is not what its type says, or is nested too deeply"


class StoredRecipe(Table, frozen=True, kw_only=True):
    """How real numbers became the integers of an array file: real = (stored − zero_point) · scale."""

    scale: float
    zero_point: int = 0


class _DataRecipe(Table, frozen=True, kw_only=True):
    """Where examples are: a folder with one file each, or one file that holds them all."""

    folder: str | None = None
    file: str | None = None
    """`.npz` or `.npy` with samples along the first axis, or `.csv` with one per row."""
    range: str | None = None
    """Part of the samples, `first:last:step` as in Python: `":200"` the first 200, `"200:"` the others.

    With `not ` before it, all but these: `"::20"` every twentieth, `"not ::20"` the others. Class sub-folders give
    their samples in turn.
    """
    truth: str | list[str] | None = None
    """Array or columns of a file that hold the labels; they are no input."""
    header: bool = True
    """Whether the first line of a `.csv` names the columns; else they are called 0, 1, …"""
    missing: Literal["error", "nan"] = "error"
    """What an empty cell is: refused, or NaN that the model itself fills in."""
    stored: StoredRecipe | None = None

    @property
    def name(self) -> str:
        """Folder or file without its path, as it may stand in a release."""
        return (self.folder or self.file or "").replace("\\", "/").rstrip("/").rpartition("/")[2]

    def positions(self, count: int) -> list[int]:
        """Which of so many samples `range` takes. Raises: ValueError: it is no range."""
        if self.range is None:
            return list(range(count))
        text, is_others = self.range.removeprefix("not "), self.range.startswith("not ")
        if not 1 <= text.count(":") <= 2:
            raise ValueError(f"{self.range!r} has no colon")
        bounds = [int(part) if part.strip() else None for part in text.split(":")]
        taken = list(range(count))[slice(*bounds)]
        return sorted(set(range(count)) - set(taken)) if is_others else taken


class CalibrationRecipe(_DataRecipe, frozen=True, kw_only=True):
    """Unlabelled examples that set the int8 ranges."""

    max_samples: int = 200


class EvaluationRecipe(_DataRecipe, frozen=True, kw_only=True):
    """Labelled examples the candidates are judged by.

    A folder has class sub-folders, or `labels.csv` (`file,label`; for a regression `file` and the right numbers).
    """

    max_samples: int = 1000
    annotations: str | None = None
    """COCO's instances.json, for the pictures in `folder`."""
    masks: str | None = None
    """Folder with a mask (one class number per pixel) of the same name for each picture in `folder`."""
    metric: str | None = None
    """None: the usual one for the kind of output; `module:function` for your own."""


class GoldenRecipe(Table, frozen=True, kw_only=True):
    """The golden set and its thresholds; they belong to the recipe, never to the candidate they judge."""

    count: int = 16
    own_snr_min: float = 20.0
    """dB against the variant's own float emulation: is this silicon right?

    Healthy integer kernels round a little differently, which a deep model carries on: MobileNetV2 has 25 to 28 dB,
    shallow models over 40. Kernels that saturate have 5 to 11.
    """
    float_snr_min: float = 15.0
    """dB against the source model: is this variant good?"""
    own_agreement_min: float = 0.9
    """Instead of dB where an answer changes by jumps: share of boxes or pixels that agree with the own emulation."""
    float_agreement_min: float = 0.8
    """The same with the source model."""
    truth_min: float | None = None
    """Is this model good? None: 0.75 of classes right, 0.75 AUC, 0.5 F1 of boxes, 0.5 mean IoU, 0.5 R2."""
    contains_personal_data: bool = True
    """Cautious unless the engineer declares otherwise."""


class LicenceRecipe(Table, frozen=True, kw_only=True):
    """Terms of the weights, and files that belong to them."""

    spdx: str = "unknown"
    attribution: str | None = None
    model_card: str | None = None


class LimitsRecipe(Table, frozen=True, kw_only=True):
    """Bounds by profile id, family alias or `*`."""

    max_drop: dict[str, float] = {}
    min_agreement: dict[str, float] = {}
    """With the source model, without labels: top-1, boxes or pixels that agree, else the cosine or variance shared."""
    min_snr_db: dict[str, float] = {}
    """Answers against the source model's, without labels."""
    latency_p95_ms: dict[str, float] = {}


class Recipe(Table, frozen=True, kw_only=True):
    """One build; paths are relative to the recipe's own folder."""

    model: str
    name: str
    version: str
    task: str
    targets: list[str]
    inputs: dict[str, InputRecipe]
    outputs: dict[str, OutputRecipe]
    evaluation: EvaluationRecipe
    calibration: CalibrationRecipe | None = None
    golden: GoldenRecipe = GoldenRecipe()
    licence: LicenceRecipe = LicenceRecipe()
    limits: LimitsRecipe = LimitsRecipe()
    precisions: list[Precision] = msgspec.field(default_factory=lambda: ["float32", "int8"])
    engines: list[EngineName] | None = None
    """None: every engine that is installed here."""
    methods: list[str] | None = None
    """Ways to quantise that are tried: `int8` of every engine, `ort-int8-full` of one; None: what `prefer` suggests."""
    prefer: Prefer = "latency"
    states: dict[str, StateRecipe] = {}
    """What the model hands from one call to the next, by a name for people."""
    constants: dict[str, Constant] = {}
    """Inputs that are always given the same number, by the model's input name."""
    stream: StreamRecipe | None = None
    """How sessions are cut out of an endless input; None: by the steps, where there are states."""
    shapes: dict[str, list[int]] = {}
    """Sizes that fix free axes, by the model's input name."""
    model_uri: str | None = None
    """Where people find the model again; said by itself when `model` is one of MLflow's."""
    batch_max: int = 8
    """Largest batch a variant offers when the model's batch axis is free."""


def parse_recipe(content: bytes, suffix: str, name: str = "the recipe") -> Recipe:
    """Read a recipe written in TOML (`.toml`), YAML (`.yaml`, `.yml`) or JSON (`.json`).

    Args:
        content: of its file.
        suffix: of its file's name.
        name: how errors call it.

    Raises:
        BadRecipe: not readable, an unknown key, a missing or impossible value.
    """
    fields = _fields(content, suffix, name)
    text = content.decode("utf-8", "replace") if suffix == ".toml" else ""
    try:
        recipe = msgspec.convert(fields, Recipe)
    except msgspec.ValidationError as error:
        raise explain(str(error), Recipe, fields, text, name) from error
    check_recipe(recipe, name, text)
    return recipe


def _fields(content: bytes, suffix: str, name: str) -> object:
    decoders: dict[str, Callable[[bytes], object]] = {
        ".toml": msgspec.toml.decode,
        ".yaml": msgspec.yaml.decode,
        ".yml": msgspec.yaml.decode,
        ".json": msgspec.json.decode,
    }
    if suffix not in decoders:
        raise BadRecipe(f"read {name}", f"its ending is {shown(suffix)}", "name it .toml, .yaml or .json")
    try:
        fields = decoders[suffix](content)
    except ImportError as error:
        raise BadRecipe(f"read {name}", "PyYAML is not installed", "use TOML, or pip install pyyaml") from error
    except Exception as error:
        # A value that contradicts its YAML tag, or deep nesting, ends in whatever class the reader happens to raise.
        is_told = isinstance(error, msgspec.MsgspecError | ValueError)
        because = f"it is no {suffix[1:].upper()} ({shown_cut(str(error))})" if is_told else _NOT_READABLE
        raise BadRecipe(f"read {name}", because, "correct that line") from error
    return fields


def check_recipe(recipe: Recipe, name: str = "the recipe", text: str = "") -> None:
    """Refuse what cannot become a release, before anything is read.

    Args:
        recipe: what was read.
        name: how errors call it.
        text: its TOML, for the lines of steps; empty for other formats.

    Raises:
        BadRecipe: something is missing or contradicts itself.
    """
    try:
        parse_model_name(recipe.name)
        parse_version(recipe.version)
        for one in (*recipe.inputs, *recipe.outputs, *recipe.states):
            parse_layer_name(one)
    except ContractError as error:
        raise BadRecipe(error.cannot, error.because, error.remedy) from error
    problems = [*_missing(recipe), *_contradictions(recipe)]
    if problems:
        raise BadRecipe(f"use {name}", "; ".join(at_line(one, text) for one in problems))


def _missing(recipe: Recipe) -> list[str]:
    """What changes numbers and was not written."""
    found = [*input_problems(recipe.inputs), *output_problems(recipe.outputs)]
    # A TFLite file may be quantised already; the plan says what is left out when it is not.
    is_tflite = recipe.model.endswith(".tflite")
    if "int8" in recipe.precisions and recipe.calibration is None and not is_tflite:
        found.append("write calibration.folder (int8 needs examples), or precisions = ['float32']")
    return found


def _contradictions(recipe: Recipe) -> list[str]:
    found: list[str] = []
    if not recipe.inputs or not recipe.outputs:
        found.append("name at least one input and one output")
    if not recipe.targets:
        found.append("name at least one target")
    if "float32" not in recipe.precisions:
        found.append("keep float32 among the precisions: it is the variant every device can fall back to")
    for name, place in (("calibration", recipe.calibration), ("evaluation", recipe.evaluation)):
        found += [f"{name}: {problem}" for problem in _misplaced(place)] if place else []
    if recipe.calibration and _place_of(recipe.calibration) == _place_of(recipe.evaluation):
        found.append(
            "calibration and evaluation must be different examples: a model may not be judged by what set it; "
            "range = ':200' and range = '200:' split one set"
        )
    fed = [entry.tensor for entry in recipe.inputs.values()]
    read = [tensor for entry in recipe.outputs.values() for tensor in entry.tensors()]
    found += [*state_problems(recipe.states, recipe.constants, fed, read), *stream_problems(recipe.stream)]
    if not 1 <= recipe.golden.count <= 256:
        found.append("golden.count must be 1 to 256")
    return found


def _misplaced(place: CalibrationRecipe | EvaluationRecipe) -> list[str]:
    found: list[str] = []
    if (place.folder is None) == (place.file is None):
        found.append("write either folder or file")
    if place.file is not None and isinstance(place, EvaluationRecipe) and (place.annotations or place.masks):
        found.append("annotations and masks belong to a folder of pictures")
    try:
        place.positions(1)
    except ValueError:
        found.append(f"range {shown(place.range)} is not first:last or first:last:step")
    if place.max_samples < 1:
        found.append("max_samples must be at least 1")
    return found


def _place_of(place: CalibrationRecipe | EvaluationRecipe) -> tuple[str | None, ...]:
    return place.folder, place.file, place.range
