"""What the director signs for one device: assignments and the time. Verified here before anything reads them."""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_state import (
    ASSIGNMENT_PAYLOAD_TYPE,
    SIGNED_TIME_PAYLOAD_TYPE,
    Assignment,
    SignedTime,
)
from edge_runtime.contract.digest import parse_digest
from edge_runtime.contract.errors import ContractError, TrustError
from edge_runtime.contract.ids import DeviceId, SlotId, parse_slot_id, parse_target_path, parse_variant_id, shown
from edge_runtime.contract.layout import INDEX_MAX_BYTES, VARIANTS_MAX
from edge_runtime.trust import dsse
from edge_runtime.trust.keys import PublicKey, SigningKey

SEQ_MAX: Final = 2**53
"""Largest sequence number that every JSON reader and every 64-bit store keeps exactly."""


class NotNewer(TrustError):
    """A genuine assignment whose sequence number was accepted before: a repetition, or a replay."""

    default_code = reasons.SUPERSEDED


def sign_assignment(assignment: Assignment, key: SigningKey) -> str:
    """An envelope over an assignment. Raises: ContractError when the assignment contradicts itself."""
    _check(assignment)
    return dsse.sign(encode(assignment), ASSIGNMENT_PAYLOAD_TYPE, key)


def verify_assignment(
    envelope: str,
    *,
    keys: Mapping[str, PublicKey],
    device: DeviceId,
    now: float,
    highest_seq: Mapping[SlotId, int],
) -> Assignment:
    """The assignment in an envelope, if this device may act on it at `now`.

    1. A director key signed these bytes as an assignment. 2. They follow the contract and do not contradict
    themselves. 3. They name this device. 4. `seq` is above the highest accepted for that slot. 5. Not expired.

    Raises:
        NotNewer: step 4; nothing to do when the number equals the highest.
        TrustError: any other step; its code is `expired` for step 5.
    """
    payload = dsse.verify(envelope, ASSIGNMENT_PAYLOAD_TYPE, keys)
    try:
        assignment = decode(payload, Assignment)
        _check(assignment)
    except ContractError as error:
        raise TrustError("accept the assignment", str(error), code=error.code) from error
    what = f"accept assignment {assignment.seq} for slot {assignment.slot}"
    if assignment.device != device:
        raise TrustError(what, f"it is for device {shown(assignment.device)}, this is {device}")
    highest = highest_seq.get(assignment.slot, 0)
    if assignment.seq <= highest:
        raise NotNewer(what, f"{highest} was accepted before", "the server must issue a higher number")
    if assignment.expires <= now:
        raise TrustError(
            what, "it has expired", "ask the server again, or check this device's clock", code=reasons.EXPIRED
        )
    return assignment


def sign_time(device: DeviceId, nonce: str, time: float, key: SigningKey) -> str:
    """An envelope over the director's clock, bound to the nonce a device chose."""
    return dsse.sign(encode(SignedTime(device=device, nonce=nonce, time=time)), SIGNED_TIME_PAYLOAD_TYPE, key)


def verify_time(envelope: str, *, keys: Mapping[str, PublicKey], device: DeviceId, nonce: str) -> float:
    """The director's time (seconds since 1970), if it answers this device's own question.

    Raises:
        TrustError: signed by a foreign key, for another device, or for another question (a replay).
    """
    payload = dsse.verify(envelope, SIGNED_TIME_PAYLOAD_TYPE, keys)
    try:
        signed = decode(payload, SignedTime)
    except ContractError as error:
        raise TrustError("accept the server's time", str(error), code=error.code) from error
    if signed.device != device:
        raise TrustError("accept the server's time", f"it is for device {shown(signed.device)}, this is {device}")
    if not hmac.compare_digest(signed.nonce.encode(), nonce.encode()):
        raise TrustError("accept the server's time", "it answers another question than this device asked")
    if not math.isfinite(signed.time) or signed.time < 0:
        raise TrustError("accept the server's time", f"{signed.time} is no time")
    return signed.time


def _check(assignment: Assignment) -> None:
    """What types cannot say: ranges, and which fields belong to which kind."""
    what = f"use assignment {assignment.seq}"
    parse_slot_id(assignment.slot)
    if not 1 <= assignment.seq <= SEQ_MAX:
        raise ContractError(what, f"its sequence number is not between 1 and {SEQ_MAX}")
    times = (assignment.issued, assignment.expires, assignment.policy.soak_s, assignment.policy.deadline_s)
    if not all(math.isfinite(value) and value >= 0 for value in times) or assignment.issued >= assignment.expires:
        raise ContractError(what, "its times contradict each other")
    if not 1 <= assignment.max_trials <= VARIANTS_MAX or len(assignment.candidates) > VARIANTS_MAX:
        raise ContractError(what, "it names an impossible number of candidates or trials")
    if assignment.kind == "none":
        if (assignment.target, assignment.release, assignment.length) != (None, None, None) or assignment.candidates:
            raise ContractError(what, "it names a release and says that there is none")
        return
    if assignment.target is None or assignment.release is None or assignment.length is None:
        raise ContractError(what, "it does not say which release, with which digest and length")
    parse_target_path(assignment.target)
    parse_digest(assignment.release)
    if not 0 < assignment.length <= INDEX_MAX_BYTES:
        raise ContractError(what, f"a release index of {assignment.length} bytes is impossible")
    for candidate in assignment.candidates:
        parse_variant_id(candidate.id)
        parse_digest(candidate.digest)
    if len({candidate.id for candidate in assignment.candidates}) != len(assignment.candidates):
        raise ContractError(what, "it names a candidate twice")
