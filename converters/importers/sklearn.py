"""A scikit-learn estimator becomes an ONNX model, by skl2onnx; opened as data unless its owner trusts its code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from converters.errors import BadModel
from edge_runtime.contract.ids import shown

PICKLES: Final = frozenset({".joblib", ".pkl", ".pickle"})
SKOPS: Final = ".skops"

_OPSET: Final = {"": 17, "ai.onnx.ml": 3}
"""Every ONNX Runtime that a profile names runs these."""
_HARMLESS: Final = (
    "numpy.dtype",
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""What skops does not trust by itself: a type of number, and native trees, whose arrays are read and never followed."""
_INPUT: Final = "features"


def import_estimator(path: Path, *, trusts_code: bool) -> tuple[Any, tuple[str, ...]]:
    """The ONNX model of a saved estimator or pipeline, and its classes as text (empty for a regressor).

    Args:
        path: written by `skops.io.dump`, or a pickle (joblib's as well).
        trusts_code: whether the file may run code while it is opened, as every pickle may.

    Raises:
        BadModel: a library is missing, the file may not be trusted, or the estimator cannot be translated.
    """
    if path.suffix.lower() != SKOPS and not trusts_code:
        raise BadModel(
            f"read {path.name}", "it is a pickle, which runs whatever code it holds when it is opened",
            "save the estimator with skops.io.dump, or add --trust-code if you know who made the file",
        )  # fmt: skip
    try:
        import skl2onnx  # noqa: F401 (asked first: without it nothing needs to be opened)
        import sklearn  # noqa: F401
    except ImportError as error:
        raise BadModel(
            f"read {path.name}", f"{error.name} is not installed", "pip install 'edgefleet[sklearn]'"
        ) from error
    estimator = _opened(path, trusts_code=trusts_code)
    if not hasattr(estimator, "n_features_in_"):
        because = f"it holds a {type(estimator).__name__} that was not fitted, or no estimator"
        raise BadModel(f"read {path.name}", because, "save a fitted estimator or pipeline")
    if texts := list(_text_columns(estimator)):
        raise BadModel(
            f"translate {path.name}", f"column {shown(texts[0])} takes text, models on devices take numbers",
            "encode such columns before the pipeline, and save the pipeline without them",
        )  # fmt: skip
    classes = tuple(str(label) for label in getattr(estimator, "classes_", ()))
    return _translated(path, estimator), classes


def _opened(path: Path, *, trusts_code: bool) -> Any:
    if path.suffix.lower() == SKOPS:
        return _from_skops(path, trusts_code=trusts_code)
    import joblib

    try:
        return joblib.load(path)
    except Exception as error:
        because = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise BadModel(
            f"read {path.name}", because, "use the versions of Python and scikit-learn that wrote it"
        ) from error


def _from_skops(path: Path, *, trusts_code: bool) -> Any:
    try:
        import skops.io as skops
    except ImportError as error:
        raise BadModel(f"read {path.name}", "skops is not installed", "pip install 'edgefleet[sklearn]'") from error
    try:
        unknown = sorted(set(skops.get_untrusted_types(file=path)) - set(_HARMLESS))
        if unknown and not trusts_code:
            raise BadModel(
                f"read {path.name}", f"it names {shown(unknown[0])}, which skops does not know to be harmless",
                "add --trust-code if you know who made the file",
            )  # fmt: skip
        return skops.load(path, trusted=[*_HARMLESS, *unknown])
    except BadModel:
        raise
    except Exception as error:
        because = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise BadModel(f"read {path.name}", because, "save the estimator with skops.io.dump") from error


def _translated(path: Path, estimator: Any) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    if names := _named_columns(estimator):
        inputs = [(name, FloatTensorType([None, 1])) for name in names]
    else:
        inputs = [(_INPUT, FloatTensorType([None, int(estimator.n_features_in_)]))]
    is_classifier = hasattr(estimator, "classes_")
    options = {id(estimator): {"zipmap": False}} if is_classifier else None
    try:
        model = convert_sklearn(estimator, initial_types=inputs, options=options, target_opset=_OPSET)
        # The label as text is nothing that a tensor of numbers can carry; the probabilities say it as well.
        return _only("probabilities", model) if is_classifier else model
    except Exception as error:
        # skl2onnx prints whole attribute tables; the first line has the reason.
        because = f"skl2onnx refuses it: {shown(str(error).strip().partition(chr(10))[0], 200)}"
        raise BadModel(f"translate {path.name}", because, "export it to ONNX yourself, and name that file") from error


def _only(output: str, model: Any) -> Any:
    """The model with this output alone, and without nodes that nothing needs any more."""
    graph = model.graph
    kept = [entry for entry in graph.output if entry.name == output]
    del graph.output[:]
    graph.output.extend(kept)
    needed, nodes = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    ordered = [type(node).FromString(node.SerializeToString()) for node in reversed(nodes)]
    del graph.node[:]
    graph.node.extend(ordered)
    return model


def _named_columns(estimator: Any) -> list[str]:
    """Columns that a pipeline picks by name, and so takes one by one; empty where it takes one row of numbers."""
    picks_by_name = any(
        isinstance(columns, list | tuple) and columns and all(isinstance(column, str) for column in columns)
        for transformer in _column_transformers(estimator)
        for _, _, columns in transformer.transformers
    )
    return [str(name) for name in estimator.feature_names_in_] if picks_by_name else []


def _text_columns(estimator: Any) -> Iterator[str]:
    """Columns whose categories are text, wherever in a pipeline they are encoded."""
    names = list(getattr(estimator, "feature_names_in_", range(int(estimator.n_features_in_))))
    for step in _steps(estimator):
        if hasattr(step, "transformers_"):
            for _, part, columns in step.transformers_:
                yield from _encoded_texts(part, list(columns) if isinstance(columns, list | tuple) else names)
        else:
            yield from _encoded_texts(step, names)


def _encoded_texts(part: Any, columns: list[Any]) -> Iterator[str]:
    for step in _steps(part):
        # One list of categories for each column; a step before it may have made others of them.
        categories = getattr(step, "categories_", ())
        for number, values in enumerate(categories):
            if any(isinstance(value, str) for value in values):
                yield str(columns[number] if len(columns) == len(categories) else number)


def _column_transformers(estimator: Any) -> Iterator[Any]:
    for step in _steps(estimator):
        if hasattr(step, "transformers_"):
            yield step


def _steps(estimator: Any) -> list[Any]:
    return [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]
