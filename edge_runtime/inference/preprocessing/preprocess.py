"""From what an application gives to what the engine takes: one definition for calibration, evaluation and device.

A chain is compiled once per canonical tensor; the steps that a variant's graph absorbs are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, cast

import msgspec
import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import ReleaseManifest, TensorBinding, VariantManifest
from edge_runtime.contract.steps import PreStep, op_of, parse_preprocess
from edge_runtime.contract.tensor import AxisRange, InputSpec, TensorSpec
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.preprocessing.values import (
    Step,
    Value,
    batched_layout,
    check_dtype,
    check_named,
    color_of,
    permute,
    plain_array,
    with_axes,
    with_batch,
)

if TYPE_CHECKING:
    from edge_runtime.contract.image_steps import Decode, Resize
    from edge_runtime.contract.table_steps import Columns
    from edge_runtime.inference.preprocessing.geometry import Placement
    from edge_runtime.inference.preprocessing.quantising import Quantiser
    from edge_runtime.inference.preprocessing.reduction import Reduction
    from edge_runtime.inference.states import StreamRules

Inputs = Mapping[str, bytes | Array]
"""Public inputs by name: encoded bytes of one sample, or an array as the signature says."""
Batch = Mapping[str, bytes | Array | Sequence[bytes | Array]]
"""The same of several samples: stacked in one array, or listed one by one."""

_IMAGE_LAYOUTS: Final = {"NHWC", "HWC"}
_AUDIO_OPS: Final = frozenset({"amplitude", "dct", "frame", "log", "mel", "mono", "resample", "stack", "stft"})
_TABLE_OPS: Final = frozenset({"columns", "relative", "standardize"})


class Chain(msgspec.Struct, frozen=True):
    """Public input → canonical tensor (or what a variant's file takes in its place)."""

    tensor: str
    source: InputSpec
    written: tuple[PreStep, ...]
    """All steps of the release, those that a variant absorbs among them."""
    decode: Decode | None
    columns: tuple[str, ...]
    """Names of a table's columns, for inputs that come as text."""
    kept: tuple[PreStep, ...]
    """Those of the steps that are taken after `decode`."""
    steps: tuple[Step, ...]
    """The same, compiled."""
    ndim: int
    """Axes of the canonical tensor."""
    layout: str | None
    """Axis order that the file takes, where it says so."""
    _finish: Callable[[Array], Array]
    reduction: Reduction | None
    """How far a JPEG may be reduced while it is decoded; None: not at all."""
    quantise: Quantiser | None
    """What makes the file's numbers of the tensor; None where it takes them as they are."""

    @property
    def is_resized_by_pillow(self) -> bool:
        """Whether the picture of a file may stay Pillow's until it has the model's size."""
        if self.decode is None or self.decode.color == "bgr" or not self.kept or op_of(self.kept[0]) != "resize":
            return False
        return cast("Resize", self.kept[0]).antialias

    def finish(self, value: Value) -> Array:
        """The prepared value as the file takes it: its axes, its dtype, quantised where it says so."""
        if self.layout and value.layout:
            value = permute(value, self.layout)
        return self._finish(value.array)


class Preprocessor(msgspec.Struct, frozen=True):
    """Compiled preprocessing of one release, for one variant or for the source model."""

    inputs: tuple[InputSpec, ...]
    axes: Mapping[str, AxisRange]
    chains: tuple[Chain, ...]
    constants: Mapping[str, Array]
    """Canonical tensors that are the same for every call."""
    rules: StreamRules | None
    """How calls follow one another; None when they do not know of each other."""

    def __call__(self, inputs: Inputs) -> dict[str, Array]:
        """Feeds by canonical tensor name, with batch axis, in the dtype and layout that the file takes.

        Raises:
            InferenceError: unknown or missing input, wrong dtype or shape, undecodable bytes.
        """
        return self.after_decode(self.decode(inputs))

    def warm_up(self) -> None:
        """Load the readers of encoded pictures that this model may be given: the first of them does not wait for it."""
        for chain in self.chains:
            if chain.decode is not None:
                from edge_runtime.inference.preprocessing.images import load_readers

                load_readers(chain.decode, chain.source.accept)

    def decode(self, inputs: Inputs) -> dict[str, Array]:
        """Inputs as numbers, by public name: pictures uint8 [N, H, W, C], sounds [N, T] or [N, T, C], rows [N, C].

        Raises:
            InferenceError: as call.
        """
        self.check_names(inputs)
        by_source = {chain.source.name: chain for chain in self.chains}
        return {name: self.decoded(by_source[name], inputs[name]) for name in by_source}

    def after_decode(self, decoded: Tensors) -> dict[str, Array]:
        """Feeds from decoded inputs, such as the golden set holds (its batch axis may be missing). Raises: as call."""
        self.check_names(decoded)
        feeds = dict(self.constants)
        for chain in self.chains:
            feeds[chain.tensor] = self.fed(chain, decoded[chain.source.name])
        return feeds

    def fed(self, chain: Chain, array: Array) -> Array:
        """What the file takes, from one input after `decode`. Raises: as call."""
        color = chain.decode.color if chain.decode else color_of(chain.source)
        check_dtype(array, "uint8" if chain.decode else chain.source.dtype, chain.source)
        batched, rate_hz = with_batch(array, chain.source, self.axes, color), chain.source.sample_rate_hz
        value = Value(batched, batched_layout(chain.source), color, rate_hz)
        for step in chain.steps:
            value = step(value)
        return chain.finish(value)

    @property
    def makes_windows(self) -> bool:
        """Whether one sample may become several rows of the model's batch."""
        frames = self.rules is not None and self.rules.unit == "frame"
        return frames or any(op_of(step) == "stack" for chain in self.chains for step in chain.written)

    def windows(self, feeds: Tensors) -> list[Tensors]:
        """One feed for each window that samples were cut into; the feeds as they are where nothing is cut."""
        return self.rows(feeds) if self.makes_windows else [feeds]

    def rows(self, feeds: Tensors) -> list[Tensors]:
        """One feed for each row of the batch; the feeds as they are where tensors disagree about its size."""
        whole = {name: array for name, array in feeds.items() if name in self.constants or not array.ndim}
        parts = {name: array for name, array in feeds.items() if name not in whole}
        sizes = {len(array) for array in parts.values()}
        if len(sizes) != 1:
            return [feeds]
        return [
            {**whole, **{name: array[row : row + 1] for name, array in parts.items()}} for row in range(sizes.pop())
        ]

    def are_prepared(self, tensors: Mapping[str, object]) -> bool:
        """Whether arrays by name are canonical tensors rather than public inputs; where names are the same, by axes."""
        check_named(tensors)
        if tensors.keys() != {chain.tensor for chain in self.chains}:
            return False
        # What is no array is told so by whoever takes public inputs.
        return all(getattr(tensors[chain.tensor], "ndim", None) == chain.ndim for chain in self.chains)

    def placement(self, decoded: Tensors) -> Placement | None:
        """Where the first picture input's pixels lie in the caller's picture; None when no input is one.

        Raises:
            UnsupportedFeature: the steps do not tell.
        """
        for chain in self.chains:
            if chain.source.kind == "image":
                from edge_runtime.inference.preprocessing.geometry import place

                height, width = decoded[chain.source.name].shape[-3:-1]
                return place(chain.written, height, width)
        return None

    def count(self, decoded: Tensors) -> int:
        """Samples that decoded inputs hold. Raises: InferenceError."""
        self.check_names(decoded)
        chain = self.chains[0]
        color = chain.decode.color if chain.decode else color_of(chain.source)
        return len(with_batch(decoded[chain.source.name], chain.source, self.axes, color))

    def decoded(self, chain: Chain, given: bytes | Array) -> Array:
        """One input as numbers, as `decode` gives it. Raises: as call."""
        spec, color = chain.source, color_of(chain.source)
        if isinstance(given, bytes):
            array = _from_bytes(chain, given)
            return with_batch(array, spec, self.axes, chain.decode.color if chain.decode else color)
        given = plain_array(given, f"input {spec.name}")
        check_dtype(given, spec.dtype, spec)
        array = with_batch(given, spec, self.axes, color)
        if chain.decode is None or color in {None, chain.decode.color}:
            return array
        from edge_runtime.inference.preprocessing.images import recolour

        return recolour(array, color, chain.decode.color)

    def in_pieces(self, chain: Chain, given: bytes | Array) -> list[bytes | Array]:
        """What a file holds, in pieces that one call can carry each: a table may have more rows than that.

        Raises:
            InferenceError: undecodable bytes.
        """
        spec = chain.source
        bounds = self.axes.get(str(spec.shape[0])) if spec.shape else None
        if bounds is None or self.rules is not None or (isinstance(given, bytes) and spec.kind != "table"):
            return [given]
        rows = _from_bytes(chain, given) if isinstance(given, bytes) else given
        if rows.ndim != len(spec.shape):
            return [given]
        return [rows[start : start + bounds.max] for start in range(0, len(rows), bounds.max)] or [given]

    def check_names(self, inputs: Mapping[str, object]) -> None:
        """Refuse inputs that are not exactly the public ones. Raises: InferenceError."""
        wanted = {spec.name for spec in self.inputs}
        if unknown := sorted(inputs.keys() - wanted):
            raise InferenceError(
                f"take input {shown(unknown[0])}",
                "the model has no such input",
                f"it takes {', '.join(sorted(wanted))}",
            )
        if missing := sorted(wanted - inputs.keys()):
            raise InferenceError("answer", f"input {missing[0]} is missing", f"give {', '.join(sorted(wanted))}")


def compile_preprocess(release: ReleaseManifest, variant: VariantManifest | None = None) -> Preprocessor:
    """Compile a release's preprocessing.

    Args:
        release: whose public inputs and steps are meant.
        variant: leaves out what its graph absorbs and quantises its inputs; None: all steps, canonical tensors.

    Raises:
        UnsupportedFeature: a step that this runtime does not run.
        ContractError: steps, inputs and tensors do not fit together.
    """
    chains = tuple(
        _compile_chain(name, release, variant) for name in release.preprocess if release.tensors[name].constant is None
    )
    constants = {
        name: np.full(_numbers(name, spec), spec.constant, dtype=np.dtype(spec.dtype))
        for name, spec in release.tensors.items()
        # A file may hold a constant itself.
        if spec.constant is not None and (variant is None or name in variant.io.inputs)
    }
    used = {chain.source.name for chain in chains}
    inputs = tuple(spec for spec in release.signature.inputs if spec.name in used)
    return Preprocessor(inputs, release.signature.axes, chains, constants, _rules(release, chains))


def _rules(release: ReleaseManifest, chains: tuple[Chain, ...]) -> StreamRules | None:
    if not release.is_sequential:
        return None
    from edge_runtime.inference.states import compile_rules

    return compile_rules(release, {chain.tensor: chain.written for chain in chains})


def _from_bytes(chain: Chain, content: bytes) -> Array:
    """Encoded bytes of one input as numbers; readers that a model does not need are not imported."""
    spec = chain.source
    if chain.decode is not None:
        from edge_runtime.inference.preprocessing.images import decode_image

        return decode_image(content, chain.decode, spec.accept, chain.reduction)
    match spec.kind:
        case "audio":
            from edge_runtime.inference.preprocessing.wav import decode_audio

            return decode_audio(content, spec)
        case "table":
            from edge_runtime.inference.preprocessing.table_steps import decode_table

            return decode_table(content, spec, chain.columns)
        case _:
            because = f"it takes {spec.dtype} numbers, not an encoded file"
            raise InferenceError(f"take input {spec.name}", because, "give an array, or a .npy file to a command")


def _compile_chain(name: str, release: ReleaseManifest, variant: VariantManifest | None) -> Chain:
    if name not in release.tensors:
        raise ContractError(f"prepare tensor {shown(name)}", "the manifest does not declare it")
    steps = parse_preprocess(release.preprocess[name])
    source = _source(name, steps, release)
    decode = cast("Decode", steps[0]) if steps and op_of(steps[0]) == "decode" else None
    spec, quantise = release.tensors[name], None
    if variant is None:
        layout, kept, dtype = spec.layout, steps, spec.dtype
    else:
        if name not in variant.io.inputs:
            raise ContractError(f"open variant {variant.id}", f"its io does not say what carries tensor {name}")
        binding = variant.io.inputs[name]
        layout, kept, dtype = binding.layout, _not_absorbed(steps, binding.absorbs, variant.id), binding.dtype
        quantise = _quantiser(binding, source)
    columns = next((tuple(cast("Columns", step).names) for step in steps if op_of(step) == "columns"), ())
    kept = tuple(step for step in kept if step is not decode)
    reduction = None if decode is None else _reduction(decode, kept, source, release)
    finish = partial(_finish, name=name, spec=spec, dtype=dtype, quantise=quantise)
    compiled = compile_steps(kept)
    return Chain(
        name, source, steps, decode, columns, kept, compiled, len(spec.shape), layout, finish, reduction, quantise
    )


def _quantiser(binding: TensorBinding, source: InputSpec) -> Quantiser | None:
    is_picture = bool(binding.absorbs) and (source.dtype, binding.dtype) == ("uint8", "int8")
    if not is_picture and (binding.scale is None or binding.absorbs):
        return None
    from edge_runtime.inference.preprocessing.quantising import AS_PICTURE, Quantiser

    scale, zero_point = AS_PICTURE if is_picture else (binding.scale or 0.0, binding.zero_point or 0)
    return Quantiser(scale, zero_point, np.dtype(binding.dtype))


def _reduction(
    decode: Decode, kept: tuple[PreStep, ...], source: InputSpec, release: ReleaseManifest
) -> Reduction | None:
    if decode.reduced == "never" or not kept:
        return None
    from edge_runtime.inference.preprocessing.reduction import reduction_of

    return reduction_of(decode, kept[0], source, release)


def _source(name: str, steps: tuple[PreStep, ...], release: ReleaseManifest) -> InputSpec:
    """The public input of a chain: named by its first step, else of the tensor's own name, else the only one."""
    by_name = {spec.name: spec for spec in release.signature.inputs}
    wanted = steps[0].from_ if steps else None
    if wanted is None:
        wanted = name if name in by_name or len(by_name) != 1 else next(iter(by_name))
    if wanted not in by_name:
        raise ContractError(f"prepare tensor {name}", f"its steps start from {shown(wanted)}, which is no public input")
    spec = by_name[wanted]
    if spec.kind == "image" and spec.layout not in _IMAGE_LAYOUTS:
        raise UnsupportedFeature(f"take input {spec.name}", f"image layout {shown(spec.layout)} is not built")
    return spec


def _not_absorbed(steps: tuple[PreStep, ...], absorbs: list[str], variant: str) -> tuple[PreStep, ...]:
    kept = len(steps) - len(absorbs)
    trailing = sorted(step.id for step in steps[max(kept, 0) :])
    if kept < 0 or trailing != sorted(absorbs):
        raise ContractError(f"open variant {variant}", f"it absorbs {absorbs}, which are not the last steps")
    return steps[:kept]


def compile_steps(steps: Sequence[PreStep]) -> tuple[Step, ...]:
    """Each step as a function; what a chain does not use is not imported. Raises: as `compile_preprocess`."""
    compiled: list[Step] = []
    for step, following in zip_longest(steps, steps[1:]):
        op = op_of(step)
        if op in _AUDIO_OPS:
            from edge_runtime.inference.preprocessing.audio_steps import build_audio_step

            compiled.append(build_audio_step(step, following))
        elif op in _TABLE_OPS:
            from edge_runtime.inference.preprocessing.table_steps import build_table_step

            compiled.append(build_table_step(step))
        else:
            from edge_runtime.inference.preprocessing.image_steps import build_image_step

            compiled.append(build_image_step(step))
    return tuple(compiled)


def _finish(
    array: Array, *, name: str, spec: TensorSpec, dtype: str, quantise: Quantiser | None
) -> Array:
    """The last, implicit step: quantise where the file says so, else widen without loss."""
    wanted = np.dtype(dtype)
    array = with_axes(array, spec)
    if quantise is not None:
        array = quantise(array)
    elif not np.can_cast(array.dtype, wanted, "safe"):
        raise ContractError(
            f"prepare tensor {name}", f"{array.dtype.name} does not fit {dtype} without loss", "add a cast step"
        )
    # Not ascontiguousarray, which gives a scalar an axis.
    return np.asarray(array, dtype=wanted, order="C")


def _numbers(name: str, spec: TensorSpec) -> list[int]:
    if any(isinstance(size, str) for size in spec.shape):
        raise ContractError(f"feed constant tensor {name}", "a dynamic axis has no size to fill")
    return [size for size in spec.shape if isinstance(size, int)]
