"""A world for the update machine: real releases and real disk, with a network, models and power that can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import Assignment, Candidate, Policy, SlotState
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.errors import InferenceError, TransportError, UpdateError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import LayerName, ModelName, VariantId, Version, target_path
from edge_runtime.contract.layout import (
    RELEASE_CONFIG,
    VARIANT_CONFIG,
    Descriptor,
    LayoutFolder,
    LayoutWriter,
    variant_annotations,
)
from edge_runtime.contract.release import FileEntry
from edge_runtime.trust import verifier
from edge_runtime.trust.verifier import VerifiedRelease
from edge_runtime.update.database import StateDatabase
from edge_runtime.update.disk import Disk
from edge_runtime.update.executor import SlotMachine, StepOutcome
from edge_runtime.update.home import Home
from edge_runtime.update.installation import Board, Ports
from edge_runtime.update.journal import Journal
from edge_runtime.update.planner import Answer
from edge_runtime.update.pointers import SlotPointers
from edge_runtime.update.ports import Health, TrialFailure, TrialMeasurement, TrialRequest
from edge_runtime.update.states import ENDED, RESTING, Activation
from edge_runtime.update.store import ContentStore
from tests.fakes.documents import DEVICE, MODEL, SLOT, facts, release_manifest, variant_manifest

START = 1_800_000_000.0
CHECKS = (("own", "snr_db", "logits"), ("float", "snr_db", "logits"), ("truth", "top1", None))


class PowerCut(BaseException):
    """The process ends here and now; nothing may catch it."""


@dataclass(frozen=True)
class Quality:
    """How a model behaves on this device."""

    failing: frozenset[str] = frozenset()
    """Golden references it fails: `own`, `float`, `truth`."""
    p50_ms: float = 5.0
    p95_ms: float = 8.0
    peak_bytes: int = 10_000_000
    failure: TrialFailure | None = None
    opens: bool = True
    """Whether the live slot can load it after it passed its trial."""
    error_share: float = 0.0
    """Of its live requests."""
    kills_agent: bool = False
    """It passes its trial and takes the agent down when it goes live."""


@dataclass(frozen=True)
class FakeRelease:
    """A release in the world's registry."""

    version: Version
    digest: Digest
    length: int
    candidates: tuple[Candidate, ...]


@dataclass
class Fuse:
    """Counts acts and cuts the power at one of them."""

    left: int | None = None

    def tick(self) -> None:
        """One act."""
        if self.left is None:
            return
        self.left -= 1
        if self.left <= 0:
            self.left = None
            raise PowerCut


class FusedDisk(Disk):
    """The real disk, on a fuse: before and after each call the power may go."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse

    def write(self, path: Path, content: bytes) -> None:
        self._fuse.tick()
        super().write(path, content)
        self._fuse.tick()

    def rename(self, source: Path, target: Path) -> None:
        self._fuse.tick()
        super().rename(source, target)
        self._fuse.tick()

    def remove(self, path: Path) -> None:
        self._fuse.tick()
        super().remove(path)


class FusedDatabase(StateDatabase):
    """The real database, on a fuse: the power may go just before and just after each commit."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        self._fuse = fuse
        self._depth = 0
        super().__init__(path)

    @contextmanager
    def transaction(self) -> Iterator[object]:  # type: ignore[override]
        self._depth += 1
        try:
            if self._depth == 1:
                self._fuse.tick()
            with super().transaction() as connection:
                yield connection
        finally:
            self._depth -= 1
        if self._depth == 0:
            self._fuse.tick()


