"""scikit-learn and PyTorch models become ONNX files that answer as the originals; nothing runs code unasked."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from converters.commands.translate import write_translated
from converters.errors import BadModel, CannotWrite
from converters.foreign import LABELS, Translated, is_foreign, main, translate

IRIS, SPECIES = load_iris(return_X_y=True)


def saved(estimator: Any, path: Path) -> Path:
    if path.suffix == ".skops":
        skops.io.dump(estimator, path)
    else:
        joblib.dump(estimator, path)
    return path


def translated(path: Path, folder: Path, *, trusts_code: bool = False) -> Translated:
    """In this process, which has the libraries already; a few tests below start one as the command does."""
    folder.mkdir()
    main(path.name, path.parent, folder, trusts_code=trusts_code)
    labels = folder / LABELS
    return Translated(folder / f"{path.stem}.onnx", labels if labels.exists() else None)


def ask(model: Path, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(None, {name: array.astype(np.float32) for name, array in inputs.items()})[0]
    return answer


def test_a_pipeline_that_fills_gaps_gives_the_probabilities_of_the_original(tmp_path) -> None:
    gaps = IRIS.copy()
    gaps[::7, 1] = np.nan
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(gaps, SPECIES)

    made = translated(saved(pipeline, tmp_path / "iris.skops"), tmp_path / "out")

    onnx.checker.check_model(str(made.model))
    assert np.abs(ask(made.model, features=gaps) - pipeline.predict_proba(gaps)).max() < 1e-5
    assert made.labels
    assert made.labels.read_text() == "0\n1\n2\n"


def test_classes_that_are_words_become_labels(tmp_path) -> None:
    words = np.array(["setosa", "versicolor", "virginica"])[SPECIES]
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(IRIS, words)

    made = translated(saved(forest, tmp_path / "iris.skops"), tmp_path / "out")

    assert made.labels
    assert made.labels.read_text() == "setosa\nversicolor\nvirginica\n"
    assert (ask(made.model, features=IRIS).argmax(1) == forest.predict_proba(IRIS).argmax(1)).mean() > 0.99


def test_a_regressor_gives_its_numbers_and_has_no_labels(tmp_path) -> None:
    features, target = load_diabetes(return_X_y=True)
    regressor = GradientBoostingRegressor(n_estimators=10).fit(features, target)

    made = translated(saved(regressor, tmp_path / "d.joblib"), tmp_path / "out", trusts_code=True)

    assert np.abs(ask(made.model, features=features).ravel() - regressor.predict(features)).max() < 1e-2
    assert made.labels is None


def test_a_pipeline_that_picks_columns_by_name_takes_them_one_by_one(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS, columns=["a", "b", "c", "d"])
    parts = [("scaled", StandardScaler(), ["a", "c"]), ("filled", SimpleImputer(), ["b", "d"])]
    pipeline = make_pipeline(ColumnTransformer(parts), Ridge()).fit(frame, SPECIES)

    made = translated(saved(pipeline, tmp_path / "iris.skops"), tmp_path / "out")

    columns = {name: frame[[name]].to_numpy() for name in frame}
    assert np.abs(ask(made.model, **columns).ravel() - pipeline.predict(frame)).max() < 1e-4


def test_a_pickle_runs_nothing_until_somebody_trusts_it(tmp_path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "model.joblib").write_bytes(pickle.dumps(Harmful()))

    with pytest.raises(BadModel, match=r"it is a pickle, which runs whatever code it holds.*--trust-code"):
        translate("model.joblib", tmp_path, tmp_path, trusts_code=False)

    assert not (tmp_path / "ran").exists()


def test_a_type_that_skops_does_not_know_is_not_made_until_somebody_trusts_it(tmp_path) -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("odd", Odd())]).fit(IRIS, SPECIES)

    with pytest.raises(BadModel, match=r"it names '.*Odd', which skops does not know to be harmless"):
        translated(saved(pipeline, tmp_path / "odd.skops"), tmp_path / "out")


class Odd(Ridge):
    """An estimator that is nobody's but this file's."""


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        (Ridge(), "holds a Ridge that was not fitted"),
        (make_pipeline(ColumnTransformer([("t", OneHotEncoder(), [0])]), Ridge()).fit(np.array([["a"], ["b"]]), [0, 1]),
         "column '0' takes text, models on devices take numbers"),
        (make_pipeline(OneHotEncoder(), Ridge()).fit(np.array([["a"], ["b"]]), [0, 1]), "column '0' takes text"),
        (make_pipeline(ColumnTransformer([("t", OneHotEncoder(), [0, 1])]), Ridge()).fit(
            np.array([[1.0, "a"], [2.0, "b"]], object), [0, 1]), "column '1' takes text"),
    ],
)  # fmt: skip
def test_an_estimator_that_no_device_can_run_is_refused_with_the_reason(tmp_path, estimator, says) -> None:
    with pytest.raises(BadModel, match=says):
        translated(saved(estimator, tmp_path / "e.joblib"), tmp_path / "out", trusts_code=True)


@pytest.mark.parametrize("name", ["cut.skops", "cut.joblib"])
def test_a_damaged_file_is_said_to_be_damaged(tmp_path, name) -> None:
    path = saved(Ridge().fit(IRIS, SPECIES), tmp_path / name)
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(BadModel, match=f"cannot read {name}"):
        translated(path, tmp_path / "out", trusts_code=True)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path) -> None:
    with pytest.raises(BadModel, match="no such file"):
        translate("gone.skops", tmp_path, tmp_path, trusts_code=False)


@pytest.mark.parametrize(
    ("name", "foreign"),
    [("a.skops", True), ("a.PKL", True), ("a.pt2", True), ("net:make", True), ("nets.deep:make", True),
     ("a.onnx", False), ("a.tflite", False), ("c:/model.onnx", False), ("a b:c", False)],
)  # fmt: skip
def test_what_must_be_translated_is_told_by_its_name(tmp_path, name, foreign) -> None:
    assert is_foreign(name, tmp_path) is foreign


def test_an_import_writes_the_model_and_its_labels_and_replaces_nothing(tmp_path) -> None:
    path = saved(LogisticRegression(max_iter=500).fit(IRIS, SPECIES), tmp_path / "iris.skops")

    written = write_translated(path, tmp_path / "iris.onnx", trusts_code=False)

    assert [one.name for one in written] == ["iris.onnx", "iris.labels.txt"]
    with pytest.raises(CannotWrite, match="exists already"):
        write_translated(path, tmp_path / "iris.onnx", trusts_code=False)


def test_a_module_is_not_imported_until_somebody_trusts_it(tmp_path) -> None:
    (tmp_path / "net.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")

    with pytest.raises(BadModel, match=r"importing net runs whatever code it holds.*--trust-code"):
        translate("net:make", tmp_path, tmp_path, trusts_code=False)

    assert not (tmp_path / "ran").exists()


def test_a_program_of_pytorch_is_not_opened_until_somebody_trusts_it(tmp_path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK")

    with pytest.raises(BadModel, match=r"PyTorch may run code that such a file holds"):
        translated(tmp_path / "net.pt2", tmp_path / "out")


NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.dense = torch.nn.Linear(144, 3)

    def forward(self, x):
        return self.dense(torch.relu(self.conv(x)).flatten(1))

def make():
    torch.manual_seed(0)
    return Net(), (torch.zeros(1, 1, 8, 8),)

def nothing():
    return 5
"""


