"""Stages: work whose result depends on nothing but what its key says, so that it is done once and found again.

A key holds the digest of this package's own code: a change of a formula makes old results unreachable, and nobody has
to remember to raise a number.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
import numpy as np

from converters.caching.cache import Cache
from converters.errors import CannotWrite
from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.arrays import read_npy

T = TypeVar("T")
State = Literal["running", "done", "cached", "failed"]

TOOLS: Final = ("ai-edge-litert", "nncf", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "pillow")
"""Distributions whose version may change a stage's result."""

_RESULT: Final = "result.msgpack"
_CODE: Final = ("converters", "edge_runtime/contract", "edge_runtime/inference")


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece of work, described by everything that its result depends on."""

    kind: str
    """`source`, `calibration`, `compile`, `measure`."""
    subject: str
    """What it is done for, for people: a variant's id, a folder's name. No part of the key."""
    inputs: Mapping[str, object]
    """Digests and options by name; anything that canonical JSON can say."""
    is_machine_bound: bool = True
    """Whether the instruction set this runs on changes the result."""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.kind} {self.subject}".strip()


@dataclass(frozen=True, slots=True)
class Environment:
    """What results depend on besides a stage's inputs."""

    tools: Mapping[str, str]
    code: Digest
    machine: Mapping[str, object]
    """Architecture, CPU, instruction set."""


class StageEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a stage."""

    kind: str
    subject: str
    state: State
    took_s: float = 0.0
    done: int | msgspec.UnsetType = msgspec.UNSET
    """Of `of` pieces, while it runs."""
    of: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.kind} {self.subject}".strip()


Listener = Callable[[StageEvent], None]
"""Told about every stage; may be called from several threads, one at a time."""


Fill = Callable[[Path], None]
"""Writes plain files into a folder, no folders."""
Check = Callable[[Path], None]
"""Looks at the files in a folder. Raises: ValueError: they are not what the stage writes."""


class Stages:
    """Runs stages, or finds what they made before."""

    def __init__(
        self,
        environment: Environment,
        cache: Cache | None = None,
        listener: Listener | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Run stages.

        Args:
            environment: what results depend on besides their inputs.
            cache: where results are kept; None: nowhere.
            listener: told how stages begin and end.
            prepare: called once, before the first stage that is not found.
        """
        self.environment = environment
        self.cache = cache
        self.log: list[StageEvent] = []
        """How every stage ended, in order."""
        self._listener = listener
        self._lock = threading.Lock()
        self._preparation = Once(prepare)

    def run(
        self, stage: Stage, result: type[T], work: Callable[[], T], still_counts: Callable[[T], bool] = lambda _: True
    ) -> T:
        """The value that `work` gives, or gave in an earlier run.

        Args:
            stage: what the value depends on.
            result: its type: structs, frozen dataclasses, numbers, text, bytes and numpy arrays, nested.
            work: makes it; whatever it raises passes through and is not kept.
            still_counts: asked about a value that was found; what does not count any more is made anew.
        """
        key = self._key(stage)
        if self.cache is not None and (found := self.cache.read(key, _RESULT)) is not None:
            try:
                value = unpack(found, result)
            except ValueError:
                pass
            else:
                if still_counts(value):
                    self._tell(stage, "cached")
                    return value
            self.forget(stage)
        value = self._timed(stage, work)
        if self.cache is not None:
            self.cache.store(key, stage.kind, stage.subject, {_RESULT: pack(value)})
        return value

    def fill(self, stage: Stage, folder: Path, work: Fill, check: Check = lambda _: None) -> Filled:
        """The files that `work` writes, or wrote in an earlier run; they never stand in memory together.

        Args:
            stage: what the files depend on.
            folder: an empty folder for them.
            work: writes them; whatever it raises passes through and is not kept.
            check: looks at files from the cache before anybody uses them; damaged ones are written again.
        """
        filled = Filled(self, stage, folder, work, check)
        if self.cache is not None and self.cache.has(self._key(stage)):
            self._tell(stage, "cached")
        else:
            filled.folder()
        return filled

    def step(self, kind: str, subject: str, work: Callable[[], T]) -> T:
        """Work that is done every time; listeners hear of it, the log does not."""
        return self._timed(Stage(kind, subject, {}), work, is_logged=False)

    def progressed(self, stage: Stage, done: int, of: int) -> None:
        """Tell the listener how far a running stage is; the log does not hear of it."""
        event = StageEvent(kind=stage.kind, subject=stage.subject, state="running", done=done, of=of)
        with self._lock:
            if self._listener is not None:
                self._listener(event)

    def restored(self, stage: Stage, folder: Path, work: Fill, check: Check) -> None:
        """Put a stage's files into a folder, from the cache if they are there, whole and pass the check.

        Raises:
            CannotWrite: the folder cannot be written; besides, whatever the work raises.
        """
        key = self._key(stage)
        try:
            if self.cache is not None and self.cache.restore(key, folder):
                try:
                    check(folder)
                except ValueError:
                    self.forget(stage)
                    _empty(folder)
                else:
                    return
            self._timed(stage, lambda: work(folder))
        except OSError as error:
            because = error.strerror or str(error)
            remedy = "free some space, or set TMPDIR to another disk"
            raise CannotWrite(f"prepare {stage.title} in {folder.parent}", because, remedy) from error
        if self.cache is not None:
            files = {path.name: path for path in sorted(folder.iterdir())}
            self.cache.store(key, stage.kind, stage.subject, files)

    def forget(self, stage: Stage) -> None:
        """What the cache has of a stage is of no use."""
        if self.cache is not None:
            self.cache.discard(self._key(stage))

    def peek(self, stage: Stage, name: str) -> bytes | None:
        """One file of a stage, if the cache has it."""
        return None if self.cache is None else self.cache.read(self._key(stage), name)

    def _key(self, stage: Stage) -> str:
        return key_of(stage, self.environment)

    def _timed(self, stage: Stage, work: Callable[[], T], *, is_logged: bool = True) -> T:
        if is_logged:
            self._preparation()
        self._tell(stage, "running", is_logged=is_logged)
        started = time.perf_counter()
        try:
            value = work()
        except EdgeError:
            self._tell(stage, "failed", time.perf_counter() - started, is_logged=is_logged)
            raise
        self._tell(stage, "done", time.perf_counter() - started, is_logged=is_logged)
        return value

    def _tell(self, stage: Stage, state: State, took_s: float = 0.0, *, is_logged: bool = True) -> None:
        event = StageEvent(kind=stage.kind, subject=stage.subject, state=state, took_s=round(took_s, 3))
        with self._lock:
            if is_logged and state != "running":
                self.log.append(event)
            if self._listener is not None:
                self._listener(event)


