"""Which metadata a model carries, and what a file named beside it says; the named file comes first."""

from __future__ import annotations

from pathlib import Path

from converters.errors import BadModel
from converters.model.source import Imported
from converters.starter.metadata.facts import Facts
from converters.starter.metadata.huggingface import facts_of_huggingface
from converters.starter.metadata.openvino_model_info import (
    facts_of_model_info,
    model_info_of_properties,
    model_info_of_xml,
)
from converters.starter.metadata.tflite import facts_of_tflite
from converters.starter.metadata.ultralytics import facts_of_ultralytics


def find_facts(imported: Imported, preprocessor: Path | None) -> tuple[Facts, ...]:
    """Everything that is known about a model.

    Args:
        imported: the model.
        preprocessor: `preprocessor_config.json` of Hugging Face, or the .xml of an OpenVINO model.

    Raises:
        BadModel: metadata that is there cannot be read.
    """
    found: list[Facts | None] = []
    if preprocessor is not None:
        found.append(_named(preprocessor))
    if imported.format == "tflite":
        found.append(facts_of_tflite(imported))
    else:
        said = [(entry.key, entry.value) for entry in imported.model.metadata_props]
        # protobuf hands out what is no UTF-8 as bytes; no source of metadata writes such a thing.
        properties = {key: value for key, value in said if isinstance(key, str) and isinstance(value, str)}
        found.append(facts_of_ultralytics(properties, imported.outputs))
        found.append(facts_of_model_info(model_info_of_properties(properties)))
    return tuple(facts for facts in found if facts is not None)


def _named(path: Path) -> Facts | None:
    if path.suffix.lower() == ".json":
        return facts_of_huggingface(path)
    if path.suffix.lower() == ".xml":
        return facts_of_model_info(model_info_of_xml(path))
    raise BadModel(f"read {path.name}", "it is neither .json nor .xml", "name preprocessor_config.json or an IR's .xml")
