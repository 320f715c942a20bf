"""A model named in an MLflow registry is fetched, built and remembered by the version that its alias meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

mlflow = pytest.importorskip("mlflow")

from converters import foreign  # noqa: E402
from converters.commands.translate import local_model, with_local_model  # noqa: E402
from converters.errors import BadModel  # noqa: E402
from converters.importers.mlflow_registry import model_name  # noqa: E402
from converters.planning.recipe import parse_recipe  # noqa: E402
from tests.fakes.onnx_models import conv_classifier  # noqa: E402


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A registry in files: MLflow's own client and store, without a server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "registry").as_uri())
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri((tmp_path / "registry").as_uri())
    return mlflow.MlflowClient()


def registered(registry: mlflow.MlflowClient, name: str, folder: Path, description: str) -> str:
    (folder / "MLmodel").write_text(description)
    run = registry.create_run(registry.create_experiment(f"training of {name}"))
    registry.log_artifacts(run.info.run_id, str(folder), "model")
    registry.create_registered_model(name)
    version = registry.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    registry.set_registered_model_alias(name, "champion", version.version)
    return str(run.info.run_id)


def fetched(model: str, folder: Path) -> None:
    """In this process, which has the client already; two tests below start one as the command does."""
    foreign.main(model, folder, folder, trusts_code=False)


def onnx_folder(folder: Path) -> Path:
    folder.mkdir()
    onnx.save_model(
        conv_classifier(), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return folder


RECIPE = b"""
model = "mlflow:models/wildlife@champion"
name = "wildlife"
version = "1.0.0"
task = "classification"
targets = ["cpu"]
precisions = ["float32"]
inputs = { image = { tensor = "image", kind = "tensor", dtype = "float32" } }
outputs = { classes = { tensor = "scores", kind = "classes", activation = "none" } }
evaluation = { folder = "photos" }
"""
ONNX = "flavors:\n  onnx:\n    data: model.onnx\n"


@pytest.mark.parametrize(
    "said", ["mlflow:models/wildlife/1", "mlflow:models:/wildlife/1", "mlflow:models/wildlife@champion"]
)
def test_a_registered_onnx_model_comes_with_its_weights_and_its_version(registry, tmp_path, said) -> None:
    registered(registry, "wildlife", onnx_folder(tmp_path / "logged"), ONNX)

    fetched(said, tmp_path)

    source = json.loads((tmp_path / "source.json").read_text())
    model = onnx.load(tmp_path / source["file"])
    assert (Path(source["file"]).name, source["uri"]) == ("wildlife.onnx", "mlflow:models:/wildlife/1")
    original = conv_classifier().graph.initializer
    for one, other in zip(model.graph.initializer, original, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other))


def test_a_model_of_a_run_is_found_without_being_registered(registry, tmp_path) -> None:
    run = registered(registry, "wildlife", onnx_folder(tmp_path / "logged"), ONNX)

    fetched(f"mlflow:runs/{run}/model", tmp_path)

    source = json.loads((tmp_path / "source.json").read_text())
    assert source["uri"] == f"mlflow:runs:/{run}/model"
    onnx.load(tmp_path / source["file"])


def test_a_recipe_that_names_a_registered_model_says_in_its_release_where_it_came_from(registry, tmp_path) -> None:
    registered(registry, "wildlife", onnx_folder(tmp_path / "logged"), ONNX)

    recipe = parse_recipe(RECIPE, ".toml")

    local = with_local_model(recipe, tmp_path, trusts_code=False)

    assert local.model_uri == "mlflow:models:/wildlife/1"
    assert Path(local.model).is_file()


def test_a_registered_estimator_is_translated_and_a_pickle_still_needs_trust(registry, tmp_path) -> None:
    inputs, species = load_iris(return_X_y=True)
    folder = tmp_path / "logged"
    folder.mkdir()
    skops.io.dump(LogisticRegression(max_iter=500).fit(inputs, species), folder / "model.skops")
    registered(registry, "iris", folder, "flavors:\n  sklearn:\n    pickled_model: model.skops\n")
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    registered(registry, "pickled", folder, "flavors:\n  sklearn:\n    pickled_model: model.pkl\n")

    found = local_model(Path("mlflow:models/iris/1"), trusts_code=False)

    assert found.labels is not None
    assert found.labels.read_text().split() == ["0", "1", "2"]
    with pytest.raises(BadModel, match=r"pickle.*--trust-code"):
        fetched("mlflow:models/pickled/1", tmp_path)


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ("flavors:\n  pytorch:\n    data: data\n", "logged as 'pytorch', not as ONNX or scikit-learn"),
        ("flavors: [", "MLmodel file is damaged"),
        ("flavors:\n  onnx:\n    data: ../../outside.onnx\n", "did not come along"),
        ("flavors:\n  onnx:\n    data: absent.onnx\n", "did not come along"),
    ],
)
def test_a_registered_model_that_cannot_be_used_is_refused_with_the_reason(
    registry, tmp_path, description, says
) -> None:
    (tmp_path / "outside.onnx").write_bytes(b"not of this model")
    registered(registry, "odd", onnx_folder(tmp_path / "logged"), description)

    with pytest.raises(BadModel, match=says):
        fetched("mlflow:models/odd/1", tmp_path)


def test_a_name_that_the_registry_does_not_know_is_one_clear_error(registry, tmp_path) -> None:
    registered(registry, "wildlife", onnx_folder(tmp_path / "logged"), ONNX)

    with pytest.raises(BadModel, match=r"cannot fetch mlflow:models/nobody/7.*MLFLOW_TRACKING_URI"):
        fetched("mlflow:models/nobody/7", tmp_path)


@pytest.mark.parametrize(
    "said", ["mlflow:models/wildlife", "mlflow:wildlife/1", "mlflow:", "mlflow:models/wildlife/latest"]
)
def test_a_uri_without_version_alias_or_run_says_how_to_write_one(said) -> None:
    with pytest.raises(BadModel, match="mlflow:models/NAME/VERSION"):
        model_name(said)
