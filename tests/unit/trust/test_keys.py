from pathlib import Path

import pytest
from securesystemslib.signer import SSlibKey

from edge_runtime.contract.errors import TrustError
from edge_runtime.trust.keys import PublicKey, SigningKey
from edge_runtime.trust.metadata import tuf_key


def test_a_key_pair_survives_its_files(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.save(tmp_path / "m.key")
    key.public.save(tmp_path / "m.pub")

    loaded, public = SigningKey.load(tmp_path / "m.key"), PublicKey.load(tmp_path / "m.pub")

    assert loaded.public == public == key.public
    assert public.accepts(loaded.sign(b"x"), b"x")
    assert not public.accepts(loaded.sign(b"x"), b"y")


def test_a_private_key_is_readable_by_its_owner_only_and_never_printed(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.save(tmp_path / "m.key")

    assert (tmp_path / "m.key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(key)
    assert [path.name for path in tmp_path.iterdir()] == ["m.key"]


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "m.key")
    before = (tmp_path / "m.key").read_bytes()

    with pytest.raises(TrustError, match="the file exists"):
        SigningKey.generate().save(tmp_path / "m.key")

    assert (tmp_path / "m.key").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.key"]


def test_key_ids_are_those_of_tuf() -> None:
    key = SigningKey.generate()

    assert key.public.key_id == SSlibKey.from_crypto(key.private_key.public_key()).keyid
    assert tuf_key(key.public).keyid == key.public.key_id


RSA = b"""-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf
9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize("content", [b"", b"garbage", RSA, b"x" * 20_000])
def test_a_file_that_is_no_ed25519_key_is_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.key"
    path.write_bytes(content)

    with pytest.raises(TrustError, match="cannot read"):
        SigningKey.load(path)
    with pytest.raises(TrustError, match="cannot read"):
        PublicKey.load(path)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"m\.key"):
        SigningKey.load(tmp_path / "m.key")
    with pytest.raises(TrustError, match="cannot write"):
        SigningKey.generate().save(tmp_path / "nowhere" / "m.key")
