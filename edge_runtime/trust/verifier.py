"""The only place that makes a VerifiedRelease: director, model team and bytes agree, or nothing is installed."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.device_state import Assignment
from edge_runtime.contract.digest import Digest, check_bytes
from edge_runtime.contract.errors import ContractError, TrustError, UnsupportedFeature
from edge_runtime.contract.ids import TargetPath
from edge_runtime.contract.layout import ReleaseIndex, parse_release_index
from edge_runtime.trust.metadata import TargetInfo
from edge_runtime.trust.repository import TrustedRepository

_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that this device may install; only `verify_release` makes one (and the control `accept_unverified`)."""

    assignment: Assignment
    path: TargetPath
    digest: Digest
    """Release digest."""
    length: int
    """Bytes of the release index blob."""
    index: ReleaseIndex
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only the verifier makes a VerifiedRelease")


def verify_release(
    assignment: Assignment, repository: TrustedRepository, index_bytes: bytes, now: float
) -> VerifiedRelease:
    """Hold a director's assignment against what the model's team has signed, and the bytes against both.

    Comes after `verify_assignment` (who ordered it, for whom, how new) and `load_repository` (who signed what).
    1. The assignment names a model. 2. It has not expired at `now`. 3. Neither has any role behind the repository.
    4. The model's role lists the target. 5. Digest and length there equal the assignment's: the director alone
    cannot introduce a model, the team alone cannot move a device. 6. The bytes are those. 7. They are a release
    index. 8. It holds every candidate under the digest that the director named.

    Raises:
        TrustError: a step fails; code `expired` for steps 2 and 3. UnsupportedFeature: an assignment of kind `runtime`.
    """
    what = f"install assignment {assignment.seq} for slot {assignment.slot}"
    if assignment.kind == "runtime":
        raise UnsupportedFeature(what, "this agent cannot replace its own runtime", "update it by other means")
    if assignment.target is None or assignment.release is None:
        raise TrustError(what, "it names no release")
    if min(assignment.expires, repository.expires) <= now:
        raise TrustError(
            what, "the assignment or the metadata behind it has expired", "ask the server again", code=reasons.EXPIRED
        )
    info = repository.target(assignment.target)
    _require_agreement(assignment, info, what)
    check_bytes(index_bytes, info.digest, info.length, f"the index of release {info.path}")
    try:
        index = parse_release_index(index_bytes)
    except UnsupportedFeature:
        raise
    except ContractError as error:
        raise TrustError(what, f"its index is unusable ({error.because})", code=error.code) from error
    variants = {entry.id: entry.digest for entry in index.variants}
    for candidate in assignment.candidates:
        if variants.get(candidate.id) != candidate.digest:
            raise TrustError(what, f"its candidate {candidate.id} is not in the release under that digest")
    return VerifiedRelease(assignment, info.path, info.digest, info.length, index, _SEAL)


def accept_unverified(assignment: Assignment, index_bytes: bytes) -> VerifiedRelease:
    """Believe the director alone: a control that shows what the signatures keep out, never for a fleet.

    Reached only by the configuration key `unsafe_disable = ["signatures"]`, which is said at every start and birth.
    """
    if assignment.target is None or assignment.release is None or assignment.length is None:
        raise TrustError(f"install assignment {assignment.seq}", "it names no release")
    index = parse_release_index(index_bytes)
    return VerifiedRelease(assignment, assignment.target, assignment.release, assignment.length, index, _SEAL)


def _require_agreement(assignment: Assignment, info: TargetInfo, what: str) -> None:
    if (assignment.release, assignment.length) != (info.digest, info.length):
        raise TrustError(
            what,
            f"the director says {assignment.release} ({assignment.length} bytes), "
            f"the model's team signed {info.digest} ({info.length} bytes)",
            "assign a release that its team has signed",
        )
