"""One loaded variant: feeds, runs and reads a session as release and variant manifests say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import ReleaseManifest, TensorBinding, VariantManifest
from edge_runtime.contract.tensor import TensorSpec
from edge_runtime.inference.backend import (
    BACKENDS,
    Array,
    BackendOptions,
    Files,
    Registry,
    Session,
    TensorInfo,
    Tensors,
    load_backend,
)
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.postprocessing.postprocess import Postprocessor, compile_postprocess
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess

if TYPE_CHECKING:
    from edge_runtime.inference.streams import Sequencer


Reader = Callable[[Array], Array]
"""From a file's output to the canonical tensor."""


class Predictor(msgspec.Struct, frozen=True):
    """A loaded variant without provenance: `Model` runs it, the converter evaluates it."""

    release: ReleaseManifest
    variant: VariantManifest
    preprocess: Preprocessor
    postprocess: Postprocessor
    session: Session
    sequencer: Sequencer | None
    """How calls follow one another; None when they do not know of each other."""
    file_inputs: Mapping[str, TensorInfo]
    """The file's tensor behind each canonical input."""
    file_outputs: Mapping[str, TensorInfo]
    """The file's tensor behind each canonical output."""
    readers: Mapping[str, Reader | None]
    """What turns a file's output into that canonical tensor; None where it is the tensor already."""

    def run_decoded(self, decoded: Tensors) -> dict[str, Array]:
        """Canonical output tensors for inputs after `decode` (golden set, cached data). Raises: InferenceError."""
        if self.sequencer is not None:
            return self.sequencer.run_whole(self.run_once, decoded)
        return self.run_canonical(self.preprocess.after_decode(decoded))

    def run_canonical(self, feeds: Tensors) -> dict[str, Array]:
        """Canonical output tensors, in their canonical dtype, for what `preprocess` returns.

        Rows of a model with states are one sequence from its beginning.

        Raises:
            InferenceError: as the engine.
        """
        if self.sequencer is not None:
            from edge_runtime.inference.states import Memory

            return self.sequencer.run(self.run_once, feeds, Memory(self.sequencer.states))
        if not self.preprocess.makes_windows or any(info.shape[:1] != (1,) for info in self.file_inputs.values()):
            return self.run_once(feeds)
        # A file that takes one row at a time is asked about each window in turn.
        pieces = [self.run_once(window) for window in self.preprocess.windows(feeds)]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in self.file_outputs}

    def run_once(self, feeds: Tensors) -> dict[str, Array]:
        """One call of the graph: canonical input tensors to canonical output tensors, states among both.

        Raises:
            InferenceError: as the engine.
        """
        fed = {}
        for name, array in feeds.items():
            info = self.file_inputs.get(name)
            if info is None:
                known = ", ".join(sorted(self.file_inputs))
                raise BadInput("run the model", f"it has no tensor {shown(name)}", f"give {known}")
            _check_shape(name, array, info)
            fed[info.name] = array
        raw = self.session.run(fed)
        outputs = {}
        for name, info in self.file_outputs.items():
            read, array = self.readers[name], raw[info.name]
            outputs[name] = array if read is None else read(array)
        return outputs

    def interpret(self, tensors: Tensors, decoded: Tensors | None = None) -> list[Answer]:
        """Answers from canonical output tensors, one per sample.

        Args:
            tensors: what `run_canonical` returned.
            decoded: the inputs they answer, after `decode`; boxes, masks and anomaly scores need them.

        Raises:
            InferenceError: as the postprocessor.
        """
        return self.postprocess(tensors, decoded)

    def first_step(self, decoded: Tensors) -> Tensors:
        """Inputs after `decode` as one call of the engine answers them; of a stream its first step. For measurements.

        Raises:
            InferenceError: it is no sound.
        """
        return decoded if self.sequencer is None else self.sequencer.first_step(decoded)

    def close(self) -> None:
        """Free the engine's memory."""
        self.session.close()


