"""Samples that are no arrays: one picture or several, and whatever else somebody gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.client import BadRequest
from edge_runtime.client.elements import as_elements
from edge_runtime.client.exchange import _as_arrays
from edge_runtime.client.http import _as_parts


@pytest.mark.parametrize("picture", [b"png", bytearray(b"png"), memoryview(b"png")])
def test_one_encoded_picture_is_a_list_of_one(picture: bytes) -> None:
    assert as_elements("image", picture) == [b"png"]
    assert _as_parts({"image": picture})[0] == (("image", "BYTES", (1,), 7),)
    assert _as_arrays({"image": picture})[1] == ((7,), (("image", "bytes", (1,)),))


def test_several_stay_as_they_are() -> None:
    assert as_elements("image", [b"one", b"two"]) == [b"one", b"two"]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (Path("a.png"), "it is a PosixPath"),
        ("a.png", "it is a str"),
        ([Path("a.png")], "it is a list that holds a PosixPath"),
        ([[1.0, 2.0]], "it is a list that holds a list"),
        (None, "it is a NoneType"),
        (7, "it is a int"),
    ],
)
def test_anything_else_is_one_refusal_that_names_the_input(given: object, what: str) -> None:
    with pytest.raises(BadRequest, match=f"cannot send input image: {what}; give a numpy array"):
        as_elements("image", given)
