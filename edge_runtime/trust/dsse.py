"""DSSE envelopes: bytes and their type signed together, and verified before anything reads them.

Format: github.com/secure-systems-lab/dsse, protocol version 1.0.2 (envelope as JSON, PAE "DSSEv1").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge_runtime.contract.codec import MESSAGE_MAX_BYTES, Document, decode, encode
from edge_runtime.contract.errors import ContractError, TrustError
from edge_runtime.contract.ids import shown
from edge_runtime.trust.keys import PublicKey, SigningKey

SIGNATURES_MAX: Final = 8


class _Signature(Document, frozen=True, kw_only=True):
    sig: bytes
    keyid: str = ""


class _Envelope(Document, frozen=True, kw_only=True):
    payload: bytes
    payloadType: str  # noqa: N815 (DSSE's own spelling)
    signatures: list[_Signature]


def sign(payload: bytes, payload_type: str, key: SigningKey) -> str:
    """An envelope (JSON text) over a payload and its type."""
    signature = _Signature(keyid=key.public.key_id, sig=key.sign(_pre_authentication(payload, payload_type)))
    return encode(_Envelope(payload=payload, payloadType=payload_type, signatures=[signature])).decode()


def verify(envelope: str, payload_type: str, keys: Mapping[str, PublicKey]) -> bytes:
    """The payload of an envelope that one of the keys (by key id) signed as this very type.

    Raises:
        TrustError: not an envelope, of another type, or signed by none of the keys.
    """
    try:
        parsed = decode(envelope.encode("utf-8", "replace"), _Envelope, max_bytes=MESSAGE_MAX_BYTES)
    except ContractError as error:
        raise TrustError("accept a signed document", error.because) from error
    # A signature over one kind of document must never be good for another kind.
    if parsed.payloadType != payload_type:
        raise TrustError("accept a signed document", f"it is {shown(parsed.payloadType)}, not {payload_type}")
    if len(parsed.signatures) > SIGNATURES_MAX:
        raise TrustError("accept a signed document", f"it carries {len(parsed.signatures)} signatures")
    message = _pre_authentication(parsed.payload, payload_type)
    for signature in parsed.signatures:
        key = keys.get(signature.keyid)
        if key is not None and key.accepts(signature.sig, message):
            return parsed.payload
    raise TrustError("accept a signed document", "none of the trusted keys signed it", "check who sent it")


def _pre_authentication(payload: bytes, payload_type: str) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
