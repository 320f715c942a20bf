"""Models of other frameworks on the command line: translated where they are named, or into a file on request."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from converters.errors import BadModel, CannotWrite
from converters.foreign import LABELS, Translated, is_foreign, translate
from converters.planning.recipe import Recipe

_KEPT: Final[list[TemporaryDirectory[str]]] = []
"""Folders of translated models; they go when the command ends."""


def local_model(model: Path, *, trusts_code: bool) -> Translated:
    """The ONNX or TensorFlow Lite file behind what a person named as model. Raises: BadModel."""
    if not is_foreign(str(model), Path.cwd()):
        return Translated(model, None)
    return _translated(str(model), Path.cwd(), trusts_code=trusts_code)


def with_local_model(recipe: Recipe, base: Path, *, trusts_code: bool) -> Recipe:
    """A recipe whose model is an ONNX or TensorFlow Lite file, with the labels that an estimator says itself.

    Raises:
        BadModel: the model it names cannot be translated.
    """
    if not is_foreign(recipe.model, base):
        return recipe
    translated = _translated(recipe.model, base, trusts_code=trusts_code)
    first, *others = recipe.outputs.items()
    name, output = first
    if output.labels is None and output.kind == "classes" and translated.labels is not None:
        output = msgspec.structs.replace(output, labels=str(translated.labels))
    uri = translated.uri or recipe.model_uri
    return msgspec.structs.replace(
        recipe, model=str(translated.model), model_uri=uri, outputs={name: output, **dict(others)}
    )


def write_translated(model: Path, out: Path, *, trusts_code: bool) -> tuple[Path, ...]:
    """Translate a model to ONNX files of the person's choice; what was written.

    Raises:
        BadModel: it is no model of another framework, or cannot be translated.
        CannotWrite: there is such a file already, or no permission.
    """
    if not is_foreign(str(model), Path.cwd()):
        because = "it is no scikit-learn, PyTorch or MLflow model"
        raise BadModel(f"import {model.name}", because, "name it to check or build")
    if out.exists():
        raise CannotWrite(f"write {out}", "it exists already", "name another file")
    translated = _translated(str(model), Path.cwd(), trusts_code=trusts_code)
    written = {out: translated.model}
    if translated.labels is not None:
        written[out.with_name(f"{out.stem}.{LABELS}")] = translated.labels
    try:
        for target, source in written.items():
            shutil.copyfile(source, target)
    except OSError as error:
        raise CannotWrite(f"write {out}", error.strerror or str(error), "name a folder that you may write") from error
    return tuple(written)


def _translated(model: str, base: Path, *, trusts_code: bool) -> Translated:
    folder = TemporaryDirectory(prefix="edge-convert-import-")
    _KEPT.append(folder)
    return translate(model, base, Path(folder.name), trusts_code=trusts_code)
