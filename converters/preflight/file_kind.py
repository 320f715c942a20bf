"""What a file really is, told from its first bytes: people hand over pointers, archives and other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from converters.preflight.findings import Finding

# (offset, signature, what it is, advice)
_SIGNATURES: Final = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model", "run git lfs pull and name the file again"),
    (0, b"PK\x03\x04", "a zip archive (PyTorch and Keras save such files)", "export the model to ONNX first"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it and name the .onnx file inside"),
    (0, b"\x89HDF", "an HDF5 file (Keras)", "export the model to ONNX first, for example with tf2onnx"),
    (4, b"TFL3", "a TensorFlow Lite model", "name the ONNX model it was made from"),
    (0, b"<?xml", "an XML file (an OpenVINO model?)", "name the ONNX model it was made from"),
    (0, b"<!DOCTYPE", "a web page", "download the file itself (on GitHub: the raw file)"),
    (0, b"<html", "a web page", "download the file itself (on GitHub: the raw file)"),
    (0, b"\x80\x02", "a Python pickle (PyTorch)", "export the model with torch.onnx.export"),
    (0, b"{", "a JSON file", "name the .onnx file"),
)


def look_at_file(path: Path) -> Finding | None:
    """The reason why a path cannot hold an ONNX model; None when it may."""
    if path.is_dir():
        return Finding("error", "not_a_file", f"{path.name} is a folder", "name the .onnx file")
    if not path.exists():
        return Finding("error", "not_found", f"there is no file {path}", "check the path")
    try:
        with path.open("rb") as source:
            head = source.read(64)
    except OSError as error:
        return Finding("error", "unreadable", f"{path.name} cannot be read: {error.strerror}", "check its permissions")
    if not head:
        return Finding("error", "empty", f"{path.name} is empty", "copy or export it again")
    for offset, signature, what, advice in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return Finding("error", "not_onnx", f"{path.name} is {what}", advice)
    return None
