"""What a release promises, written from recipe and model before anything is compiled; pure.

The draft is complete enough to preprocess, evaluate and judge with the runtime's own code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from converters.errors import BadRecipe
from converters.evaluation.golden_spec import golden_spec
from converters.model.source import Imported, Stored
from converters.planning.recipe import Recipe
from converters.planning.recipe_outputs import OutputRecipe, postprocess_of
from converters.release.public_inputs import canonical, describe_input, features_of, sizes_of
from converters.release.sequences import constants_of, is_sequential, states_of, stream_of
from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.ids import LayerName, parse_model_name, parse_variant_id, parse_version
from edge_runtime.contract.release import Licence, Limits, ReleaseManifest, Source, TensorBinding, reference_to
from edge_runtime.contract.steps import RawStep
from edge_runtime.contract.tensor import AxisRange, OutputSpec, Signature, TensorSpec
from edge_runtime.inference.backend import Tensors

LABELS_LAYER = LayerName("labels.txt")
NOTICE_LAYER = LayerName("NOTICE")
CARD_LAYER = LayerName("card.md")
_ROWS = AxisRange(min=1, max=65536)
"""Steps of one sequence that is asked at once."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The manifest so far, and how canonical names map to the model's own."""

    manifest: ReleaseManifest
    inputs: Mapping[str, str]
    """Model input by canonical tensor."""
    outputs: Mapping[str, str]
    """Model output by canonical tensor."""
    batch: AxisRange
    stored: Mapping[str, Stored] = field(default_factory=dict)
    """Quantised tensors of the source file, by canonical tensor."""
    priors: Tensors = field(default_factory=dict)
    """Arrays that detectors start from, by the reference of their layer."""

    def binding(self, name: str) -> TensorBinding:
        """How the source file itself carries a canonical tensor, or a state."""
        tensor = self.inputs[name] if name in self.inputs else self.outputs[name]
        stored = self.stored.get(name)
        if stored is None:
            return TensorBinding(tensor=tensor, dtype=self.tensor(name).dtype)
        return TensorBinding(tensor=tensor, dtype=stored.dtype, scale=stored.scale, zero_point=stored.zero_point)

    @property
    def constants(self) -> dict[str, bool | int | float]:
        """Values of inputs that are always given the same, by the model's own name."""
        values = {name: self.manifest.tensors[name].constant for name in self.inputs if name in self.manifest.tensors}
        return {self.inputs[name]: value for name, value in values.items() if value is not None}

    def without_constants(self) -> Draft:
        """The same, of a model that holds its constants itself."""
        baked = self.constants
        return replace(self, inputs={name: tensor for name, tensor in self.inputs.items() if tensor not in baked})

    def fed_sizes(self) -> dict[str, list[int]]:
        """Sizes of one call, by the model's input, where the release knows all of them."""
        shapes = {tensor: self.tensor(name).shape for name, tensor in self.inputs.items()}
        fed = {tensor: [1 if size == "N" else size for size in shape] for tensor, shape in shapes.items()}
        return {
            tensor: [size for size in shape if isinstance(size, int)]
            for tensor, shape in fed.items()
            if all(isinstance(size, int) for size in shape)
        }

    def tensor(self, name: str) -> TensorSpec:
        """A canonical tensor, or a state as if it were one."""
        if name in self.manifest.tensors:
            return self.manifest.tensors[name]
        state = next(state for state in self.manifest.states if name in {state.in_, state.out})
        return TensorSpec(dtype=state.dtype or "float32", shape=state.shape)

    def public_output(self) -> OutputSpec:
        """The first public output, which the task's metric is about."""
        return self.manifest.signature.outputs[0]


def draft_release(recipe: Recipe, imported: Imported, source: Digest, *, is_labelled: bool) -> Draft:
    """Describe a release.

    Args:
        recipe: what the engineer wrote.
        imported: the model it is about.
        source: digest of the model file.
        is_labelled: whether the evaluation set has labels, so that the golden set can have a truth.

    Raises:
        BadModel: the recipe names a tensor that the model does not have.
        BadRecipe: an input of the model is fed by nothing, or sizes contradict the model.
    """
    inputs, outputs = _named(recipe, imported)
    batch = _batch(recipe, imported)
    axes = {"N": _ROWS if is_sequential(recipe) else batch}
    is_only = len(recipe.inputs) == 1
    described = {
        canonical(entry.tensor): describe_input(name, entry, imported.input(entry.tensor), axes, is_only=is_only)
        for name, entry in recipe.inputs.items()
    }
    preprocess = {name: one.steps for name, one in described.items()}
    postprocess = {name: postprocess_of(entry, canonical) for name, entry in recipe.outputs.items()}
    states, stream = states_of(recipe, imported, preprocess), stream_of(recipe, preprocess)
    tensors = {name: one.tensor for name, one in described.items()} | constants_of(recipe, imported)
    carried, single = {state.out for state in states}, _numbers_a_step(postprocess) if stream else set()
    tensors |= {
        name: _output_tensor(imported, tensor, axes, is_one_number=name in single)
        for name, tensor in outputs.items()
        if name not in carried
    }
    specs = [one.public for one in described.values()]
    manifest = ReleaseManifest(
        kind="model",
        name=parse_model_name(recipe.name),
        version=parse_version(recipe.version),
        task=recipe.task,
        requires=features_of(preprocess, has_states=bool(states), is_stream=stream is not None),
        licence=_licence(recipe),
        source=Source(digest=source, format=imported.format, uri=recipe.model_uri, opset=imported.opset),
        signature=Signature(inputs=specs, outputs=_public_outputs(recipe.outputs), axes=axes),
        tensors=tensors,
        preprocess=preprocess,
        postprocess=postprocess,
        states=states,
        stream=stream,
        variants=[parse_variant_id("draft")],
        golden=golden_spec(
            recipe, postprocess, tensors, is_labelled=is_labelled, is_sequential=stream is not None
        ),
        recipe=digest_of(encode(_portable(recipe))),
        limits=Limits(**msgspec.structs.asdict(recipe.limits)),
    )
    ports = (*imported.inputs, *imported.outputs)
    stored = {canonical(port.name): port.stored for port in ports if port.stored is not None}
    return Draft(manifest, inputs, outputs, batch, stored)


