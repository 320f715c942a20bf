"""What a model is given, as a recipe writes it; pure.

Pictures have a short form, everything can be written in the contract's own steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

from converters.planning.configuration import Table
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.image_steps import ColorStep, Crop, Decode, Layout, Normalize, Resize
from edge_runtime.contract.steps import Color, PreStep, RawStep, parse_preprocess, raw_steps
from edge_runtime.contract.table_steps import Columns

DECODE, RESIZE, CROP, NORMALIZE, LAYOUT = "decode", "resize", "crop", "norm", "layout"
"""Ids of the steps that the short form stands for; variants name the last two in `absorbs`."""

_SHORT_FORM: Final = ("color", "exif", "resize", "crop", "normalize")


class ResizeRecipe(Table, frozen=True, kw_only=True):
    """How an image reaches the model's size; Pillow's and OpenCV's "bilinear" are different, hence no defaults.

    Only mode `none` does without the other fields: it resizes nothing.
    """

    mode: Literal["stretch", "fit_pad", "fit_crop", "shortest_side", "none"]
    size: tuple[int, int] | None = None
    """Height, width; None: the model's own."""
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] | None = None
    antialias: bool | None = None
    pad_value: list[float] | None = None
    pad_anchor: Literal["center", "top_left"] | None = None


class NormalizeRecipe(Table, frozen=True, kw_only=True):
    """y = (x · scale − mean) / std, per channel, x in 0..255."""

    scale: float
    mean: list[float]
    std: list[float]


class InputRecipe(Table, frozen=True, kw_only=True):
    """One public input and the model input it feeds."""

    tensor: str
    """Name of the model's input."""
    kind: Literal["image", "audio", "table", "tensor"]
    color: Color | None = None
    exif: Literal["apply", "ignore"] | None = None
    resize: ResizeRecipe | None = None
    crop: tuple[int, int] | None = None
    """Height, width of the middle that is kept after `resize`."""
    normalize: NormalizeRecipe | None = None
    layout: Literal["NCHW", "NHWC", "TC", "NTC"] | None = None
    """Axes of the model's input for pictures, of what is given for tensors."""
    sample_rate_hz: int | None = None
    channels: int | None = None
    dtype: Literal["int16", "float32", "uint8", "int32", "int64"] | None = None
    """Of what is given: `int16` as sound files hold it, `float32` in −1..1; None for a tensor: the model's own."""
    shape: list[int | str] | None = None
    """Of what is given, where steps change it; a name is a free axis."""
    steps: list[RawStep] | None = None
    """The contract's own steps, in order, instead of the short form; an `id` may be left out."""

    def chain(self, name: str) -> tuple[PreStep, ...]:
        """The typed steps from the public input of that name. Raises: ContractError, UnsupportedFeature."""
        return parse_preprocess(preprocess_of(name, self))


def preprocess_of(name: str, recipe: InputRecipe) -> list[RawStep]:
    """The preprocessing steps of one public input, in the contract's vocabulary. Raises: ContractError."""
    if recipe.steps is not None:
        return raw_steps(parse_preprocess(_with_ids(name, recipe.steps)))
    steps: list[PreStep] = []
    if recipe.kind == "image" and recipe.color and recipe.exif:
        steps.append(Decode(id=DECODE, color=recipe.color, exif=recipe.exif, reduced="never"))
    if recipe.resize:
        fields = {key: value for key, value in msgspec.structs.asdict(recipe.resize).items() if value is not None}
        steps.append(Resize(id=RESIZE, **fields))
    if recipe.crop:
        steps.append(Crop(id=CROP, mode="center", size=recipe.crop))
    if recipe.normalize:
        steps.append(Normalize(id=NORMALIZE, **msgspec.structs.asdict(recipe.normalize)))
    if recipe.kind == "image" and recipe.layout == "NCHW":
        steps.append(Layout(id=LAYOUT, to=recipe.layout))
    if steps:
        steps[0] = msgspec.structs.replace(steps[0], from_=name)
    raw = raw_steps(tuple(steps))
    parse_preprocess(raw)
    return raw


def input_problems(inputs: Mapping[str, InputRecipe]) -> list[str]:
    """Everything that is missing or contradicts itself, in sentences."""
    found: list[str] = []
    for name, entry in inputs.items():
        found += [f"inputs.{name}{problem}" for problem in _problems_of(name, entry)]
    return found


