import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, Targets

from edge_runtime.contract.errors import TrustError
from edge_runtime.trust import metadata as tuf
from edge_runtime.trust.keys import SigningKey
from tests.fakes.trust_forge import DIGITS, NOW, Forge


def test_metadata_over_its_limit_is_refused_before_it_is_parsed() -> None:
    content = Forge().files["1.targets.json"]

    with pytest.raises(TrustError, match="exceed the limit"):
        tuf.parse(content, Targets, max_bytes=len(content) - 1, what="it")


def test_metadata_of_another_kind_is_refused() -> None:
    with pytest.raises(TrustError, match="it is root metadata, not snapshot"):
        tuf.parse(Forge().first_root, Snapshot, max_bytes=10**6, what="it")


def test_one_key_under_two_ids_counts_once_towards_a_threshold() -> None:
    key = SigningKey.generate()
    twice = [tuf.tuf_key(key.public), tuf.tuf_key(key.public)]
    twice[1].keyid = "another"
    root = Root(expires=tuf.expiry(NOW, 1))
    for alias in twice:
        root.add_key(alias, "targets")
    root.roles["targets"].threshold = 2
    signed = Metadata(Targets(expires=tuf.expiry(NOW, 1)))
    tuf.sign_metadata(signed, key)
    signature = next(iter(signed.signatures.values()))
    signed.signatures["another"] = type(signature)("another", signature.signature)

    with pytest.raises(TrustError, match="1 of 2 required keys"):
        tuf.signers_of(signed, "targets", root, what="it")


def test_a_directors_key_under_a_false_id_is_refused() -> None:
    content = tuf.write_director_keys([SigningKey.generate().public]).replace(b'{"keys":{"', b'{"keys":{"0')

    with pytest.raises(TrustError, match="another key than its id says"):
        tuf.read_director_keys(content)


def test_a_target_without_a_usable_digest_is_refused() -> None:
    forge = Forge()
    role = tuf.parse(forge.files["1.models-digits.json"], Targets, max_bytes=10**6, what="it").signed
    for target in role.targets.values():
        target.hashes = {"sha512": "00"}

    with pytest.raises(TrustError, match="unusable"):
        tuf.read_model_role(role, DIGITS)


@pytest.mark.parametrize(
    "name", ["1.root.json", "timestamp.json", "12.snapshot.json", "3.models-a-b.json", "0" * 64 + ".director-keys.json"]
)
def test_names_of_metadata_files_are_known(name: str) -> None:
    assert tuf.is_metadata_file(name)


@pytest.mark.parametrize(
    "name", ["", "0.root.json", "root.json", "1.models-../x.json", "1.root.json\n", "../1.root.json", "1.evil.json"]
)
def test_other_names_are_not(name: str) -> None:
    assert not tuf.is_metadata_file(name)