def _named(recipe: Recipe, imported: Imported) -> tuple[dict[str, str], dict[str, str]]:
    """The model's inputs and outputs that the recipe uses, by canonical name."""
    fed = [entry.tensor for entry in recipe.inputs.values()]
    fed += [*recipe.constants, *(state.in_ for state in recipe.states.values())]
    if missing := [port.name for port in imported.inputs if port.name not in fed]:
        remedy = "add it under inputs; what the model gave before under states, what never changes under constants"
        raise BadRecipe("use the recipe", f"nothing feeds the model's input {missing[0]}", remedy)
    read = list(dict.fromkeys(tensor for entry in recipe.outputs.values() for tensor in entry.tensors()))
    read += [state.out for state in recipe.states.values()]
    used = [*fed, *read]
    by_name = {canonical(tensor): tensor for tensor in used}
    if twins := [tensor for tensor in used if by_name[canonical(tensor)] != tensor or used.count(tensor) > 1]:
        because = f"tensor {twins[0]} is used twice, or another is called {canonical(twins[0])} as well"
        raise BadRecipe("use the recipe", because, "name each tensor once")
    return {canonical(tensor): tensor for tensor in fed}, {canonical(tensor): tensor for tensor in read}


def _numbers_a_step(postprocess: Mapping[str, list[RawStep]]) -> set[str]:
    """Tensors that hold one number for each step of a stream, whatever sizes the model leaves open."""
    return {str(steps[0]["from"]) for steps in postprocess.values() if steps[0]["op"] in {"score", "hysteresis"}}


def _output_tensor(
    imported: Imported, tensor: str, axes: dict[str, AxisRange], *, is_one_number: bool = False
) -> TensorSpec:
    port = imported.output(tensor)
    if is_one_number and port.shape:
        port = replace(port, shape=(port.shape[0], *(1 if size is None else size for size in port.shape[1:])))
    # Only where the axes may be permuted: ONNX puts channels first, some engines last.
    layout = "NCHW" if imported.format == "onnx" and len(port.shape) == 4 else None
    return TensorSpec(dtype=port.dtype, shape=sizes_of(port, axes), layout=layout)


def with_seen_shapes(tensors: Mapping[str, TensorSpec], answers: Iterable[Tensors]) -> dict[str, TensorSpec]:
    """Tensors whose file does not say their sizes, with those that they had in every answer of the source model.

    TensorFlow Lite's own detection operator, for one, leaves the shapes of its four outputs empty.
    """
    seen: dict[str, set[tuple[int, ...]]] = {}
    for answer in answers:
        for name, array in answer.items():
            seen.setdefault(name, set()).add(array.shape)
    return {
        name: msgspec.structs.replace(spec, shape=[*next(iter(seen[name]))])
        if not spec.shape and len(seen.get(name, ())) == 1
        else spec
        for name, spec in tensors.items()
    }


def label_layer(outputs: Mapping[str, OutputRecipe], name: str) -> LayerName | None:
    """The layer that holds an output's labels: the first output's list has the plain name, and a list may be shared."""
    path = outputs[name].labels
    if path is None:
        return None
    first = next(other for other, entry in outputs.items() if entry.labels == path)
    return LABELS_LAYER if first == next(iter(outputs)) else LayerName(f"labels-{first[:80]}.txt")


def _batch(recipe: Recipe, imported: Imported) -> AxisRange:
    if is_sequential(recipe):
        # A session's calls wait for each other.
        return AxisRange(min=1, max=1)
    sizes = [port.shape[0] for port in imported.inputs if port.shape and port.name not in recipe.constants]
    fixed = [size for size in sizes if size is not None]
    if fixed:
        return AxisRange(min=fixed[0], max=fixed[0])
    return AxisRange(min=1, max=recipe.batch_max)


def _public_outputs(outputs: Mapping[str, OutputRecipe]) -> list[OutputSpec]:
    return [
        OutputSpec(
            name=name,
            kind=entry.kind,
            labels=reference_to(layer) if (layer := label_layer(outputs, name)) else None,
            raw=canonical(entry.tensor),
            unit=next((str(step["unit"]) for step in entry.steps or [] if "unit" in step), None),
        )
        for name, entry in outputs.items()
    ]


def _licence(recipe: Recipe) -> Licence:
    return Licence(
        spdx=recipe.licence.spdx,
        attribution=reference_to(NOTICE_LAYER) if recipe.licence.attribution else None,
        model_card=reference_to(CARD_LAYER) if recipe.licence.model_card else None,
    )


def _portable(recipe: Recipe) -> object:
    """The recipe without folders of this machine, so that its digest means the same everywhere."""
    return _basenames(
        msgspec.to_builtins(recipe),
        ("model", "folder", "file", "annotations", "masks", "labels", "priors", "attribution", "model_card"),
    )


def _basenames(value: object, keys: Iterable[str]) -> object:
    if not isinstance(value, dict):
        return value
    named = set(keys)
    return {
        key: item.replace("\\", "/").rstrip("/").rpartition("/")[2]
        if key in named and isinstance(item, str)
        else _basenames(item, named)
        for key, item in value.items()
    }
