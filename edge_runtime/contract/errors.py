"""The one root of every error edgefleet raises, and its families.

EdgeError
├── ContractError       a document or a name that breaks the contract
│   └── UnsupportedFeature   correct, but newer than this reader
├── TrustError          a signature, digest, sequence or time that cannot be accepted
├── UpdateError         an installation step that could not be done
├── InferenceError      a model that cannot be opened or asked
└── TransportError      a peer that could not be reached or refused us
"""

from __future__ import annotations

from typing import ClassVar


def printable(text: str) -> str:
    """Text for a terminal: control characters and invisible ones are escaped, line ends and letters stay."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode("ascii") for one in text
    )


class EdgeError(Exception):
    """Something could not be done: says what, why, and what to do about it.

    Names in it come from files and peers that nobody trusts: what would steer a terminal is escaped.

    Args:
        cannot: what was attempted, without the word "cannot" ("open release ./r1").
        because: the fact that prevents it.
        remedy: what a person can do; empty when nothing can be done here.
        code: stable reason code for machines; the family's default when omitted.
    """

    default_code: ClassVar[str] = "error"

    def __init__(self, cannot: str, because: str, remedy: str = "", *, code: str | None = None) -> None:
        self.cannot = printable(cannot)
        self.because = printable(because)
        self.remedy = printable(remedy)
        self.code = code or self.default_code
        super().__init__(str(self))

    def __str__(self) -> str:
        sentence = f"cannot {self.cannot}: {self.because}"
        return f"{sentence}; {self.remedy}" if self.remedy else sentence

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (trial workers, compile stages); the default pickles only str(self).
        return (_rebuild, (type(self), self.cannot, self.because, self.remedy, self.code))


def _rebuild(kind: type[EdgeError], cannot: str, because: str, remedy: str, code: str) -> EdgeError:
    return kind(cannot, because, remedy, code=code)


class ContractError(EdgeError):
    """A document, name or layout breaks the contract."""

    default_code = "contract"


class UnsupportedFeature(ContractError):
    """The document is well formed but needs a feature or major version this reader does not know."""

    default_code = "unsupported_feature"


class TrustError(EdgeError):
    """A signature, digest, sequence number or time cannot be accepted."""

    default_code = "untrusted"


class DigestMismatch(TrustError):
    """Bytes do not have the digest or length that was promised for them."""

    default_code = "digest_mismatch"


class UpdateError(EdgeError):
    """An installation step could not be done; `code` is the reported reason."""

    default_code = "update"


class InferenceError(EdgeError):
    """A model cannot be opened, or a request cannot be answered."""

    default_code = "inference"


class TransportError(EdgeError):
    """A peer could not be reached in time, or answered with a refusal."""

    default_code = "network"
