"""Recipes for people who have none yet, from command-line options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from converters.errors import BadRecipe
from converters.model.fixed_shapes import parse_shapes
from converters.model.source import Imported, Port
from converters.planning.recipe import Recipe, check_recipe
from converters.starter.guess import layout_of, looks_like_image
from edge_runtime.contract.choices import with_choices

_WRITE = "write these options, or a recipe (edge-convert recipe MODEL > recipe.toml)"


@dataclass(frozen=True, slots=True)
class Options:
    """Command-line options as given; None where nothing was said."""

    model: str
    name: str | None
    version: str | None
    targets: tuple[str, ...]
    calibration: str | None
    evaluation: str | None
    calibration_range: str | None = None
    evaluation_range: str | None = None
    truth: str | None = None
    """Column or array of the labels, where a file holds the samples."""
    labels: str | None = None
    color: str | None = None
    resize: str | None = None
    filter: str | None = None
    antialias: bool | None = None
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    activation: str | None = None
    precisions: tuple[str, ...] = ()
    prefer: str | None = None
    methods: tuple[str, ...] = ()
    max_drop: tuple[str, ...] = ()
    min_agreement: tuple[str, ...] = ()
    min_snr_db: tuple[str, ...] = ()
    licence: str | None = None
    golden_count: int | None = None
    has_personal_data: bool | None = None
    trusts_code: bool = False
    """Whether the model's file may run code while it is opened."""
    shapes: tuple[str, ...] = ()
    extra: dict[str, object] = field(default_factory=dict)


def recipe_from_options(options: Options, imported: Imported) -> Recipe:
    """The recipe that the options stand for.

    Raises:
        BadRecipe: something that changes numbers was not said; the message lists everything that is missing.
    """
    if len(imported.inputs) != 1:
        raise BadRecipe("build from options", f"the model has {len(imported.inputs)} inputs", "use a recipe file")
    port = imported.inputs[0]
    # A grey picture and features of a sound have one shape: what was said of colour, size or scale tells them apart.
    is_told = any(one is not None for one in (options.color, options.resize, options.scale))
    is_image = looks_like_image(port) or (is_told and layout_of(port) is not None)
    missing = _missing(options, is_image=is_image)
    if missing:
        raise BadRecipe("build from options", f"missing: {', '.join(missing)}", _WRITE)
    raw: dict[str, object] = {
        "model": options.model,
        "name": options.name,
        "version": options.version,
        "task": "image_classification" if is_image else "classification",
        "targets": list(options.targets),
        "inputs": {"image": _image(options, port)} if is_image else {"input": {"tensor": port.name, "kind": "tensor"}},
        "outputs": {"classes": _classes(options, imported.outputs[0])},
        "evaluation": _place(options.evaluation or "", options.evaluation_range, options.truth),
        "limits": _limits(options),
        **options.extra,
    }
    if options.calibration:
        raw["calibration"] = _place(options.calibration, options.calibration_range, options.truth)
    if options.precisions:
        raw["precisions"] = list(options.precisions)
    if options.prefer:
        raw["prefer"] = options.prefer
    if options.shapes:
        raw["shapes"] = parse_shapes(options.shapes)
    if options.methods:
        raw["methods"] = list(options.methods)
    if options.licence:
        raw["licence"] = {"spdx": options.licence}
    raw["golden"] = _golden(options)
    try:
        recipe = msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        raise BadRecipe("build from options", with_choices(str(error), Recipe)[:300], "correct that option") from error
    check_recipe(recipe)
    return recipe


def with_options(recipe: Recipe, options: Options) -> Recipe:
    """The recipe with what the options say in its place; their paths are of the folder the command runs in.

    Raises:
        BadRecipe: an option says what only a recipe's inputs and outputs can say, or something impossible.
    """
    if foreign := [name for name, value in _of_inputs_and_outputs(options).items() if value is not None]:
        because = "a recipe says that itself, under inputs and outputs"
        raise BadRecipe(f"use {', '.join(foreign)} with --recipe", because, "write it there")
    raw = msgspec.to_builtins(recipe)
    changes: dict[str, object] = {
        "name": options.name,
        "version": options.version,
        "targets": list(options.targets),
        "precisions": list(options.precisions),
        "prefer": options.prefer,
        "methods": list(options.methods),
        "shapes": parse_shapes(options.shapes),
        "limits": {**raw["limits"], **_limits(options)},
        "golden": {**raw["golden"], **_golden(options)},
        "licence": {**raw["licence"], **({"spdx": options.licence} if options.licence else {})},
    }
    for key, path, part in (
        ("calibration", options.calibration, options.calibration_range),
        ("evaluation", options.evaluation, options.evaluation_range),
    ):
        place = _elsewhere(raw[key] or {}, path)
        told = {name: value for name, value in (("range", part), ("truth", options.truth)) if value is not None}
        changes[key] = {**place, **told} if place else None
    try:
        changed = msgspec.convert({**raw, **{key: value for key, value in changes.items() if value}}, Recipe)
    except msgspec.ValidationError as error:
        raise BadRecipe("build from options", with_choices(str(error), Recipe)[:300], "correct that option") from error
    check_recipe(changed)
    return changed


