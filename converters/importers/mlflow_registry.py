"""A model out of an MLflow registry or run: fetched with MLflow's own client, then read as what it is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from converters.errors import BadModel
from edge_runtime.contract.ids import shown

SCHEME: Final = "mlflow:"
_MODEL: Final = re.compile(r"models:?/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))\Z")
_RUN: Final = re.compile(r"runs:?/(?P<run>[^/]+)/(?P<path>.+)\Z")
_DESCRIPTION: Final = "MLmodel"
_SILENT: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_FORMATS: Final = "ONNX or scikit-learn"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model that lies here now."""

    file: Path
    uri: str
    """Where it came from, an alias replaced by the version that it named."""


def model_name(uri: str) -> str:
    """What a file of this model is called. Raises: BadModel when the URI names neither a version nor a run."""
    if found := _MODEL.match(uri.removeprefix(SCHEME)):
        return found["name"]
    if found := _RUN.match(uri.removeprefix(SCHEME)):
        return Path(found["path"]).name
    because = "it names neither a version, an alias, nor a run"
    remedy = "write mlflow:models/NAME/VERSION, mlflow:models/NAME@ALIAS or mlflow:runs/RUN_ID/PATH"
    raise BadModel(f"use {shown(uri)}", because, remedy)


def fetch(uri: str, folder: Path) -> Fetched:
    """Download a model with the credentials and the tracking server that MLflow's own variables name.

    Args:
        uri: `mlflow:models/NAME/VERSION`, `mlflow:models/NAME@ALIAS` or `mlflow:runs/RUN_ID/PATH`.
        folder: to write into.

    Raises:
        BadModel: the client is missing, the server refuses, or the model is of a framework that has no importer.
    """
    name = model_name(uri)
    os.environ.update(_SILENT)
    try:
        import mlflow
    except ImportError as error:
        raise BadModel(f"fetch {uri}", "MLflow's client is not installed", "pip install 'edgefleet[mlflow]'") from error
    try:
        resolved = _resolved(mlflow, uri.removeprefix(SCHEME))
        fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=resolved, dst_path=str(folder / "fetched")))
    except BadModel:
        raise
    except Exception as error:  # its stores raise what their own clients raise
        because = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise BadModel(f"fetch {uri}", because, "check the name, MLFLOW_TRACKING_URI and its credentials") from error
    file = _model_file(uri, fetched)
    # The file's name becomes the release's; weights in files of their own are named inside it and stay beside it.
    return Fetched(file.rename(file.with_name(f"{name}{file.suffix}")), SCHEME + resolved)


def _resolved(mlflow: Any, wanted: str) -> str:
    found = _MODEL.match(wanted)
    if found is None:
        run = _RUN.match(wanted)
        return wanted if run is None else f"runs:/{run['run']}/{run['path']}"
    version = found["version"]
    if version is None:
        version = mlflow.MlflowClient().get_model_version_by_alias(found["name"], found["alias"]).version
    return f"models:/{found['name']}/{version}"


def _model_file(uri: str, folder: Path) -> Path:
    """The file that the model's own description names for a framework that has an importer here."""
    root = folder.resolve()
    description = folder / _DESCRIPTION
    if not description.is_file():
        raise BadModel(f"read {uri}", f"it holds no {_DESCRIPTION} file", "log it with mlflow's log_model")
    try:
        flavors = dict(msgspec.yaml.decode(description.read_bytes())["flavors"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise BadModel(f"read {uri}", f"its {_DESCRIPTION} file is damaged", "log the model again") from error
    # The ONNX file first: a model that was logged in both ways need run no foreign code.
    for flavor, entry in (("onnx", "data"), ("sklearn", "pickled_model")):
        named = flavors.get(flavor)
        if isinstance(named, dict) and isinstance(named.get(entry), str):
            file = (root / str(named[entry])).resolve()
            if file.is_file() and file.is_relative_to(root):
                return file
            raise BadModel(f"read {uri}", f"its file {shown(named[entry])} did not come along", "log the model again")
    held = ", ".join(sorted(flavors)) or "nothing"
    raise BadModel(f"use {uri}", f"it was logged as {shown(held)}, not as {_FORMATS}", "log it with mlflow.onnx")
