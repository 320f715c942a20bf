"""What the fleet wants of this device: asked over HTTPS, believed only when director and model team both signed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from edge_runtime.agent.clock import AgentClock
from edge_runtime.agent.server import FleetServer
from edge_runtime.contract.device_state import Assignment
from edge_runtime.contract.errors import ContractError, EdgeError, TrustError
from edge_runtime.contract.ids import DeviceId, ModelName, SlotId, parse_target_path
from edge_runtime.trust.assignment import NotNewer, verify_assignment, verify_time
from edge_runtime.trust.repository import TrustedRepository, load_repository
from edge_runtime.trust.verifier import VerifiedRelease, accept_unverified, verify_release
from edge_runtime.update.database import StateDatabase
from edge_runtime.update.store import ContentStore

_ROOT_KEY: Final = "tuf.root"
_FLOORS_KEY: Final = "tuf.floors"


@dataclass(frozen=True, slots=True)
class Desired:
    """What one question brought."""

    assignments: tuple[Assignment, ...]
    """For this device, and above the sequence numbers that were asked with."""
    refused: tuple[EdgeError, ...]
    """Why others were not accepted."""


class Trust:
    """TUF as this device has followed it: newest root and version floors live in the device's database.

    Args:
        database: where they are kept, flushed before they are relied on.
        first_root: root metadata from the enrolment.
    """

    def __init__(self, database: StateDatabase, first_root: str) -> None:
        self._database = database
        self._first_root = first_root
        self._known: TrustedRepository | None = None

    def refresh(self, server: FleetServer, now: float, *models: ModelName) -> TrustedRepository:
        """Follow the chain of signatures to its newest end. Raises: TrustError, TransportError, UpdateError."""
        root = self._database.get(_ROOT_KEY) or self._first_root
        floors = msgspec.json.decode(self._database.get(_FLOORS_KEY) or "{}", type=dict[str, int])
        repository = load_repository(server, root.encode(), now=now, floors=floors, models=models)
        with self._database.transaction():
            _put_changed(self._database, _ROOT_KEY, repository.root.decode())
            _put_changed(self._database, _FLOORS_KEY, msgspec.json.encode(dict(repository.versions)).decode())
        self._known = repository
        return repository

    def known(self, server: FleetServer, now: float) -> TrustedRepository:
        """What was followed last, while it is fresh; else `refresh`."""
        if self._known is None or self._known.expires <= now:
            return self.refresh(server, now)
        return self._known


class Director:
    """Asks the server what to run, and is the update machine's `ReleaseSource`.

    Args:
        device: this device.
        server: where to ask.
        trust: whose signatures count.
        store: where an authorised release's index goes.
        clock: learns the signed time.
        check_signatures: whether a model's team must have signed; False only for controls that show what gets in.
    """

    def __init__(
        self,
        device: DeviceId,
        server: FleetServer,
        trust: Trust,
        store: ContentStore,
        *,
        clock: AgentClock,
        check_signatures: bool = True,
    ) -> None:
        self._device = device
        self._server = server
        self._trust = trust
        self._store = store
        self._clock = clock
        self._check_signatures = check_signatures

    def ask(self, highest_seq: Mapping[SlotId, int]) -> Desired:
        """What is desired above these numbers. Raises: TransportError, TrustError, ContractError, UpdateError."""
        nonce = secrets.token_urlsafe(24)
        answer = self._server.assignments(nonce)
        # The answer brings the time: until it is believed, only what has certainly passed can judge it.
        repository = self._trust.known(self._server, self._clock.certain())
        try:
            signed_s = verify_time(answer.time, keys=repository.director_keys, device=self._device, nonce=nonce)
        except TrustError:
            # The director's keys may have been rotated since: follow the chain once more before refusing.
            repository = self._trust.refresh(self._server, self._clock.certain())
            signed_s = verify_time(answer.time, keys=repository.director_keys, device=self._device, nonce=nonce)
        self._clock.learn(signed_s)
        verified = [self._verify(envelope, repository, highest_seq) for envelope in answer.assignments]
        return Desired(
            tuple(one for one in verified if isinstance(one, Assignment)),
            tuple(one for one in verified if isinstance(one, EdgeError) and not isinstance(one, NotNewer)),
        )

    def _verify(
        self, envelope: str, repository: TrustedRepository, highest_seq: Mapping[SlotId, int]
    ) -> Assignment | EdgeError:
        """One bad envelope must not keep the others from being carried out."""
        try:
            return verify_assignment(
                envelope,
                keys=repository.director_keys,
                device=self._device,
                now=self._clock.now(),
                highest_seq=highest_seq,
            )
        except (TrustError, ContractError) as error:
            return error

    def authorise(self, assignment: Assignment) -> VerifiedRelease:
        """The release an assignment names, verified against TUF; see `update.ports.ReleaseSource`."""
        if assignment.target is None or assignment.release is None or assignment.length is None:
            raise TrustError(f"install assignment {assignment.seq}", "it names no release")
        model, _ = parse_target_path(assignment.target)
        if not self._check_signatures:
            index = self._server.release_index(model, assignment.release, assignment.length)
            self._store.put(index)
            return accept_unverified(assignment, index)
        repository = self._trust.refresh(self._server, self._clock.now(), model)
        info = repository.target(assignment.target)
        index = self._server.release_index(model, info.digest, info.length)
        verified = verify_release(assignment, repository, index, self._clock.now())
        self._store.put(index)
        return verified


def _put_changed(database: StateDatabase, key: str, value: str) -> None:
    """Each write is a flush: metadata that did not change costs the flash nothing."""
    if database.get(key) != value:
        database.put(key, value)
