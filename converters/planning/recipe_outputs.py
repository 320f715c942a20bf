"""What a model answers, as a recipe writes it, and the postprocessing it stands for; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from converters.planning.configuration import Table
from converters.planning.recipe_inputs import problem_of_step
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import LayerName, parse_layer_name
from edge_runtime.contract.release import reference_to
from edge_runtime.contract.steps import RawStep, parse_postprocess, raw_steps

OutputKind = Literal[
    "classes", "detections", "segmentation", "anomaly", "score", "segments", "values", "embedding", "tensor"
]

_STEP_OF: Final[Mapping[str, str]] = {
    "classes": "top_k",
    "detections": "detect",
    "segmentation": "segment",
    "anomaly": "reconstruction",
    "score": "score",
    "segments": "hysteresis",
    "values": "regression",
    "embedding": "embedding",
    "tensor": "raw",
}
"""The first postprocessing step of each kind."""
_PLAIN: Final = frozenset({"score", "tensor"})
"""Kinds whose step has nothing to say."""
_TENSOR_FIELDS: Final = ("from", "scores", "classes", "count", "over")
"""Fields of a step that name a tensor."""


class OutputRecipe(Table, frozen=True, kw_only=True):
    """One public answer and the model output it is made from."""

    tensor: str
    """Name of the model's output; the boxes' where there are several."""
    kind: OutputKind
    labels: str | None = None
    """File with one label per line."""
    activation: Literal["none", "softmax", "sigmoid"] | None = None
    """What turns the model's numbers into scores of classes."""
    k: int = 5
    min_score: float = 0.0
    ignore: list[int] = []
    """Classes that are never an answer, such as a background."""
    steps: list[RawStep] | None = None
    """The contract's own steps, with the model's names of its tensors; classes, score and tensor do without.

    `priors` names a `.npy` file.
    """

    def priors(self) -> list[str]:
        """Files of priors that its steps name."""
        return [str(step["priors"]) for step in self.steps or [] if "priors" in step]

    def tensors(self) -> list[str]:
        """Names of the model's outputs that the answer is made from, the main one first."""
        named = [step.get(key) for step in self.steps or [] for key in _TENSOR_FIELDS if key not in {"from", "over"}]
        return list(dict.fromkeys([self.tensor, *(name for name in named if isinstance(name, str))]))


def postprocess_of(recipe: OutputRecipe, canonical: Callable[[str], str]) -> list[RawStep]:
    """The postprocessing steps of one public output.

    Args:
        recipe: what the engineer wrote.
        canonical: the canonical name of a model's tensor.

    Raises:
        ContractError: a field is missing or wrong.
    """
    steps = recipe.steps if recipe.steps is not None else [_short(recipe)]
    written: list[RawStep] = []
    for position, step in enumerate(steps):
        source = recipe.tensor if position == 0 else steps[position - 1].get("op")
        complete: RawStep = {"from": source, **step}
        if isinstance(complete.get("priors"), str):
            complete["priors"] = reference_to(priors_layer(str(complete["priors"])))
        named = {key: canonical(str(complete[key])) for key in _TENSOR_FIELDS if complete.get(key) is not None}
        written.append({**complete, **named})
    return raw_steps(parse_postprocess(written))


def priors_layer(path: str) -> LayerName:
    """The layer that carries a file of priors. Raises: ContractError: its name cannot be one."""
    return parse_layer_name(path.replace("\\", "/").rpartition("/")[2])


def output_problems(outputs: Mapping[str, OutputRecipe]) -> list[str]:
    """Everything that is missing or contradicts itself, in sentences."""
    found: list[str] = []
    for name, entry in outputs.items():
        found += [f"outputs.{name}{problem}" for problem in _problems_of(entry)]
    return found


def _short(recipe: OutputRecipe) -> RawStep:
    if recipe.kind == "classes":
        return {"op": "top_k", "activation": recipe.activation or "none", "k": recipe.k, "min_score": recipe.min_score,
                "ignore": recipe.ignore}  # fmt: skip
    return {"op": _STEP_OF[recipe.kind]}


def _problems_of(entry: OutputRecipe) -> list[str]:
    wanted = _STEP_OF[entry.kind]
    if entry.steps is None:
        if entry.kind == "classes":
            return [".activation is missing (none, softmax or sigmoid)"] if entry.activation is None else []
        needed = f".steps is missing: an answer of kind {entry.kind} needs step {wanted}"
        return [] if entry.kind in _PLAIN else [needed]
    if not entry.steps or entry.steps[0].get("op") != wanted:
        return [f".steps must start with {wanted}, because its kind is {entry.kind}"]
    try:
        postprocess_of(entry, lambda tensor: tensor)
    except ContractError as error:
        return [problem_of_step(entry.steps, parse_postprocess, error)]
    return []
