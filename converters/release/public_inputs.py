"""One input of a release, described from recipe and model: public signature, canonical tensor, steps between; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from converters.errors import BadRecipe
from converters.model.source import Port
from converters.planning.recipe_inputs import InputRecipe, columns_of, final_color, preprocess_of
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.image_steps import Decode, Layout
from edge_runtime.contract.sound_steps import Frame
from edge_runtime.contract.steps import PreStep, RawStep, parse_preprocess
from edge_runtime.contract.tensor import AxisRange, InputSpec, TensorSpec
from edge_runtime.inference.preprocessing.geometry import place

_IMAGE_SIDE_MAX: Final = 8192
_AXIS_MAX: Final = 65536
_SAMPLES_MAX: Final = 64 * 1024 * 1024
"""More than an hour of sound."""
_TRIAL_SIZES: Final = ((97, 61), (480, 640))
"""Pictures of such different shape that steps which make them equal make every picture equal."""

Axes = dict[str, AxisRange]


@dataclass(frozen=True, slots=True)
class DescribedInput:
    """What a manifest says about one input."""

    public: InputSpec
    tensor: TensorSpec
    steps: list[RawStep]


def describe_input(name: str, entry: InputRecipe, port: Port, axes: Axes, *, is_only: bool) -> DescribedInput:
    """Describe an input; named axes that it needs are added to `axes`.

    Args:
        name: as applications call it.
        entry: what the recipe says about it.
        port: the model's input that it feeds.
        axes: named axes of the release so far.
        is_only: whether the model has no other input.

    Raises:
        BadRecipe: recipe and model contradict each other.
    """
    written = _with_whole_resize(name, entry, port)
    try:
        raw = preprocess_of(name, written)
        if not raw and not is_only:
            # Changes nothing, but says which public input the tensor is fed from.
            raw = [{"op": "cast", "id": "as-given", "from": name, "dtype": port.dtype, "rounding": "half_even",
                    "saturate": False}]  # fmt: skip
        steps = parse_preprocess(raw)
    except ContractError as error:
        raise BadRecipe(f"use inputs.{name}", error.because, error.remedy) from error
    layout = None
    if entry.kind == "image":
        layout = _layout_of(steps)
        _check_picture(name, written, port, steps)
    shape = _framed_shape(port, steps) or sizes_of(port, axes)
    tensor = TensorSpec(dtype=port.dtype, shape=shape, layout=layout or _given_layout(entry))
    return DescribedInput(_public(name, entry, port, steps, axes), tensor, raw)


def canonical(tensor: str) -> str:
    """A model's tensor name as it may stand in file names: other characters become `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", tensor)[:100]


def sizes_of(port: Port, axes: Axes) -> list[int | str]:
    """Sizes with names for free axes; the first is the batch."""
    sizes: list[int | str] = []
    for axis, size in enumerate(port.shape):
        if size is not None:
            sizes.append(size)
        elif axis == 0:
            sizes.append("N")
        else:
            name = f"{canonical(port.name)}_{axis}"
            axes[name] = AxisRange(min=1, max=_AXIS_MAX)
            sizes.append(name)
    return sizes


def features_of(preprocess: dict[str, list[RawStep]], *, has_states: bool, is_stream: bool) -> list[str]:
    """Features that a reader must know to run a release with these steps."""
    ops = {step["op"] for steps in preprocess.values() for step in steps}
    wanted = {"audio.mel": "mel" in ops, "states": has_states, "stream": is_stream}
    return [feature for feature, is_needed in wanted.items() if is_needed]


def _framed_shape(port: Port, steps: tuple[PreStep, ...]) -> list[int | str] | None:
    """Sizes of an input that takes frames as they are and leaves their length open; None for every other."""
    if not steps or not isinstance(steps[-1], Frame) or len(port.shape) != 2 or port.shape[1] is not None:
        return None
    return ["N" if port.shape[0] is None else port.shape[0], steps[-1].context + steps[-1].length]


def _given_layout(entry: InputRecipe) -> str | None:
    return entry.layout if entry.kind == "tensor" and entry.steps is None else None


