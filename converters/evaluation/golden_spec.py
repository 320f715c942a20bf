"""Which checks a golden set carries: by what an output answers with, bounded by the recipe; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from converters.planning.recipe import GoldenRecipe, Recipe
from converters.planning.recipe_outputs import OutputRecipe
from edge_runtime.contract.ids import LayerName
from edge_runtime.contract.release import GOLDEN_MAX_BYTES, GoldenCheck, GoldenSpec
from edge_runtime.contract.steps import RawStep
from edge_runtime.contract.tensor import TensorSpec

GOLDEN_LAYER = LayerName("golden.tar")

_TRUTHS: Final[Mapping[str, tuple[str, float]]] = {
    "classes": ("top1", 0.75),
    "detections": ("box_f1", 0.5),
    "segmentation": ("mean_iou", 0.5),
    "values": ("r2", 0.5),
    "anomaly": ("auc", 0.75),
    "score": ("auc", 0.75),
}
"""Metric of the labels and its usual bound, by kind of output; detectors and masks score lower when they are good."""

_AGREEMENTS: Final[Mapping[str, str]] = {"detections": "box_agreement", "segmentation": "pixel_agreement"}


def golden_spec(
    recipe: Recipe,
    steps: Mapping[str, list[RawStep]],
    tensors: Mapping[str, TensorSpec],
    *,
    is_labelled: bool,
    is_sequential: bool,
) -> GoldenSpec:
    """The golden set's checks.

    Args:
        recipe: outputs and thresholds.
        steps: postprocessing by public output.
        tensors: canonical tensors; those that an output is made from are judged.
        is_labelled: whether people labelled what the first output answers.
        is_sequential: whether a question is a whole sequence of calls.
    """
    checks: list[GoldenCheck] = []
    for name, entry in recipe.outputs.items():
        checks += _silicon_and_loss(recipe.golden, entry, steps[name], tensors)
    # Two answers may be made from one tensor.
    checks = list(dict.fromkeys(checks))
    first = next(iter(recipe.outputs.values()))
    if is_labelled and not is_sequential and first.kind in _TRUTHS:
        metric, usual = _TRUTHS[first.kind]
        bound = usual if recipe.golden.truth_min is None else recipe.golden.truth_min
        checks.append(GoldenCheck(against="truth", metric=metric, min=bound))
    return GoldenSpec(
        layer=GOLDEN_LAYER,
        count=recipe.golden.count,
        max_bytes=GOLDEN_MAX_BYTES,
        contains_personal_data=recipe.golden.contains_personal_data,
        checks=checks,
        stored="sequence" if is_sequential else "decoded",
    )


def _silicon_and_loss(
    golden: GoldenRecipe, entry: OutputRecipe, steps: list[RawStep], tensors: Mapping[str, TensorSpec]
) -> Iterator[GoldenCheck]:
    read = [str(step[key]) for step in steps for key in ("from", "scores", "classes", "count") if key in step]
    made_from = [name for name in dict.fromkeys(read) if name in tensors]
    # A class map, and a list of boxes that the graph has sorted itself, change by jumps: noise says nothing there.
    jumps = steps[0].get("family") == "tflite_postprocess" or any(_is_whole(tensors[name]) for name in made_from)
    if jumps and entry.kind in _AGREEMENTS:
        metric = _AGREEMENTS[entry.kind]
        yield GoldenCheck(against="own", metric=metric, min=golden.own_agreement_min)
        yield GoldenCheck(against="float", metric=metric, min=golden.float_agreement_min)
        return
    if entry.kind == "segments":
        yield GoldenCheck(against="own", metric="segment_iou", min=golden.own_agreement_min)
        yield GoldenCheck(against="float", metric="segment_iou", min=golden.float_agreement_min)
    for on in made_from:
        yield GoldenCheck(against="own", metric="snr_db", on=on, min=golden.own_snr_min)
        yield GoldenCheck(against="float", metric="snr_db", on=on, min=golden.float_snr_min)


def _is_whole(tensor: TensorSpec) -> bool:
    return tensor.dtype.startswith(("int", "uint"))