def final_color(entry: InputRecipe, steps: tuple[PreStep, ...]) -> Color | None:
    """Colour of a picture when it reaches the model."""
    colors = [step.to if isinstance(step, ColorStep) else step.color for step in steps
              if isinstance(step, ColorStep | Decode)]  # fmt: skip
    return colors[-1] if colors else entry.color


def columns_of(steps: tuple[PreStep, ...]) -> list[str]:
    """Names of a table's columns."""
    return next((list(step.names) for step in steps if isinstance(step, Columns)), [])


def _with_ids(name: str, steps: list[RawStep]) -> list[RawStep]:
    """Steps named after their operation where they have no name, the first one reading the public input."""
    taken = {str(step["id"]) for step in steps if "id" in step}
    named: list[RawStep] = []
    for position, step in enumerate(steps):
        wanted = identity = str(step.get("id", step.get("op", "")))
        number = 1
        while "id" not in step and identity in taken:
            number += 1
            identity = f"{wanted}-{number}"
        taken.add(identity)
        source: RawStep = {"from": name} if position == 0 else {}
        named.append({**step, "id": identity, **source})
    return named


def _problems_of(name: str, entry: InputRecipe) -> list[str]:
    short = [key for key in _SHORT_FORM if getattr(entry, key) is not None]
    if short and (entry.steps is not None or entry.kind != "image"):
        return [f": write {', '.join(short)} as steps"]
    if entry.steps is None:
        return _problems_of_picture(entry) if entry.kind == "image" else _missing(entry)
    try:
        steps = entry.chain(name)
    except ContractError as error:
        return [problem_of_step(entry.steps, parse_preprocess, error)]
    if entry.kind == "image" and not (steps and isinstance(steps[0], Decode)):
        return [".steps must start with decode"]
    if entry.kind == "table" and not (steps and isinstance(steps[0], Columns)):
        return [".steps must start with columns, which names them"]
    return _missing(entry)


def problem_of_step(
    steps: list[RawStep], parse: Callable[[list[RawStep]], object], error: ContractError
) -> str:
    """What is wrong with steps, with the place of the first that is to blame by itself."""
    for place, step in enumerate(steps):
        try:
            # What stands in the recipe's place of a name is filled in later.
            parse([{"id": "step", "from": "step", **step}])
        except ContractError as its_own:
            op = step.get("op")
            return f".steps.{place}: {'it has no op' if op is None else f'{shown(op)}: {its_own.because}'}"
    return f".steps: {error.because}"


def _missing(entry: InputRecipe) -> list[str]:
    wanted: dict[str, object] = {}
    if entry.kind == "audio":
        wanted = {"sample_rate_hz": entry.sample_rate_hz, "channels": entry.channels, "dtype": entry.dtype}
    if entry.kind in {"audio", "table"}:
        wanted["steps"] = entry.steps
    return [f".{key} is missing" for key, value in wanted.items() if value is None]


def _problems_of_picture(entry: InputRecipe) -> list[str]:
    found = _missing_of_picture(entry)
    channels = 1 if entry.color == "gray" else 3
    if entry.normalize and {len(entry.normalize.mean), len(entry.normalize.std)} - {1, channels}:
        found.append(f".normalize needs 1 or {channels} values for mean and std")
    if entry.normalize and 0 in entry.normalize.std:
        found.append(".normalize.std must not be 0")
    if entry.layout in {"TC", "NTC"}:
        found.append(".layout must be NCHW or NHWC")
    return found


def _missing_of_picture(entry: InputRecipe) -> list[str]:
    """What changes numbers and was not written."""
    wanted = {"color": entry.color, "exif": entry.exif, "resize": entry.resize, "normalize": entry.normalize,
              "layout": entry.layout}  # fmt: skip
    found = [f".{key} is missing" for key, value in wanted.items() if value is None]
    if entry.resize is None or entry.resize.mode == "none":
        return found
    resize = entry.resize
    used: dict[str, object] = {"size": resize.size, "filter": resize.filter, "antialias": resize.antialias}
    if entry.resize.mode == "fit_pad":
        used |= {"pad_value": resize.pad_value, "pad_anchor": resize.pad_anchor}
    return found + [f".resize.{key} is missing" for key, value in used.items() if value is None]
