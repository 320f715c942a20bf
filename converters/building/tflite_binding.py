"""How a TFLite file carries the canonical tensors: names, axis order, quantisation, and pictures taken as they are."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from converters.building.workshop import bare_variant, ending_of
from converters.errors import CompileFailed
from converters.importers.tflite import describe
from converters.model.source import Port
from converters.release.draft import Draft
from edge_runtime.contract.image_steps import Decode
from edge_runtime.contract.release import TensorBinding, TensorMap
from edge_runtime.contract.steps import parse_preprocess
from edge_runtime.contract.tensor import TensorSpec
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess

_INTEGERS = frozenset({"uint8", "int8"})
_ONE_STEP = 1
"""Means of 127.5 have no whole zero point: half a step, which rounds either way; the evaluation judges what ships."""


def bind_tflite(draft: Draft, content: bytes, names: Mapping[str, str]) -> TensorMap:
    """The bindings of a file that was made here.

    Args:
        draft: canonical tensors.
        content: the file.
        names: what the source model calls a port, by its name in the file; a name that is not there is the same.

    Raises:
        BadModel: it is no TFLite file.
        CompileFailed: a port is missing, or has another shape than the source model's.
    """
    imported = describe(content, "the compiled file")
    inputs = {names.get(port.name, port.name): port for port in imported.inputs}
    outputs = {names.get(port.name, port.name): port for port in imported.outputs}
    return TensorMap(
        inputs={
            name: with_raw_picture(draft, name, _bound(draft, name, inputs.get(tensor)), tolerance=_ONE_STEP)
            for name, tensor in draft.inputs.items()
        },
        outputs={name: _bound(draft, name, outputs.get(tensor)) for name, tensor in draft.outputs.items()},
    )


def find_raw_inputs(draft: Draft) -> dict[str, TensorBinding]:
    """Inputs of a quantised source that take pictures as they are, by canonical tensor."""
    bound = {name: with_raw_picture(draft, name, draft.binding(name)) for name in draft.inputs}
    return {name: binding for name, binding in bound.items() if binding.absorbs}


def full_ranges(draft: Draft) -> dict[str, tuple[float, float]]:
    """What normalisation makes of black and white, by canonical tensor; only where all channels are treated alike.

    With that range an int8 input has one step for each of the 256 values of a pixel, and can take them as they are.
    """
    found: dict[str, tuple[float, float]] = {}
    for name in draft.inputs:
        steps = parse_preprocess(draft.manifest.preprocess.get(name, []))
        ending = ending_of(steps, name, name) if steps and isinstance(steps[0], Decode) else None
        if ending is None or not ending.steps:
            continue
        scaling = ending.normalisation
        if len(set(scaling.mean)) == len(set(scaling.std)) == 1:
            least, greatest = ((value * scaling.scale - scaling.mean[0]) / scaling.std[0] for value in (0.0, 255.0))
            found[name] = (min(least, greatest), max(least, greatest))
    return found


def with_raw_picture(draft: Draft, tensor: str, binding: TensorBinding, *, tolerance: int = 0) -> TensorBinding:
    """The same binding, which takes the picture itself where scale and zero point are the recipe's normalisation.

    Args:
        draft: steps and public inputs.
        tensor: canonical name.
        binding: how the file takes it.
        tolerance: by how many steps one of the 256 values of a pixel may differ from what normalising and quantising
            gives; where one does, the binding says that it is not exact.
    """
    release = draft.manifest
    steps = parse_preprocess(release.preprocess.get(tensor, []))
    is_picture = bool(steps) and isinstance(steps[0], Decode) and binding.dtype in _INTEGERS
    ending = ending_of(steps, tensor, tensor) if is_picture and binding.scale is not None else None
    if ending is None or not ending.steps:
        return binding
    source = steps[0].from_ or ""
    fast = msgspec.structs.replace(binding, absorbs=list(ending.steps), layout="NHWC")
    kept = [dict(step) for step in release.preprocess[tensor] if step["id"] in ending.steps]
    kept[0]["from"] = source
    alone = msgspec.structs.replace(release, preprocess={tensor: kept})
    channels = next(int(spec.shape[-1]) for spec in release.signature.inputs if spec.name == source)
    every = np.repeat(np.arange(256, dtype=np.uint8), channels).reshape(1, 1, 256, channels)
    slowly, quickly = (
        compile_preprocess(alone, bare_variant("alone", TensorMap(inputs={tensor: one}, outputs={}), "litert"))
        for one in (binding, fast)
    )
    wanted, given = (each.after_decode({source: every})[tensor].astype(np.int16) for each in (slowly, quickly))
    apart = int(np.abs(wanted - given).max())
    return msgspec.structs.replace(fast, exact=apart == 0) if apart <= tolerance else binding


def _bound(draft: Draft, name: str, port: Port | None) -> TensorBinding:
    if port is None:
        raise CompileFailed("describe the compiled file", f"it has no tensor for {name}")
    layout = _layout_of(name, draft.tensor(name), port)
    stored = port.stored
    if stored is None:
        return TensorBinding(tensor=port.name, dtype=port.dtype, layout=layout)
    return TensorBinding(
        tensor=port.name, dtype=stored.dtype, layout=layout, scale=stored.scale, zero_point=stored.zero_point
    )


def _layout_of(name: str, spec: TensorSpec, port: Port) -> str | None:
    """`NHWC` where the file has the canonical tensor's axes in that order; None where they are the same."""
    wanted = [1 if isinstance(size, str) else size for size in spec.shape]
    given = [size or 1 for size in port.shape]
    if spec.layout == "NCHW" and len(wanted) == 4 and given == [wanted[0], wanted[2], wanted[3], wanted[1]]:
        return "NHWC"
    if given != wanted:
        raise CompileFailed("describe the compiled file", f"{name} has shape {given}, the source model's is {wanted}")
    return None
