"""Models of other frameworks and registries: each becomes an ONNX file, in a process of its own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from converters.errors import BadModel, ConvertError
from converters.importers import mlflow_registry, sklearn, torch
from edge_runtime.contract.ids import shown

TIMEOUT_S: Final = 900.0
_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")
_TRUSTED: Final = "trusted"
LABELS: Final = "labels.txt"
"""Beside the model, when the estimator says its classes."""
_SOURCE: Final = "source.json"
"""Beside the model, when it was fetched: where its file lies and where it came from."""


class _Failure(msgspec.Struct, frozen=True):
    cannot: str
    because: str
    remedy: str


class _Source(msgspec.Struct, frozen=True):
    uri: str
    file: str


@dataclass(frozen=True, slots=True)
class Translated:
    """What a model of another framework became."""

    model: Path
    labels: Path | None
    uri: str | None = None
    """Which version of a registry it was."""


def is_foreign(model: str, base: Path) -> bool:
    """Whether an importer must translate it: a file by its ending, `module:function`, or something in a registry."""
    if is_fetched(model):
        return True
    path = base / model
    if path.suffix.lower() in {*sklearn.PICKLES, sklearn.SKOPS, torch.PROGRAM}:
        return True
    return _FUNCTION.match(model) is not None and not path.exists()


def is_fetched(model: str) -> bool:
    """Whether a model is named that lies in a registry."""
    return model.startswith(mlflow_registry.SCHEME)


def translate(model: str, base: Path, folder: Path, *, trusts_code: bool) -> Translated:
    """Translate a model of another framework to ONNX.

    Args:
        model: what `is_foreign` said yes to.
        base: folder that it is relative to.
        folder: empty one to write into.
        trusts_code: whether a file may run code while it is opened, and a module while it is imported.

    Raises:
        BadModel: it cannot be read or translated; the message says why.
    """
    path = base / model
    if is_fetched(model):
        mlflow_registry.model_name(model)
    elif not _FUNCTION.match(model) and not path.is_file():
        raise BadModel(f"read {path.name}", "there is no such file", "check the path")
    trust = _TRUSTED if trusts_code else "no"
    command = [sys.executable, "-m", "converters.foreign", model, str(base.resolve()), str(folder.resolve()), trust]
    # A process of its own: frameworks are large, and what an engineer's module does to a process ends with it.
    try:
        finished = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        because = f"it took more than {TIMEOUT_S:.0f} s"
        raise BadModel(f"translate {model}", because, "export it to ONNX yourself") from error
    _raise_failure(model, finished)
    labels = folder / LABELS
    known_labels = labels if labels.exists() else None
    if is_fetched(model):
        source = msgspec.json.decode((folder / _SOURCE).read_bytes(), type=_Source)
        return Translated(folder / source.file, known_labels, source.uri)
    return Translated(folder / _file_name(model), known_labels)


def _file_name(model: str) -> str:
    """What the ONNX file is called: as the file, function or registered model is, so that people know it again."""
    if is_fetched(model):
        return f"{mlflow_registry.model_name(model)}.onnx"
    name = model.rpartition(":")[2] if _FUNCTION.match(model) else Path(model).stem
    return f"{name}.onnx"


def _raise_failure(model: str, finished: subprocess.CompletedProcess[bytes]) -> None:
    if finished.returncode == 0:
        return
    lines = finished.stderr.decode(errors="replace").strip().splitlines()
    with contextlib.suppress(msgspec.MsgspecError, IndexError):
        failure = msgspec.json.decode(lines[-1], type=_Failure)
        raise BadModel(failure.cannot, failure.because, failure.remedy)
    because = f"its process ended with code {finished.returncode}: {shown(lines[-1] if lines else 'no word', 200)}"
    raise BadModel(f"translate {model}", because, "export it to ONNX yourself")


def main(model: str, base: Path, folder: Path, *, trusts_code: bool) -> None:
    """Translate in this process. Raises: BadModel."""
    out = folder / _file_name(model)
    if is_fetched(model):
        fetched = mlflow_registry.fetch(model, folder)
        is_onnx = fetched.file.suffix.lower() == out.suffix
        if not is_onnx:
            _translate_estimator(fetched.file, out, trusts_code=trusts_code)
        # An ONNX file stays where it was put: its weights may lie in files beside it.
        file = fetched.file if is_onnx else out
        (folder / _SOURCE).write_bytes(msgspec.json.encode(_Source(fetched.uri, str(file.relative_to(folder)))))
    elif _FUNCTION.match(model) and not (base / model).exists():
        torch.import_function(model, base, out, trusts_code=trusts_code)
    elif (base / model).suffix.lower() == torch.PROGRAM:
        torch.import_program(base / model, out, trusts_code=trusts_code)
    else:
        _translate_estimator(base / model, out, trusts_code=trusts_code)


def _translate_estimator(path: Path, out: Path, *, trusts_code: bool) -> None:
    translated, classes = sklearn.import_estimator(path, trusts_code=trusts_code)
    out.write_bytes(translated.SerializeToString())
    if classes:
        (out.parent / LABELS).write_text("\n".join(classes) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), trusts_code=sys.argv[4] == _TRUSTED)
    except ConvertError as refused:
        told = msgspec.json.encode(_Failure(refused.cannot, refused.because, refused.remedy or ""))
        sys.exit(told.decode())