def test_a_function_that_makes_a_module_is_exported_with_its_weights(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    (tmp_path / "net.py").write_text(NET)
    scope: dict[str, Any] = {}
    exec(NET, scope)
    module, _ = scope["make"]()
    pixels = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)

    made = translate("net:make", tmp_path, tmp_path, trusts_code=True)

    session = onnxruntime.InferenceSession(str(made.model), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: pixels})
    with torch.no_grad():
        assert np.abs(answer - module(torch.from_numpy(pixels)).numpy()).max() < 1e-5
    assert not list(tmp_path.glob("*.data"))


def test_an_exported_program_of_pytorch_is_translated_when_it_is_trusted(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    scope: dict[str, Any] = {}
    exec(NET, scope)
    module, examples = scope["make"]()
    torch.export.save(torch.export.export(module.eval(), examples), tmp_path / "net.pt2")

    made = translated(tmp_path / "net.pt2", tmp_path / "out", trusts_code=True)

    session = onnxruntime.InferenceSession(str(made.model), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 1, 8, 8]


@pytest.mark.parametrize(
    ("name", "says"),
    [("net:nothing", "it returned a int; return .module, .example input"), ("net:absent", "has no attribute 'absent'"),
     ("absent:make", "No module named 'absent'")],
)  # fmt: skip
def test_a_function_that_makes_no_module_is_refused_with_the_reason(tmp_path, name, says) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    (tmp_path / "net.py").write_text(NET)

    with pytest.raises(BadModel, match=says):
        translate(name, tmp_path, tmp_path, trusts_code=True)


def test_without_pytorch_its_models_say_what_to_install(tmp_path) -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        with pytest.raises(BadModel, match=r"torch is not installed|onnxscript is not installed"):
            translate("net:make", tmp_path, tmp_path, trusts_code=True)
    else:
        pytest.skip("PyTorch is installed here")
