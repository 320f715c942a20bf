"""What a release says about calls that follow one another: states, constants, sessions; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from converters.errors import BadRecipe
from converters.model.source import Imported, Port
from converters.planning.recipe import Recipe
from converters.release.public_inputs import canonical
from edge_runtime.contract.release import StateSpec, StreamSpec
from edge_runtime.contract.sound_steps import Frame
from edge_runtime.contract.steps import RawStep
from edge_runtime.contract.tensor import TensorSpec

_FRAME: Final = str(Frame.__struct_config__.tag)


def is_sequential(recipe: Recipe) -> bool:
    """Whether the calls of a recipe's model follow one another."""
    return bool(recipe.states) or recipe.stream is not None


def constants_of(recipe: Recipe, imported: Imported) -> dict[str, TensorSpec]:
    """Canonical tensors that are always fed the same number. Raises: BadModel, BadRecipe."""
    found: dict[str, TensorSpec] = {}
    for tensor, value in recipe.constants.items():
        port = imported.input(tensor)
        shape = [size for size in port.shape if size is not None]
        if len(shape) != len(port.shape):
            because = f"the model leaves a size of {tensor} open"
            raise BadRecipe(f"feed the constant {tensor}", because, f"write shapes.{tensor}")
        found[canonical(tensor)] = TensorSpec(dtype=port.dtype, shape=[*shape], constant=value)
    return found


def states_of(recipe: Recipe, imported: Imported, preprocess: Mapping[str, list[RawStep]]) -> list[StateSpec]:
    """States of the graph, then those of steps that keep samples for the next frame. Raises: BadModel, BadRecipe."""
    if not is_sequential(recipe):
        return []
    found = []
    for name, entry in recipe.states.items():
        before, after = imported.input(entry.in_), imported.output(entry.out)
        if before.dtype != after.dtype or before.stored != after.stored:
            because = f"{entry.in_} takes {before.dtype} and {entry.out} gives {after.dtype}, or scaled otherwise"
            raise BadRecipe(f"carry state {name}", because, "a state goes back as it came")
        shape: list[int | str] = [*entry.shape] if entry.shape is not None else _shape(name, before, after)
        stored = before.stored.dtype if before.stored else before.dtype
        found.append(
            StateSpec(name=name, in_=canonical(entry.in_), out=canonical(entry.out), dtype=stored, shape=shape,
                      init="zeros")
        )  # fmt: skip
    for steps in preprocess.values():
        found += [
            StateSpec(name=str(step["id"]), of_step=str(step["id"]), init="zeros")
            for step in steps
            if step["op"] == _FRAME and step.get("context")
        ]
    if len({state.name for state in found}) != len(found):
        raise BadRecipe("use the recipe", "a state has the name of a step", "rename it")
    return found


def stream_of(recipe: Recipe, preprocess: Mapping[str, list[RawStep]]) -> StreamSpec | None:
    """The rules of sessions; None for a model whose calls do not follow one another."""
    if not is_sequential(recipe):
        return None
    framed = any(step["op"] == _FRAME for steps in preprocess.values() for step in steps)
    unit: str = "frame" if framed else "row"
    if recipe.stream is None:
        return StreamSpec(unit=unit, session="required", reset=["session_start"])
    rules = recipe.stream
    return StreamSpec(
        unit=rules.unit or unit,
        session="required",
        reset=["session_start", *(["gap"] if rules.gap_ms else [])],
        gap_ms=rules.gap_ms,
        idle_ms=rules.idle_ms,
        max_sessions=rules.max_sessions,
        on_swap=rules.on_swap,
    )


def _shape(name: str, before: Port, after: Port) -> list[int | str]:
    """Sizes that either port tells; the one that neither does is the batch axis."""
    told = after.shape if len(after.shape) == len(before.shape) else (None,) * len(before.shape)
    sizes = [one if one is not None else other for one, other in zip(before.shape, told, strict=True)]
    if sizes.count(None) > 1:
        because = f"the model leaves the sizes {list(before.shape)} of {before.name} open"
        raise BadRecipe(f"carry state {name}", because, f'write states.{name}.shape, such as [2, "N", 128]')
    return ["N" if size is None else size for size in sizes]
