"""The states of one slot, the one table of transitions between them, and what is known in each state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from edge_runtime.contract.device_state import Assignment, Candidate, Reason, SlotState, TrialReport
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import UpdateError
from edge_runtime.contract.ids import TargetPath, VariantId


class UpdateEvent(str, Enum):
    """What happens to a slot."""

    OFFER = "offer"
    ADMIT = "admit"
    REAFFIRM = "reaffirm"
    EMPTY = "empty"
    FETCH = "fetch"
    FETCHED = "fetched"
    BUILD = "build"
    TRIAL = "trial"
    SHADOW = "shadow"
    ACTIVATE = "activate"
    SOAK = "soak"
    CONFIRM = "confirm"
    FAIL = "fail"
    ROLL_BACK = "roll_back"
    FORGET = "forget"


_S = SlotState
_E = UpdateEvent

TRANSITIONS: Final[Mapping[tuple[SlotState, UpdateEvent], SlotState]] = MappingProxyType(
    {
        (_S.IDLE, _E.OFFER): _S.OFFERED,
        (_S.CONFIRMED, _E.OFFER): _S.OFFERED,
        # What runs was found damaged when the device started: the previous release answers.
        (_S.CONFIRMED, _E.ROLL_BACK): _S.ROLLED_BACK,
        (_S.OFFERED, _E.ADMIT): _S.ADMITTED,
        # A newer sequence number for what runs already, or an order to run nothing.
        (_S.OFFERED, _E.REAFFIRM): _S.CONFIRMED,
        (_S.OFFERED, _E.EMPTY): _S.CONFIRMED,
        (_S.OFFERED, _E.FAIL): _S.FAILED,
        (_S.ADMITTED, _E.FETCH): _S.FETCHING,
        (_S.ADMITTED, _E.FAIL): _S.FAILED,
        (_S.FETCHING, _E.FETCHED): _S.VERIFIED,
        (_S.FETCHING, _E.FAIL): _S.FAILED,
        (_S.VERIFIED, _E.BUILD): _S.BUILT,
        (_S.VERIFIED, _E.FAIL): _S.FAILED,
        (_S.BUILT, _E.TRIAL): _S.TRIALLED,
        (_S.BUILT, _E.FAIL): _S.FAILED,
        # The next candidate of the same release.
        (_S.TRIALLED, _E.FETCH): _S.FETCHING,
        (_S.TRIALLED, _E.SHADOW): _S.SHADOWING,
        (_S.TRIALLED, _E.ACTIVATE): _S.ACTIVATED,
        (_S.TRIALLED, _E.FAIL): _S.FAILED,
        (_S.SHADOWING, _E.ACTIVATE): _S.ACTIVATED,
        (_S.SHADOWING, _E.FAIL): _S.FAILED,
        (_S.ACTIVATED, _E.SOAK): _S.SOAKING,
        (_S.ACTIVATED, _E.ROLL_BACK): _S.ROLLED_BACK,
        (_S.SOAKING, _E.CONFIRM): _S.CONFIRMED,
        (_S.SOAKING, _E.ROLL_BACK): _S.ROLLED_BACK,
        (_S.FAILED, _E.FORGET): _S.IDLE,
        (_S.ROLLED_BACK, _E.FORGET): _S.IDLE,
    }
)
"""Before `activated` an attempt can only fail; from `activated` on it can only be confirmed or rolled back."""

RESTING: Final = frozenset({_S.IDLE, _S.CONFIRMED})
ENDED: Final = frozenset({_S.CONFIRMED, _S.FAILED, _S.ROLLED_BACK})
"""The outcomes of an assignment; `failed` and `rolled_back` stay reported until something new begins."""


class IllegalTransition(UpdateError):
    """An event that the present state does not know."""

    default_code = "internal"

    def __init__(self, state: SlotState, event: UpdateEvent) -> None:
        super().__init__(f"apply {event.value!r} to a slot", f"it is {state.value}", "report this as a bug")
        self.state = state
        self.event = event

    def __reduce__(self) -> tuple[object, ...]:
        return (IllegalTransition, (self.state, self.event))


def next_state(state: SlotState, event: UpdateEvent) -> SlotState:
    """The state an event leads to. Raises: IllegalTransition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def diagram() -> str:
    """The table as a mermaid state diagram."""
    rows = [f"    {old.value} --> {new.value}: {event.value}" for (old, event), new in TRANSITIONS.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {SlotState.IDLE.value}", *rows])


@dataclass(frozen=True, slots=True)
class Activation:
    """One build of one release in a slot: everything needed to open it from the content store."""

    seq: int
    target: TargetPath | None
    release: Digest
    """Digest of the release index blob, which is in the store."""
    release_bytes: int
    variant: VariantId
    variant_digest: Digest
    parameters: dict[str, str | int | float | bool | list[float]]

    def same_build(self, other: Activation | None) -> bool:
        """Whether both name the same bytes, whatever their sequence number and parameters."""
        return other is not None and (self.release, self.variant_digest) == (other.release, other.variant_digest)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One assignment being carried out, and what was learned on the way."""

    assignment: Assignment
    offered_at: float
    trials: tuple[TrialReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """A candidate that passed its trial."""

    candidate: Candidate
    p50_ms: float
    ratio: float | None = None
    """Of its median latency to the running model's; None when nothing runs."""


@dataclass(frozen=True, slots=True)
class Search:
    """The candidate at hand, those still to try in order, and those that passed."""

    candidate: Candidate
    queue: tuple[Candidate, ...]
    passed: tuple[Passed, ...] = ()
    tried: int = 0
    """Trials finished so far."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing assigned, or the last outcome is forgotten."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A verified assignment waits for admission."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Admitted:
    """The release is authorised and fits; `queue` holds the candidates that may run here, best first."""

    attempt: Attempt
    queue: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Fetching:
    """Blobs of the candidate are on their way into the store."""

    attempt: Attempt
    search: Search


@dataclass(frozen=True, slots=True)
class Verified:
    """Every blob of the candidate is in the store and checked."""

    attempt: Attempt
    search: Search


@dataclass(frozen=True, slots=True)
class Built:
    """The candidate can be loaded; `starts` counts trials begun, so that one which kills the agent ends."""

    attempt: Attempt
    search: Search
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Trialled:
    """The candidate was judged; `passed` and `queue` say what is left."""

    attempt: Attempt
    queue: tuple[Candidate, ...]
    passed: tuple[Passed, ...]
    tried: int


@dataclass(frozen=True, slots=True)
class Shadowing:
    """The chosen candidate answers a share of live requests beside the running model."""

    attempt: Attempt
    chosen: Activation


@dataclass(frozen=True, slots=True)
class Activated:
    """The chosen candidate takes over; `previous` is the way back."""

    attempt: Attempt
    chosen: Activation
    previous: Activation | None
    crashes: int = 0
    undo: Reason | None = None
    """Set before going back begins, so that a crash in the middle goes on going back."""


@dataclass(frozen=True, slots=True)
class Soaking:
    """The new release answers and is watched since `since`."""

    attempt: Attempt
    chosen: Activation
    previous: Activation | None
    since: float
    crashes: int = 0
    undo: Reason | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The assignment is carried out."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Failed:
    """Ended before activation: what ran before never stopped."""

    attempt: Attempt
    reason: Reason


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Ended after activation: what ran before answers again."""

    attempt: Attempt
    reason: Reason


SlotStatus = (
    Idle | Offered | Admitted | Fetching | Verified | Built | Trialled | Shadowing | Activated | Soaking | Confirmed
    | Failed | RolledBack
)  # fmt: skip

STATUS_TYPES: Final[Mapping[SlotState, type[SlotStatus]]] = MappingProxyType(
    {
        _S.IDLE: Idle,
        _S.OFFERED: Offered,
        _S.ADMITTED: Admitted,
        _S.FETCHING: Fetching,
        _S.VERIFIED: Verified,
        _S.BUILT: Built,
        _S.TRIALLED: Trialled,
        _S.SHADOWING: Shadowing,
        _S.ACTIVATED: Activated,
        _S.SOAKING: Soaking,
        _S.CONFIRMED: Confirmed,
        _S.FAILED: Failed,
        _S.ROLLED_BACK: RolledBack,
    }
)

_STATES: Final = {kind: state for state, kind in STATUS_TYPES.items()}


def state_of(status: SlotStatus) -> SlotState:
    """The state a status belongs to."""
    return _STATES[type(status)]


def attempt_of(status: SlotStatus) -> Attempt | None:
    """The attempt a status is about; None when idle."""
    return None if isinstance(status, Idle) else status.attempt
