"""Releases of the models that lie beside the repository: the files as they came, for every engine that may load one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from converters.building.workshop import bare_variant
from converters.data.datasets import read_labels
from converters.planning.recipe import EngineName, Recipe, parse_recipe
from converters.reading import read_source
from converters.release.draft import Draft, draft_release
from converters.release.layers import layers_of
from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import LayerName, parse_variant_id
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, LayoutWriter, variant_annotations
from edge_runtime.contract.release import FileEntry, TensorMap, VariantManifest
from edge_runtime.inference import vendor_telemetry
from tests.fakes.shared_recipes import RECIPES

ENGINES: Final[Mapping[str, tuple[EngineName, ...]]] = {
    ".onnx": ("onnxruntime", "openvino"), ".tflite": ("litert", "openvino"),
}  # fmt: skip
"""Who reads a file, by its ending; OpenVINO reads it once converted."""
_LAYERS: Final = {"model": "model", "weights": "model.bin"}


@dataclass(frozen=True)
class Described:
    """A model that lies beside the repository, with what its recipe makes of it."""

    recipe: Recipe
    draft: Draft
    content: bytes
    """The source file, as an engine takes it."""


def shared_release(
    name: str, models: Path, folder: Path, *, engines: Sequence[EngineName] | None = None, told: Any = None
) -> Path:
    """A release with one variant for each engine, named after it, around the file as it came.

    Args:
        name: the model's path below `models`.
        models: where it lies.
        folder: for the release.
        engines: of its variants; None: every one that reads such files.
        told: inputs and outputs of its recipe, where another model's fit.
    """
    found = described(name, models, told)
    engines = engines or ENGINES[Path(name).suffix]
    ids = [parse_variant_id(engine) for engine in engines]
    manifest = msgspec.structs.replace(found.draft.manifest, golden=None, variants=ids)
    labels = {key: read_labels(models / one.labels) for key, one in found.recipe.outputs.items() if one.labels}
    writer = LayoutWriter(folder)
    head = writer.add_manifest(encode(manifest), RELEASE_CONFIG, dict(layers_of(found.recipe, labels, {})), {})
    variants = []
    for engine in engines:
        variant, files = shared_variant(found, models / name, engine)
        layers = {_LAYERS[role]: part for role, part in files.items()}
        variants.append(writer.add_manifest(encode(variant), VARIANT_CONFIG, layers, variant_annotations(variant)))
    writer.finish(head, variants, manifest.version)
    return folder


def described(name: str, models: Path, told: Any = None) -> Described:
    """What its recipe says of a model; arguments as of `shared_release`."""
    raw = {"model": name, "name": "shared", "version": "1", "task": "any", "targets": ["cpu"], "batch_max": 1000,
           "evaluation": {"folder": "e"}, "precisions": ["float32"], **(told or RECIPES[name])}  # fmt: skip
    recipe = parse_recipe(json.dumps(raw).encode(), ".json")
    imported = read_source(models / name)
    content = imported.model if isinstance(imported.model, bytes) else imported.model.SerializeToString()
    return Described(recipe, draft_release(recipe, imported, digest_of(content), is_labelled=False), content)


def shared_variant(found: Described, path: Path, engine: EngineName) -> tuple[VariantManifest, dict[str, bytes]]:
    """The manifest of one engine's variant, and its files by role."""
    draft = found.draft
    tensors = TensorMap(
        inputs={tensor: draft.binding(tensor) for tensor in draft.inputs},
        outputs={tensor: draft.binding(tensor) for tensor in draft.outputs},
    )
    files = {"model": found.content} if engine != "openvino" else _as_ir(path)
    entries = [
        FileEntry(role=role, layer=LayerName(_LAYERS[role]), digest=digest_of(part), size=len(part))
        for role, part in files.items()
    ]
    return msgspec.structs.replace(bare_variant(engine, tensors, engine), files=entries), files


def _as_ir(model: Path) -> dict[str, bytes]:
    """A file in OpenVINO's own format, weights whole."""
    vendor_telemetry.switch_off()
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(openvino.Core().read_model(model), path, compress_to_fp16=False)
        return {"model": path.read_bytes(), "weights": path.with_suffix(".bin").read_bytes()}