class Filled:
    """The files of a stage: brought where they are needed when somebody asks for them."""

    def __init__(self, stages: Stages, stage: Stage, folder: Path, work: Fill, check: Check) -> None:
        self._folder = folder
        self._restore = lambda: stages.restored(stage, folder, work, check)
        self._once = Once(self._restore)
        self._stages, self._stage = stages, stage

    def read(self, name: str) -> bytes:
        """One file, without bringing the others. Raises: as `folder`."""
        content = self._stages.peek(self._stage, name)
        return (self.folder() / name).read_bytes() if content is None else content

    def value(self, name: str, result: type[T]) -> T:
        """One file that `pack` made; where it is something else, the stage is done again. Raises: as `folder`."""
        try:
            return unpack(self.read(name), result)
        except ValueError:
            self._stages.forget(self._stage)
            _empty(self._folder)
            self._once = Once(self._restore)
            return unpack((self.folder() / name).read_bytes(), result)

    def folder(self) -> Path:
        """The folder with all files in it. Raises: whatever the work raises, if it has to be done (again)."""
        self._once()
        return self._folder


class Once(Generic[T]):
    """A value that is made when it is first asked for, by whichever thread asks first."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._failed: Exception | None = None
        self._lock = threading.Lock()

    def __call__(self) -> T:
        """The value. Raises: what making it raised, to everybody who asks: half a try is no place for a second one."""
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if not self._made:
                self._made.append(self._try())
            return self._made[0]

    def _try(self) -> T:
        try:
            return self._make()
        except Exception as error:
            self._failed = error
            raise


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def key_of(stage: Stage, environment: Environment) -> str:
    """64 hex digits over the canonical JSON of everything the stage's result depends on."""
    said = {
        "stage": stage.kind,
        "code": environment.code,
        "inputs": stage.inputs,
        "tools": environment.tools,
        "machine": environment.machine if stage.is_machine_bound else None,
    }
    return hashlib.sha256(encode(said)).hexdigest()


def digest_value(value: object) -> Digest:
    """The digest of a value as `run` keeps it."""
    return digest_of(pack(value))


def pack(value: object) -> bytes:
    """A value as bytes; arrays as `.npy`."""
    return msgspec.msgpack.encode(value, enc_hook=_array_out, order="deterministic")


def unpack(content: bytes, result: type[T]) -> T:
    """The value again. Raises: ValueError: the content is damaged or another type's."""
    try:
        return msgspec.msgpack.decode(content, type=result, dec_hook=_array_in)
    except (msgspec.MsgspecError, EdgeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def environment_here(machine: Mapping[str, object]) -> Environment:
    """This interpreter's libraries and code on a machine."""
    return Environment(tools=_versions(), code=_code_digest(), machine=machine)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _code_digest() -> Digest:
    root = Path(__file__).resolve().parents[2]
    hasher = hashlib.sha256()
    for package in _CODE:
        for path in sorted((root / package).rglob("*.py")):
            hasher.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return Digest("sha256:" + hasher.hexdigest())


def _array_out(value: Any) -> bytes:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"a stage's result may not hold a {type(value).__name__}")
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=False)
    return stream.getvalue()


def _array_in(kind: type, value: Any) -> Any:
    if not isinstance(value, bytes):
        raise NotImplementedError(f"{kind} cannot be read from {type(value).__name__}")
    return read_npy(value, "an array of the cache").copy()
