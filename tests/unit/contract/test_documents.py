"""Every document of the contract: its golden bytes, round trip, evolution and refusal of other majors."""

from pathlib import Path

import msgspec
import pytest

from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.errors import ContractError, EdgeError, UnsupportedFeature
from edge_runtime.contract.release import read_release, read_variant
from tests.fakes.documents import documents, release_manifest, variant_manifest

GOLDENS = Path(__file__).parents[2] / "goldens" / "contract"
NAMES = sorted(documents())


@pytest.mark.parametrize("name", NAMES)
def test_a_document_is_written_as_its_golden_bytes(name: str) -> None:
    golden = (GOLDENS / f"{name}.json").read_bytes()

    assert encode(documents()[name]) == golden


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_reads_as_the_document_it_was_written_from(name: str) -> None:
    document = documents()[name]

    assert decode((GOLDENS / f"{name}.json").read_bytes(), type(document)) == document


@pytest.mark.parametrize("name", NAMES)
def test_unknown_fields_are_ignored_so_that_an_old_device_accepts_a_newer_message(name: str) -> None:
    document = documents()[name]
    newer = {**msgspec.json.decode(encode(document)), "from_the_future": {"a": [1]}}
    if "schema" in newer:
        newer["schema"] = "1.99"

    read = decode(encode(newer), type(document))

    assert read == (msgspec.structs.replace(document, schema="1.99") if "schema" in newer else document)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(documents()[name], "schema")])
def test_another_major_version_is_refused_by_name_whatever_its_shape(name: str) -> None:
    with pytest.raises(UnsupportedFeature, match=r"schema '2\.0'.*update edgefleet"):
        decode(b'{"schema":"2.0","device":[],"everything":"else"}', type(documents()[name]))


def test_every_golden_file_belongs_to_a_document() -> None:
    assert sorted(path.stem for path in GOLDENS.glob("*.json")) == NAMES


def test_a_release_that_requires_an_unknown_feature_is_refused_with_its_name() -> None:
    with pytest.raises(UnsupportedFeature, match="requires 'telepathy'"):
        read_release(encode(release_manifest(requires=["telepathy"])))


@pytest.mark.parametrize("feature", ["tokenizer", "pipeline", "bundle", "encrypted"])
def test_reserved_features_are_refused_until_they_are_built(feature: str) -> None:
    with pytest.raises(UnsupportedFeature, match=feature):
        read_release(encode(release_manifest(requires=[feature])))


def test_an_unknown_feature_of_a_variant_does_not_spoil_reading_it() -> None:
    assert read_variant(encode(variant_manifest(requires=["telepathy"]))).requires == ["telepathy"]


@pytest.mark.parametrize(
    "changes",
    [{"variants": []}, {"variants": ["a", "a"]}, {"variants": ["../etc"]}, {"name": "A B"}, {"version": "../1"}],
)
def test_a_release_with_impossible_names_or_variants_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ContractError):
        read_release(encode(release_manifest(**changes)))


def test_not_a_number_never_reaches_the_wire() -> None:
    with pytest.raises(ContractError, match="not a number JSON can carry"):
        encode({"value": float("nan")})


def test_an_error_says_what_why_and_what_to_do_and_survives_a_process_border() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UnsupportedFeature("open it", "it is newer", "update")))

    assert str(error) == "cannot open it: it is newer; update"
    assert error.code == "unsupported_feature"
    assert isinstance(error, EdgeError)