def _of_inputs_and_outputs(options: Options) -> dict[str, object]:
    return {
        "--labels": options.labels,
        "--color": options.color,
        "--resize": options.resize,
        "--filter": options.filter,
        "--antialias": options.antialias,
        "--scale": options.scale,
        "--mean": options.mean or None,
        "--std": options.std or None,
        "--activation": options.activation,
    }


def _elsewhere(place: dict[str, object], path: str | None) -> dict[str, object]:
    """A recipe's set, taken from another folder or file; how labels are written there stays as the recipe says."""
    if path is None:
        return place
    moved = {key: value for key, value in place.items() if key not in {"folder", "file", "range"}}
    return {**moved, **_place(str(Path(path).resolve()), None, None)}


def _golden(options: Options) -> dict[str, object]:
    golden = {"count": options.golden_count, "contains_personal_data": options.has_personal_data}
    return {key: value for key, value in golden.items() if value is not None}


def _limits(options: Options) -> dict[str, dict[str, float]]:
    texts = {"max_drop": options.max_drop, "min_agreement": options.min_agreement, "min_snr_db": options.min_snr_db}
    return {name: parse_bounds(given) for name, given in texts.items() if given}


def parse_bounds(texts: tuple[str, ...]) -> dict[str, float]:
    """`0.01` (for every target) or `coral=0.03`, as often as needed. Raises: BadRecipe."""
    bounds: dict[str, float] = {}
    for text in texts:
        target, equals, number = text.rpartition("=")
        try:
            bounds[target if equals else "*"] = float(number)
        except ValueError as error:
            raise BadRecipe(f"read the bound {text!r}", "it is not a number", "write 0.01 or TARGET=0.01") from error
    return bounds


def _place(path: str, part: str | None, truth: str | None) -> dict[str, object]:
    """A folder, or a file that holds all samples, as its ending says."""
    is_file = path.lower().endswith((".npz", ".npy", ".csv"))
    place = {"file" if is_file else "folder": path, "range": part, "truth": truth if is_file else None}
    return {key: value for key, value in place.items() if value is not None}


def _missing(options: Options, *, is_image: bool) -> list[str]:
    wanted: dict[str, object] = {
        "--name": options.name,
        "--version": options.version,
        "--target": options.targets,
        "--evaluate PATH (one set serves both: --calibration-range :200, --evaluate-range 200:)": options.evaluation,
        "--activation none|softmax|sigmoid": options.activation,
    }
    if not options.precisions or "int8" in options.precisions:
        wanted["--calibration DIR (or --precision float32)"] = options.calibration
    if is_image:
        wanted |= {
            "--color rgb|bgr|gray": options.color,
            "--resize stretch|fit_pad|fit_crop|none": options.resize,
            "--scale X": None if options.scale is None else "given",
            "--mean X[,Y,Z]": options.mean,
            "--std X[,Y,Z]": options.std,
        }
    if is_image and options.resize != "none":
        wanted |= {
            "--filter nearest|bilinear|bicubic|lanczos|area": options.filter,
            "--antialias or --no-antialias": None if options.antialias is None else "given",
        }
    return [name for name, value in wanted.items() if not value]


def _image(options: Options, port: Port) -> dict[str, object]:
    layout = layout_of(port)
    height, width = port.shape[2:] if layout == "NCHW" else port.shape[1:3]
    if height is None or width is None:
        raise BadRecipe("build from options", "the model leaves the image size open", "use a recipe with resize.size")
    resize: dict[str, object] = {
        "mode": options.resize, "size": [height, width], "filter": options.filter, "antialias": options.antialias,
    }  # fmt: skip
    if options.resize == "fit_pad":
        resize |= {"pad_value": [114.0], "pad_anchor": "center"}
    return {
        "tensor": port.name,
        "kind": "image",
        "color": options.color,
        "exif": "apply",
        "resize": resize,
        "normalize": {"scale": options.scale, "mean": list(options.mean), "std": list(options.std)},
        "layout": layout,
    }


def _classes(options: Options, port: Port) -> dict[str, object]:
    answer: dict[str, object] = {"tensor": port.name, "kind": "classes", "activation": options.activation}
    return {**answer, "labels": options.labels} if options.labels else answer
