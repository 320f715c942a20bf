"""Releases of the models that lie beside the repository: the files as they came, for every engine that may load one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from converters.building.workshop import bare_variant
from converters.data.datasets import read_labels
from converters.planning.recipe import EngineName, parse_recipe
from converters.reading import read_source
from converters.release.draft import draft_release
from converters.release.layers import layers_of
from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import LayerName, parse_variant_id
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, LayoutWriter, variant_annotations
from edge_runtime.contract.release import FileEntry, TensorMap
from edge_runtime.inference import vendor_telemetry
from tests.fakes.shared_recipes import RECIPES

ENGINES: Final[Mapping[str, tuple[EngineName, ...]]] = {
    ".onnx": ("onnxruntime", "openvino"), ".tflite": ("litert", "openvino"),
}  # fmt: skip
"""Who reads a file, by its ending; OpenVINO reads it once converted."""
_LAYERS: Final = {"model": "model", "weights": "model.bin"}


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
    raw = {"model": name, "name": "shared", "version": "1", "task": "any", "targets": ["cpu"],
           "evaluation": {"folder": "e"}, "precisions": ["float32"], "batch_max": 1000, **(told or RECIPES[name])}  # fmt: skip
    recipe = parse_recipe(json.dumps(raw).encode(), ".json")
    imported = read_source(models / name)
    content = imported.model if isinstance(imported.model, bytes) else imported.model.SerializeToString()
    draft = draft_release(recipe, imported, digest_of(content), is_labelled=False)
    tensors = TensorMap(
        inputs={tensor: draft.binding(tensor) for tensor in draft.inputs},
        outputs={tensor: draft.binding(tensor) for tensor in draft.outputs},
    )
    engines = engines or ENGINES[Path(name).suffix]
    manifest = msgspec.structs.replace(
        draft.manifest, golden=None, variants=[parse_variant_id(engine) for engine in engines]
    )
    labels = {key: read_labels(models / entry.labels) for key, entry in recipe.outputs.items() if entry.labels}
    writer = LayoutWriter(folder)
    head = writer.add_manifest(encode(manifest), RELEASE_CONFIG, dict(layers_of(recipe, labels, {})), {})
    variants = []
    for engine in engines:
        files = {"model": content} if engine != "openvino" else _as_ir(models / name)
        entries = [
            FileEntry(role=role, layer=LayerName(_LAYERS[role]), digest=digest_of(part), size=len(part))
            for role, part in files.items()
        ]
        variant = msgspec.structs.replace(bare_variant(engine, tensors, engine), files=entries)
        layers = {_LAYERS[role]: part for role, part in files.items()}
        variants.append(writer.add_manifest(encode(variant), VARIANT_CONFIG, layers, variant_annotations(variant)))
    writer.finish(head, variants, manifest.version)
    return folder


def _as_ir(model: Path) -> dict[str, bytes]:
    """A file in OpenVINO's own format, weights whole."""
    vendor_telemetry.switch_off()
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(openvino.Core().read_model(model), path, compress_to_fp16=False)
        return {"model": path.read_bytes(), "weights": path.with_suffix(".bin").read_bytes()}
