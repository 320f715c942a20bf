"""What is measured: a release, its checked files, and questions to ask it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.layout import FILE_MAX_BYTES, LayoutFolder, OpenRelease, OpenVariant
from edge_runtime.inference.answer_files import read_input
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.model import Model
from edge_runtime.inference.opening import read_layer
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Inputs
from edge_runtime.installed import STORE, installed_builds, slot_of
from edge_runtime.update.store import ContentStore


@dataclass(frozen=True, slots=True)
class Target:
    """A release that was read, and where its blobs are."""

    path: Path
    """Release folder or state_dir."""
    slot: str | None
    """None: a release folder has none."""
    release: OpenRelease
    source: LayoutFolder | ContentStore
    variant: str | None
    """The one that an agent chose; None: any."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What a model is asked while it is measured."""

    inputs: tuple[Inputs, ...]
    title: str
    are_encoded: bool
    """Whether `decode` has something to do."""


def open_target(path: Path, slot: str | None = None) -> Target:
    """Read a release folder, or what a slot of an agent's state_dir runs. Raises: ContractError, DigestMismatch."""
    if (mine := slot_of(path, slot)) is None:
        folder = LayoutFolder(path)
        return Target(path, mine, folder.open(), folder, None)
    builds = installed_builds(path)
    if (build := builds.get(mine)) is None:
        remedy = f"name one of {', '.join(builds)}"
        raise ContractError(f"open slot {mine} of {path}", "nothing is installed there", remedy)
    return Target(path, mine, build.release, ContentStore(path / STORE), build.activation.variant)


def variant_files(target: Target, variant: OpenVariant) -> Mapping[str, bytes]:
    """A variant's checked files by role. Raises: ContractError, DigestMismatch."""
    return {
        file.role: read_layer(target.source, variant.layers, file.layer, FILE_MAX_BYTES)
        for file in variant.manifest.files
    }


def questions_for(model: Model, paths: Sequence[Path]) -> Questions:
    """Files as questions; without any, the release's golden set.

    Raises:
        InferenceError: a file that cannot be read, several inputs, or neither files nor a golden set.
        ContractError: a golden set that breaks the contract.
    """
    specs = model.predictor.preprocess.inputs
    if paths:
        if len(specs) != 1:
            names = ", ".join(spec.name for spec in specs)
            raise InferenceError("measure with files", f"the model takes {names}", "leave the files out")
        contents = tuple({specs[0].name: read_input(path)} for path in paths)
        encoded = any(isinstance(value, bytes) for one in contents for value in one.values())
        return Questions(contents, f"{len(paths)} file{'s' * (len(paths) > 1)}", encoded)
    golden = model.golden_set()
    if golden is None or not golden.samples:
        raise InferenceError("measure it", "the release has no golden set to ask", "name input files")
    return Questions(tuple(sample.inputs for sample in golden.samples), f"{len(golden.samples)} golden samples", False)


def file_feeds(predictor: Predictor, feeds: Tensors) -> list[Tensors]:
    """What the bare engine is fed for one question: by the file's own names, a feed for each call that is needed."""
    infos = predictor.file_inputs
    calls: Sequence[Tensors] = [feeds]
    if predictor.preprocess.makes_windows and all(info.shape[:1] == (1,) for info in infos.values()):
        calls = predictor.preprocess.windows(feeds)
    return [{infos[name].name: np.ascontiguousarray(array) for name, array in one.items()} for one in calls]