@dataclass
class FakeLive:
    """A slot that answers as its model's quality says; implements `LiveSlot`."""

    world: World
    loaded: Activation | None = None
    answered: list[Digest] = field(default_factory=list)
    """Every variant that ever answered."""
    stand_in: Activation | None = None
    """Answers in place of what is loaded."""

    def activate(self, activation: Activation) -> None:
        self.world.fuse.tick()
        quality = self.world.qualities[activation.variant_digest]
        if not quality.opens:
            raise InferenceError("open the model", "its file is odd", code="load_failed")
        if quality.kills_agent:
            raise PowerCut
        self.loaded = activation
        self.answered.append(activation.variant_digest)
        self.world.fuse.tick()

    def deactivate(self) -> None:
        self.world.fuse.tick()
        self.loaded = None

    def health(self) -> Health:
        if self.loaded is None:
            return Health(loaded=None)
        if self.stand_in is not None:
            return Health(self.stand_in.variant_digest, 2, 1, detail="its engine failed", stand_in=self.stand_in)
        share = self.world.qualities[self.loaded.variant_digest].error_share
        return Health(loaded=self.loaded.variant_digest, requests=100, errors=int(100 * share))


class World:
    """Registry, network, clock and one device with one slot; `boot` starts the agent's machine anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = START
        self.online = True
        self.cut_after_bytes: int | None = None
        """The next download breaks after so many bytes."""
        self.fuse = Fuse()
        self.blobs: dict[Digest, bytes] = {}
        self.qualities: dict[Digest, Quality] = {}
        self.fetched: list[Digest] = []
        self.trials: list[Digest] = []
        self.live = FakeLive(self)
        self.board = Board(DEVICE, facts())
        self.disk: Disk = FusedDisk(self.fuse)
        self._database: StateDatabase | None = None
        self.machine: SlotMachine
        self.home: Home

    # The registry.

    def publish(self, version: str, *qualities: Quality, **changes: object) -> FakeRelease:
        """Put a release into the registry: one variant for each quality, in this order of preference."""
        names = [VariantId(f"v{number}-{version}") for number in range(len(qualities))]
        layout = self.folder / "layouts" / version
        writer = LayoutWriter(layout)
        manifest = release_manifest(version=Version(version), variants=names, **changes)
        files = {"golden.tar": f"golden of {version}".encode(), "labels.txt": b"0\n1\n", "card.md": b"# card"}
        release = writer.add_manifest(encode(manifest), RELEASE_CONFIG, files, {})
        variants: list[Descriptor] = []
        for name, quality in zip(names, qualities, strict=True):
            model = f"model {name}".encode() * 40
            entry = FileEntry(role="model", layer=LayerName("model.onnx"), digest=digest_of(model), size=len(model))
            variant = variant_manifest(name, "int8", files=[entry])
            layers = {"model.onnx": model, "own.npz": f"own {name}".encode()}
            variants.append(writer.add_manifest(encode(variant), VARIANT_CONFIG, layers, variant_annotations(variant)))
            self.qualities[variants[-1].digest] = quality
        writer.finish(release, variants, Version(version))
        folder = LayoutFolder(layout)
        for blob in folder.blobs():
            self.blobs[blob.digest] = folder.path_of(blob.digest).read_bytes()
        _, index = folder.read_index()
        candidates = tuple(Candidate(id=entry.id, digest=entry.digest) for entry in index.variants)
        return FakeRelease(Version(version), index.digest, index.size_bytes, candidates)

    def assignment(self, seq: int, release: FakeRelease | None, **changes: object) -> Assignment:
        """An assignment issued now; None orders the slot to run nothing."""
        fields: dict[str, object] = {
            "device": DEVICE, "slot": SLOT, "kind": "none", "seq": seq, "issued": self.now,
            "expires": self.now + 86_400, "policy": Policy(soak_s=30.0, deadline_s=3600.0),
        }  # fmt: skip
        if release is not None:
            fields |= {
                "kind": "model", "target": target_path(MODEL, release.version), "release": release.digest,
                "length": release.length, "candidates": list(release.candidates),
                "max_trials": len(release.candidates),
            }  # fmt: skip
        return Assignment(**{**fields, **changes})  # type: ignore[arg-type]

    # The ports.

    def authorise(self, assignment: Assignment) -> VerifiedRelease:
        """`ReleaseSource`: everything in the registry is well signed."""
        self._cross_network()
        digest, target = assignment.release, assignment.target
        assert digest is not None
        assert target is not None
        index = verifier.parse_release_index(self.blobs[digest])
        return VerifiedRelease(assignment, target, digest, len(self.blobs[digest]), index, verifier._SEAL)

    def fetch(self, model: ModelName, descriptor: Descriptor, stage: Path, *, interrupted: Callable[[], bool]) -> None:
        """`BlobFetcher`: continues what is there, and may break off."""
        self._cross_network()
        if descriptor.digest not in self.blobs:
            raise UpdateError("fetch", "the server answered 404", code="blob_missing")
        content = self.blobs[descriptor.digest]
        have = stage.stat().st_size if stage.exists() else 0
        with stage.open("ab") as target:
            if self.cut_after_bytes is not None:
                target.write(content[have : have + self.cut_after_bytes])
                self.cut_after_bytes = None
                raise TransportError("fetch", "the connection broke")
            target.write(content[have:])
        self.fuse.tick()
        self.fetched.append(descriptor.digest)

    def trial(self, request: TrialRequest) -> TrialMeasurement:
        """`TrialBench`: measures what the candidate's quality says."""
        self.fuse.tick()
        digest = request.candidate.variant_digest
        self.trials.append(digest)
        quality = self.qualities[digest]
        running = request.running
        return TrialMeasurement(
            checks=tuple(
                CheckResult(against=against, metric=metric, on=on, value=1.0, passed=against not in quality.failing)
                for against, metric, on in CHECKS
            ),
            p50_ms=quality.p50_ms,
            p95_ms=quality.p95_ms,
            running_p50_ms=None if running is None else self.qualities[running.variant_digest].p50_ms,
            peak_bytes=quality.peak_bytes,
            engine="fake 1.0",
            failure=quality.failure,
        )

    def _cross_network(self) -> None:
        self.fuse.tick()
        if not self.online:
            raise TransportError("reach the server", "no route")

    # The device.

    def boot(self) -> StepOutcome:
        """Start the agent's machine on whatever the disk holds; what was loaded is gone."""
        if self._database is not None:
            self._database.close()
        self.live.loaded = None
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        self._database = FusedDatabase(state / "state.db", self.fuse)
        pointers = SlotPointers(state / "slots", self.disk)
        self.home = Home(Journal(self._database), ContentStore(state, self.disk), pointers)
        ports = Ports(source=self, fetcher=self, bench=self, live=self.live)
        self.machine = SlotMachine(SLOT, self.home, ports, self.board, jitter=lambda: 0.5)
        self.home.tidy()
        return self.machine.resume(self.now)

    def boot_until_up(self) -> None:
        """Boot, and again when the power goes meanwhile or the model takes the agent down."""
        for _ in range(20):
            try:
                self.boot()
            except PowerCut:
                continue
            return
        raise AssertionError("the agent never came up")

    def run(self, steps: int = 200) -> SlotState:
        """Step, let time pass as the machine asks, restart after power cuts, until nothing is left to do."""
        for _ in range(steps):
            try:
                outcome = self.machine.step(self.now)
            except PowerCut:
                self.boot_until_up()
                continue
            if outcome.rest_until is not None:
                self.now = max(self.now, outcome.rest_until)
            elif not outcome.acted:
                break
        return self.state

    def offer(self, assignment: Assignment) -> Answer:
        """Hand a verified assignment to the device."""
        return self.machine.offer(assignment, self.now)

    def close(self) -> None:
        """Release the files."""
        if self._database is not None:
            self._database.close()

    @property
    def state(self) -> SlotState:
        """Where the slot stands."""
        return self.home.journal.read(SLOT).state

    @property
    def answering(self) -> Digest | None:
        """The variant that answers now."""
        return None if self.live.loaded is None else self.live.loaded.variant_digest

    def is_settled(self) -> bool:
        """Whether the slot is at rest with an outcome."""
        return self.state in ENDED | RESTING
