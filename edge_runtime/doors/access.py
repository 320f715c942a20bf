"""Who may come in from the network: TLS, a bearer token, and nothing listens beyond this machine without both."""

from __future__ import annotations

import hmac
import re
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.contract.errors import ContractError
from edge_runtime.doors.door import Listen

_SCHEME: Final = "bearer "
_TOKEN: Final = re.compile(rb"[\x21-\x7e]{16,512}\Z")
_FILE_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate chain and private key, as PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a TLS server needs. Raises: ContractError when the files are missing or do not fit together."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ContractError(
                f"use TLS certificate {self.certificate}",
                f"it and {self.key} cannot be loaded ({error.strerror or error})",
                "name a PEM certificate chain and its unencrypted key",
            ) from error
        return context


@dataclass(frozen=True, slots=True)
class Access:
    """What the network doors of one server demand."""

    tls: TlsFiles | None = None
    token: bytes | None = None

    def admits(self, authorization: str | None) -> bool:
        """Whether an `Authorization` value opens the door; always where no token is demanded."""
        if self.token is None:
            return True
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        given = authorization[len(_SCHEME) :].strip().encode("utf-8", "replace")
        # In constant time: how long a refusal takes must not tell how much of the token was right.
        return hmac.compare_digest(given, self.token)


def read_token(path: Path) -> bytes:
    """The token in a file, without white space around it. Raises: ContractError."""
    try:
        with path.open("rb") as source:
            token = source.read(_FILE_MAX_BYTES).strip()
    except OSError as error:
        because = error.strerror or str(error)
        raise ContractError(f"read token file {path}", because, "name a file that may be read") from error
    if not _TOKEN.match(token):
        raise ContractError(
            f"use token file {path}",
            "it does not hold 16 to 512 printable characters without spaces",
            "write a random one: openssl rand -hex 32",
        )
    return token


def is_readable_by_others(path: Path) -> bool:
    """Whether more than its owner may do something to a file; not where nobody can tell."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def check_exposure(option: str, listen: Listen, access: Access) -> None:
    """Refuse to let the network in without TLS and a token.

    Args:
        option: how the person asked for this door, for the sentence that refuses it.
        listen: where it would listen.
        access: what it would demand.

    Raises:
        ContractError: it would listen beyond the loopback without them.
    """
    missing = [name for name, given in (("TLS", access.tls), ("a token", access.token)) if given is None]
    if listen.is_loopback or not missing:
        return
    raise ContractError(
        f"serve at {option} {listen}",
        f"other machines could reach it without {' and '.join(missing)}",
        f"give --tls-cert, --tls-key and --token-file, or stay on this machine with {option} 127.0.0.1:{listen.port}",
    )