def load_predictor(
    release: ReleaseManifest,
    variant: VariantManifest,
    files: Files,
    *,
    labels: Mapping[str, tuple[str, ...]] | None = None,
    layers: Tensors | None = None,
    options: BackendOptions | None = None,
    registry: Registry = BACKENDS,
) -> Predictor:
    """Load one variant from bytes that were already checked.

    Args:
        release: manifest with steps, tensors and signature.
        variant: manifest of the build.
        files: its files by role.
        labels: label lists by public output name.
        layers: arrays of the release by the reference that a postprocessing step names them by.
        options: threads and emulation.
        registry: backends to load from.

    Raises:
        InferenceError: code `load_failed`; the engine refuses the model, or its tensors are not the promised ones.
        UnsupportedFeature: a step, option or engine that this runtime does not know.
        ContractError: the manifests do not fit together.
    """
    # Compiled first: a manifest that cannot work must not cost the loading of a model.
    preprocess = compile_preprocess(release, variant)
    postprocess = compile_postprocess(release, labels or {}, layers)
    sequencer = _sequencer(release, variant, preprocess, postprocess)
    session = load_backend(variant.target.engine, registry).open(files, variant, options or BackendOptions())
    try:
        inputs = _bound(variant.io.inputs, session.inputs, variant.id)
        outputs = _bound(variant.io.outputs, session.outputs, variant.id)
        _check_complete(release, variant, session, inputs)
    except BaseException:
        session.close()
        raise
    readers = {name: _reader(variant.io.outputs[name], release.tensors.get(name), outputs[name]) for name in outputs}
    return Predictor(release, variant, preprocess, postprocess, session, sequencer, inputs, outputs, readers)


def _sequencer(
    release: ReleaseManifest, variant: VariantManifest, preprocess: Preprocessor, postprocess: Postprocessor
) -> Sequencer | None:
    if not release.is_sequential:
        return None
    # Whoever answers one picture after the other does not wait for the code of sounds.
    from edge_runtime.inference.streams import compile_sequencer

    return compile_sequencer(release, preprocess, postprocess.stream, variant)


def _check_complete(
    release: ReleaseManifest, variant: VariantManifest, session: Session, inputs: Mapping[str, TensorInfo]
) -> None:
    if unfed := sorted({info.name for info in session.inputs} - {info.name for info in inputs.values()}):
        raise InferenceError(f"open variant {variant.id}", f"nothing feeds tensor {unfed[0]}", code=LOAD_FAILED)
    states = {name for state in release.states for name in (state.in_, state.out)}
    for name in (*variant.io.inputs, *variant.io.outputs):
        if name not in release.tensors and name not in states:
            raise ContractError(f"open variant {variant.id}", f"{shown(name)} is no canonical tensor of the release")


def _bound(bindings: Mapping[str, TensorBinding], infos: tuple[TensorInfo, ...], variant: str) -> dict[str, TensorInfo]:
    """The file's tensor behind each canonical name; the file must have it, in the promised dtype."""
    by_name = {info.name: info for info in infos}
    found: dict[str, TensorInfo] = {}
    for name, binding in bindings.items():
        if isinstance(binding.tensor, int):
            info = infos[binding.tensor] if 0 <= binding.tensor < len(infos) else None
        else:
            info = by_name.get(binding.tensor)
        if info is None or info.dtype != binding.dtype:
            raise InferenceError(
                f"open variant {variant}",
                f"its file has no {binding.dtype} tensor {shown(binding.tensor)} for {name} (it has {_listed(infos)})",
                "convert the model again",
                code=LOAD_FAILED,
            )
        found[name] = info
    return found


def _reader(binding: TensorBinding, spec: TensorSpec | None, info: TensorInfo) -> Reader | None:
    if spec is None:
        return None  # a state, which goes back as it came
    is_moved = bool(binding.layout and spec.layout and binding.layout != spec.layout)
    if binding.scale is None and not is_moved and info.dtype == spec.dtype:
        return None
    return partial(_read, binding=binding, spec=spec)


def _read(array: Array, *, binding: TensorBinding, spec: TensorSpec) -> Array:
    if binding.scale is not None:
        array = array.astype(np.float32)
        # In place: it is a copy already.
        array -= np.float32(binding.zero_point or 0)
        array *= np.float32(binding.scale)
    if binding.layout and spec.layout and binding.layout != spec.layout:
        array = array.transpose([binding.layout.index(axis) for axis in spec.layout])
    return array.astype(spec.dtype, copy=False)


def _listed(infos: tuple[TensorInfo, ...]) -> str:
    return ", ".join(f"{info.name} {info.dtype}" for info in infos[:8])


def _check_shape(name: str, array: Array, info: TensorInfo) -> None:
    sizes_fit = array.ndim == len(info.shape) and all(
        wanted is None or size == wanted for size, wanted in zip(array.shape, info.shape, strict=False)
    )
    if not sizes_fit:
        wanted = ", ".join("any" if size is None else str(size) for size in info.shape)
        raise BadInput(
            "run the model",
            f"tensor {name} has shape {list(array.shape)}, its file takes [{wanted}]",
            "give as many samples at once as the variant's batch allows",
        )
