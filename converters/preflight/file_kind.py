"""What a file really is, told from its content: people hand over pointers, archives and other formats."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final, Literal

from converters.preflight.findings import Finding

FileKind = Literal["onnx", "tflite"]

# (offset, signature, what it is, advice)
_SIGNATURES: Final = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model", "run git lfs pull and name the file again"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it and name the model inside"),
    (0, b"\xfd7zXZ", "an xz archive", "unpack it and name the model inside"),
    (257, b"ustar", "a tar archive", "unpack it and name the model inside"),
    (0, b"\x89HDF", "an HDF5 file (Keras)", "export the model to ONNX first, for example with tf2onnx"),
    (0, b"<?xml", "an XML file (an OpenVINO model?)", "name the ONNX model it was made from"),
    (0, b"<!DOCTYPE", "a web page", "download the file itself (on GitHub: the raw file)"),
    (0, b"<html", "a web page", "download the file itself (on GitHub: the raw file)"),
    (0, b"\x80\x02", "a Python pickle (PyTorch)", "export the model with torch.onnx.export"),
    (0, b"\x80\x03", "a Python pickle", "export the model to ONNX first"),
    (0, b"\x80\x04", "a Python pickle", "export the model to ONNX first"),
    (0, b"\x80\x05", "a Python pickle", "export the model to ONNX first"),
    (0, b"{", "a JSON file", "name the model itself"),
    (4, b"ftrt", "a TensorRT engine, which is machine code for one GPU", "name the ONNX model it was built from"),
)

# (end of a member's name, what such an archive is, advice)
_ARCHIVES: Final = (
    ("data.pkl", "weights saved by PyTorch", "export the model with torch.onnx.export"),
    ("archive_format", "a program exported by PyTorch (.pt2)", "export it with torch.onnx.export"),
    ("model.weights.h5", "a model saved by Keras", "export it to ONNX first, for example with tf2onnx"),
    ("saved_model.pb", "a TensorFlow SavedModel", "unpack it and export it to ONNX first"),
    (".onnx", "an ONNX model", "unpack it and name the .onnx file"),
    (".tflite", "a TensorFlow Lite model", "unpack it and name the .tflite file"),
)


def look_at_file(path: Path) -> FileKind | Finding:
    """The format of a model file, whatever its name is, or the reason why it cannot hold a model."""
    if path.is_dir():
        what = "a TensorFlow SavedModel" if (path / "saved_model.pb").exists() else "a folder"
        return Finding("error", "not_a_file", f"{path.name or path} is {what}", "name an .onnx or a .tflite file")
    if not path.exists():
        return Finding("error", "not_found", f"there is no file {path}", "check the path")
    try:
        with path.open("rb") as source:
            head = source.read(512)
    except OSError as error:
        return Finding("error", "unreadable", f"{path.name} cannot be read: {error.strerror}", "check its permissions")
    if not head:
        return Finding("error", "empty", f"{path.name} is empty", "copy or export it again")
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:4] == b"PK\x03\x04":
        what, advice = _in_archive(path)
        return Finding("error", "not_onnx", f"{path.name} is a zip archive of {what}", advice)
    for offset, signature, what, advice in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return Finding("error", "not_onnx", f"{path.name} is {what}", advice)
    if _is_text(head):
        return Finding("error", "not_onnx", f"{path.name} is not a model but text", "name an .onnx or a .tflite file")
    return "onnx"


def _is_text(head: bytes) -> bool:
    """Whether a file begins with lines of text; the first byte of an ONNX file is a control character."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A letter may be cut in two at the end of what was read.
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    return all(letter.isprintable() or letter in "\t\r\n" for letter in text)


def _in_archive(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "something, cut off", "copy it again, then unpack it"
    for ending, what, advice in _ARCHIVES:
        if any(member.endswith(ending) for member in members):
            return what, advice
    return f"{len(members)} other files", "name an .onnx or a .tflite file"
