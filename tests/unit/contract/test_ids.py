"""Names that travel: exactly what their grammar allows, to the last character."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_runtime.contract.digest import parse_digest
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import (
    parse_device_id,
    parse_layer_name,
    parse_model_name,
    parse_slot_id,
    parse_variant_id,
    parse_version,
)

PLAIN = [parse_device_id, parse_slot_id, parse_model_name, parse_variant_id]


@pytest.mark.parametrize("parse", PLAIN)
@pytest.mark.parametrize("text", ["a", "0", "cam-01", "a-", "x" * 63])
def test_a_plain_name_is_what_it_was(parse: Callable[[str], str], text: str) -> None:
    assert parse(text) == text


@pytest.mark.parametrize("parse", PLAIN)
@pytest.mark.parametrize("text", ["", "-a", "A", "a_b", "a.b", "a\n", "é", "\u0661", "x" * 64])
def test_another_plain_name_is_refused(parse: Callable[[str], str], text: str) -> None:
    with pytest.raises(ContractError, match="it has other characters or another length"):
        parse(text)


@pytest.mark.parametrize("text", ["1", "_", "1.0.0-rc.1", "V2_", "x" * 128])
def test_a_version_is_an_oci_tag(text: str) -> None:
    assert parse_version(text) == text


@pytest.mark.parametrize("text", ["", ".1", "-1", "1.0+cu12", "1.0\n", "1/2", "x" * 129])
def test_another_version_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="use an OCI tag"):
        parse_version(text)


@pytest.mark.parametrize("text", ["a", ".a", "-", "_", "Model-1.onnx", "x" * 100])
def test_a_layer_is_called_like_a_file(text: str) -> None:
    assert parse_layer_name(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a\n", "a b", "x" * 101])
def test_another_layer_name_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="layer name"):
        parse_layer_name(text)


def test_a_digest_is_sha256_and_64_digits() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4

    assert parse_digest(digest) == digest


ZEROS = "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        "", ZEROS, "sha256:", f"sha256:{ZEROS[1:]}", f"sha256:{ZEROS}0", f"sha256:{ZEROS}\n", f"sha256:{'A' * 64}",
        f"SHA256:{ZEROS}", f"sha512:{ZEROS}", f"sha256:sha256:{ZEROS}",
    ],
)  # fmt: skip
def test_another_digest_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="64 lower-case hex digits"):
        parse_digest(text)
