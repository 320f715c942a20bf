"""What a caller gave for an input that is no array: encoded samples, as the `bytes` datatype carries them."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.client.errors import BadRequest


def as_elements(name: str, given: object) -> Sequence[bytes]:
    """One element for each sample; a single encoded picture is a list of one. Raises: BadRequest."""
    if isinstance(given, (bytes, bytearray, memoryview)):
        return [bytes(given)]
    if not isinstance(given, (list, tuple)):
        raise _refused(name, f"it is a {type(given).__name__}")
    for one in given:
        if not isinstance(one, (bytes, bytearray)):
            raise _refused(name, f"it is a {type(given).__name__} that holds a {type(one).__name__}")
    return given


def _refused(name: str, because: str) -> BadRequest:
    remedy = "give a numpy array, or encoded bytes (path.read_bytes()), one for each sample"
    return BadRequest(f"send input {name}", because, remedy, code="bad_input")