def _layout_of(steps: Iterable[PreStep]) -> str:
    """Axes of a picture when it reaches the model."""
    written = [step.to for step in steps if isinstance(step, Layout)]
    last = written[-1] if written else "NHWC"
    return last if last.startswith("N") else f"N{last}"


def _with_whole_resize(name: str, entry: InputRecipe, port: Port) -> InputRecipe:
    """The input with every field a manifest must hold; what mode `none` leaves out changes no number."""
    resize = entry.resize
    if resize is None or resize.mode != "none" or len(port.shape) != 4:
        return entry
    height, width = port.shape[2:] if entry.layout == "NCHW" else port.shape[1:3]
    if resize.size is None and (height is None or width is None):
        because = f"its resize mode is none and the model leaves the size of {port.name} open"
        raise BadRecipe(f"use inputs.{name}", because, f"write inputs.{name}.resize.size")
    size = resize.size or (height or 0, width or 0)
    whole = msgspec.structs.replace(
        resize, size=size, filter=resize.filter or "nearest", antialias=bool(resize.antialias)
    )
    return msgspec.structs.replace(entry, resize=whole)


def _check_picture(name: str, entry: InputRecipe, port: Port, steps: tuple[PreStep, ...]) -> None:
    if len(port.shape) != 4 or port.dtype not in {"float32", "uint8"}:
        raise BadRecipe(
            f"feed images to {port.name}", f"it is {port.dtype} of shape {list(port.shape)}", "use kind = 'tensor'"
        )
    made = {place(steps, *size).size for size in _TRIAL_SIZES}
    if len(made) > 1:
        return
    height, width = made.pop()
    channels = 1 if final_color(entry, steps) == "gray" else 3
    layout = _layout_of(steps)
    wanted = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    for size, expected in zip(port.shape[1:], wanted, strict=True):
        if size is not None and size != expected:
            raise BadRecipe(
                f"feed inputs.{name} to {port.name}",
                f"the recipe makes {layout} {list(wanted)}, the model takes {list(port.shape[1:])}",
                "correct resize.size, color or layout",
            )


def _public(name: str, entry: InputRecipe, port: Port, steps: tuple[PreStep, ...], axes: Axes) -> InputSpec:
    match entry.kind:
        case "image":
            return _picture(name, entry, steps, axes)
        case "audio":
            axes["T"] = AxisRange(min=1, max=_SAMPLES_MAX)
            channels = entry.channels or 1
            return InputSpec(
                name=name,
                kind="audio",
                dtype=entry.dtype or "float32",
                shape=["T"] if channels == 1 else ["T", channels],
                accept=["wav", "tensor"],
                sample_rate_hz=entry.sample_rate_hz,
                channels=channels,
                range=[-1.0, 1.0] if entry.dtype == "float32" else None,
            )
        case "table":
            shape = entry.shape or ["N", len(columns_of(steps))]
            return InputSpec(
                name=name, kind="table", dtype=entry.dtype or "float32", shape=shape, accept=["csv", "json", "tensor"]
            )
        case "tensor":
            shape = entry.shape or sizes_of(port, axes)
            for axis in shape:
                if isinstance(axis, str):
                    axes.setdefault(axis, AxisRange(min=1, max=_AXIS_MAX))
            dtype = entry.dtype or port.dtype
            return InputSpec(name=name, kind="tensor", dtype=dtype, shape=shape, layout=entry.layout)


def _picture(name: str, entry: InputRecipe, steps: tuple[PreStep, ...], axes: Axes) -> InputSpec:
    axes.update({axis: AxisRange(min=1, max=_IMAGE_SIDE_MAX) for axis in ("H", "W")})
    color = entry.color or next((step.color for step in steps if isinstance(step, Decode)), "rgb")
    return InputSpec(
        name=name,
        kind="image",
        dtype="uint8",
        shape=["N", "H", "W", 1 if color == "gray" else 3],
        layout="NHWC",
        color=color,
        accept=["jpeg", "png", "bmp", "webp", "tensor"],
    )
