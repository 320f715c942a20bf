"""A PyTorch program becomes an ONNX model by PyTorch's own exporter; PyTorch is used where it is, never asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Final

from converters.errors import BadModel
from edge_runtime.contract.ids import shown

PROGRAM: Final = ".pt2"
_OPSET: Final = 18
"""The lowest that PyTorch's exporter writes without a converter in between."""
_HELP: Final = "pip install torch onnxscript, or export the model to ONNX where PyTorch is installed"


def import_program(path: Path, out: Path, *, trusts_code: bool) -> None:
    """Write the ONNX model of a program that `torch.export.save` wrote.

    Args:
        path: the `.pt2` file.
        out: file to write.
        trusts_code: whether the file may run code while it is opened.

    Raises:
        BadModel: PyTorch is missing, the file may not be trusted, or the program cannot be translated.
    """
    if not trusts_code:
        raise BadModel(
            f"read {path.name}", "PyTorch may run code that such a file holds when it opens it",
            "add --trust-code if you know who made the file, or name an ONNX file",
        )  # fmt: skip
    torch = _torch(path.name)
    try:
        program = torch.export.load(path)
    except Exception as error:
        because = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise BadModel(f"read {path.name}", because, "write it with torch.export.save") from error
    _export(torch, path.name, program, None, out)


def import_function(name: str, folder: Path, out: Path, *, trusts_code: bool) -> None:
    """Write the ONNX model of what a function of the engineer's returns.

    Args:
        name: `module:function`; it takes nothing and returns a module and a tuple of example inputs.
        folder: where the module is looked for first.
        out: file to write.
        trusts_code: whether the module may run.

    Raises:
        BadModel: PyTorch is missing, the module may not be trusted, the function fails, or what it returns cannot be
            translated.
    """
    if not trusts_code:
        raise BadModel(
            f"call {name}", f"importing {name.partition(':')[0]} runs whatever code it holds",
            "add --trust-code if you know who wrote it, or name an ONNX file",
        )  # fmt: skip
    torch = _torch(name)
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, str(folder.resolve()))
    try:
        made = getattr(importlib.import_module(module_name), attribute)()
    except Exception as error:
        because = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise BadModel(f"call {name}", because, f"run it in a Python shell in {folder}") from error
    finally:
        sys.path.remove(str(folder.resolve()))
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module)):
        because = f"it returned a {type(made).__name__}"
        raise BadModel(f"call {name}", because, "return (module, (example input, …))")
    module, examples = made
    _export(torch, name, module.eval(), examples if isinstance(examples, tuple) else (examples,), out)


def _torch(what: str) -> Any:
    try:
        torch = importlib.import_module("torch")
        # The exporter imports it late, with a message about itself.
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise BadModel(f"read {what}", f"{error.name} is not installed", _HELP) from error
    return torch


def _export(torch: Any, what: str, program: Any, examples: tuple[Any, ...] | None, out: Path) -> None:
    try:
        torch.onnx.export(
            program, examples or (), str(out), dynamo=True, opset_version=_OPSET, external_data=False, verbose=False
        )
    except Exception as error:
        # The exporter appends its whole log; the first line has the reason.
        because = f"PyTorch cannot export it: {shown(str(error).strip().partition(chr(10))[0], 200)}"
        raise BadModel(f"translate {what}", because, "see torch.onnx.export(..., report=True)") from error
