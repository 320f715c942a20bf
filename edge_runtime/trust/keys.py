"""Ed25519 keys: made, kept in PEM files, and named by the same key ids as TUF uses."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from edge_runtime.contract.errors import TrustError

KEY_FILE_MAX_BYTES: Final = 16 * 1024
SIGNATURE_BYTES: Final = 64

_PRIVATE_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key."""

    raw: bytes
    """The 32 bytes of RFC 8032."""

    @property
    def key_id(self) -> str:
        """SHA-256 (64 hex digits) of the key's canonical JSON: the key id that TUF metadata uses."""
        # What securesystemslib hashes; written out here so that whoever only checks assignments needs no TUF library.
        text = f'{{"keytype":"ed25519","keyval":{{"public":"{self.raw.hex()}"}},"scheme":"ed25519"}}'
        return hashlib.sha256(text.encode()).hexdigest()

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature over exactly these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> str:
        """The key as PEM (SubjectPublicKeyInfo)."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    @classmethod
    def from_pem(cls, pem: str | bytes, *, what: str = "a public key") -> PublicKey:
        """Read a PEM public key. Raises: TrustError when it is none, or of another kind than Ed25519."""
        content = pem.encode() if isinstance(pem, str) else pem
        try:
            key = load_pem_public_key(content[: KEY_FILE_MAX_BYTES + 1])
        except (ValueError, UnsupportedAlgorithm) as error:
            raise TrustError(f"read {what}", "it is not a PEM public key", "name the .pub file of the pair") from error
        if not isinstance(key, Ed25519PublicKey):
            raise TrustError(f"read {what}", "it is no Ed25519 key", "make one with edge-convert keygen")
        return cls(key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a key file. Raises: TrustError."""
        return cls.from_pem(_read(path, "public key"), what=f"public key {path}")

    def save(self, path: Path) -> None:
        """Write a new key file, readable by all. Raises: TrustError when the file exists or cannot be written."""
        _write_new(path, self.to_pem().encode(), _PUBLIC_MODE, "public key")


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """An Ed25519 private key; never printed."""

    _key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The key object, for libraries that sign by themselves."""
        return self._key

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over a message."""
        return self._key.sign(message)

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a PEM (PKCS #8) key file. Raises: TrustError."""
        try:
            key = load_pem_private_key(_read(path, "signing key"), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise TrustError(
                f"read signing key {path}", "it is not an unencrypted PEM private key", "name the .key file of the pair"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise TrustError(f"read signing key {path}", "it is no Ed25519 key", "make one with edge-convert keygen")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write a new key file that only its owner can read; a private key is never overwritten.

        Raises:
            TrustError: the file exists or cannot be written.
        """
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_new(path, pem, _PRIVATE_MODE, "signing key")

    def __repr__(self) -> str:
        return f"SigningKey({self.public.key_id[:8]})"


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as source:
            content = source.read(KEY_FILE_MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrustError(f"read {what} {path}", reason, "check the path and its permissions") from error
    if len(content) > KEY_FILE_MAX_BYTES:
        raise TrustError(f"read {what} {path}", f"it is larger than {KEY_FILE_MAX_BYTES} bytes")
    return content


def _write_new(path: Path, content: bytes, mode: int, what: str) -> None:
    """Complete or absent, and never in place of another key, even when two programs start at once."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as target:
                target.write(content)
                target.flush()
                os.fsync(target.fileno())
            os.link(staged, path)
        finally:
            staged.unlink()
    except FileExistsError as error:
        raise TrustError(f"write {what} {path}", "the file exists", "move it away or choose another name") from error
    except OSError as error:
        raise TrustError(
            f"write {what} {path}", error.strerror or str(error), "choose a folder you may write to"
        ) from error
