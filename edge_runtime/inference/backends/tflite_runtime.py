"""The old `tflite-runtime` wheel as another library for engine `litert`, in a worker process: it wants numpy below 2.

The device's owner names its environment (`edge-runtime engine install`); tensors cross on a socket. A worker that
dies is replaced at once and asked again; that it dies of one question twice, or hangs, is a failure of the engine.
"""

from __future__ import annotations

import os
import socket
import subprocess
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final, NamedTuple, final

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import (
    Array,
    BackendOptions,
    Files,
    Session,
    Tensors,
    as_fed,
    concurrency_for,
    file_bytes,
    threads_for,
)
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.environments.last_words import last_words
from edge_runtime.inference.environments.named import TFLITE_RUNTIME, named_python
from edge_runtime.inference.libraries import tflite
from edge_runtime.inference.libraries.tflite_variants import (
    edgetpu_options,
    edgetpu_refused,
    plain_kernels,
    refused,
    tensor_infos,
)
from edge_runtime.inference.requests.pool import Pool

_PACKAGE: Final = "tflite_runtime"
_LIBRARY: Final = "tflite-runtime"
_INSTALL: Final = f"edge-runtime engine install {TFLITE_RUNTIME}"
_ANSWER_WITHIN_S: Final = 30.0
_LOAD_WITHIN_S: Final = 300.0
_WRITTEN_MAX_BYTES: Final = 4096


class TfliteRuntimeBackend:
    """Runs TFLite files in workers.

    Args:
        python: interpreter of their environment; None: the one that the device's owner named.
        package: what has `interpreter` there.
        answer_within_s: a call that takes longer hangs.
    """

    name: Final = "litert"

    def __init__(
        self, python: Path | None = None, package: str = _PACKAGE, answer_within_s: float = _ANSWER_WITHIN_S
    ) -> None:
        self._python = python
        self._package = package
        self._answer_within_s = answer_within_s

    def probe(self) -> EngineFact | None:
        """Version and providers that really ran in the named environment; None where none is named or works."""
        python = self._python or named_python(TFLITE_RUNTIME)
        if python is None:
            return None
        try:
            return self.tried(python)
        except InferenceError:
            return None

    def tried(self, python: Path) -> EngineFact:
        """Version and providers that really ran in the environment of this interpreter. Raises: InferenceError."""
        try:
            with TemporaryFile() as written:
                told = _told(python, self._package, written)
            return EngineFact(
                name=self.name, version=str(told["version"]), providers=list(told["providers"]), library=_LIBRARY
            )
        except (_Refused, _Gone, OSError, KeyError) as error:
            raise _unusable(python, str(error)) from error

    def advice(self) -> str:
        """How its owner gets it, and what is wrong with the environment that is named."""
        python = self._python or named_python(TFLITE_RUNTIME)
        if python is None:
            return f"{_INSTALL} (no environment with {_LIBRARY} is named)"
        try:
            self.tried(python)
        except InferenceError as error:
            return f"{_INSTALL} (the one that is named, {python}, does not work: {error.because})"
        return f"{_INSTALL} (the one that is named, {python}, works)"

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        """Load the file of role `model`. Raises: InferenceError (`load_failed`), UnsupportedFeature."""
        python = self._python or named_python(TFLITE_RUNTIME)
        if python is None:
            raise InferenceError(
                f"open variant {manifest.id}",
                f"no environment with {_LIBRARY} is named",
                _INSTALL,
                code=LOAD_FAILED,
            )
        wishes = {
            "threads": threads_for(manifest, options),
            "is_reference": options.graph_optimisation == "disabled",
            "edgetpu": edgetpu_options(manifest),
        }
        recipe = _Recipe(python, self._package, file_bytes(files, "model"), wishes, self._answer_within_s)
        try:
            return _WorkerSession(recipe, _Supervised(recipe), concurrency_for(manifest, options))
        except OSError as error:
            raise _unusable(python, str(error)) from error
        except (_Refused, _Gone) as error:
            if wishes["edgetpu"] is not None:
                raise edgetpu_refused(manifest, str(error)) from error
            raise refused(manifest, _LIBRARY, str(error)) from error


def _told(python: Path, package: str, written: BinaryIO) -> dict[str, Any]:
    """What a worker says of its library; `written` takes what it complains of. Raises: _Refused, _Gone, OSError."""
    worker = _Worker(python, package, written)
    try:
        return worker.ask({})
    except _Gone as error:
        worker.end()
        written.seek(max(0, written.seek(0, os.SEEK_END) - _WRITTEN_MAX_BYTES))
        said = last_words(written.read())
        raise _Gone(f"{error}: {said}" if said else str(error)) from error
    finally:
        worker.end()


def _unusable(python: Path, because: str) -> InferenceError:
    """The error for an environment that does not do what it is named for."""
    return InferenceError(
        f"run {_LIBRARY} with {python}",
        shown(because, 500),
        f"install it there with a numpy below 2, or both anew: {_INSTALL}",
        code=LOAD_FAILED,
    )


class _Refused(Exception):
    """The worker lives and says that it cannot."""


class _Gone(Exception):
    """The worker died, hung, or said what nobody can understand: it is not asked again."""


class _Hung(_Gone):
    """It did not answer in time, and would not the next time."""


@final
class _Worker:
    """One process, with one interpreter at most; one caller at a time."""

    def __init__(self, python: Path, package: str, written: BinaryIO | None = None) -> None:
        """Start it; `written` takes what it complains of. Raises: OSError."""
        self.is_gone = False
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(_LOAD_WITHIN_S)
        with theirs:
            # Isolated: this folder's modules and the user's own must not stand in front of the environment's.
            command = [str(python), "-I", tflite.__file__, str(theirs.fileno()), package]
            try:
                self._child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL if written is None else written,
                    pass_fds=[theirs.fileno()],
                )  # fmt: skip
            except BaseException:
                self._channel.close()
                raise
        self._end = weakref.finalize(self, _end, self._channel, self._child)

    def ask(self, question: dict[str, Any], content: bytes = b"") -> dict[str, Any]:
        """What it says to a question that is not about tensors. Raises: _Refused, _Gone."""
        with self._trusted():
            tflite.send(self._channel, {**question, "size": len(content)}, content)
            return self._heard(_LOAD_WITHIN_S)

    def run(self, fed: Tensors, within_s: float) -> dict[str, Array]:
        """Outputs by file tensor name. Raises: _Refused, _Gone."""
        with self._trusted():
            tflite.send_tensors(self._channel, dict(fed))
            return tflite.receive_tensors(self._channel, self._heard(within_s)["tensors"])

    def end(self) -> None:
        """Hang up, and see to it that the process ends."""
        self.is_gone = True
        self._end()

    def _heard(self, within_s: float) -> dict[str, Any]:
        self._channel.settimeout(within_s)
        try:
            told = tflite.receive(self._channel)
        except TimeoutError:
            raise _Hung(f"its worker did not answer within {within_s:g} s") from None
        if "error" in told:
            raise _Refused(str(told["error"]))
        return told

    @contextmanager
    def _trusted(self) -> Iterator[None]:
        """Whatever goes wrong but a refusal ends it: its next answer would be taken for that to another question."""
        try:
            yield
        except _Refused:
            raise
        except (EOFError, OSError) as error:
            raise _Gone(f"its worker ended with {self._status()}") from error
        except (ValueError, KeyError, TypeError) as error:
            self.end()
            raise _Gone(f"its worker said what it should not ({type(error).__name__})") from error
        except BaseException:
            self.end()
            raise

    def _status(self) -> str:
        try:
            status = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            status = 0
        self.end()
        return f"signal {-status}" if status < 0 else f"status {status}"


def _end(channel: socket.socket, child: subprocess.Popen[bytes]) -> None:
    channel.close()
    child.kill()
    child.wait()


class _Recipe(NamedTuple):
    """What every worker of a session is started with."""

    python: Path
    package: str
    content: bytes
    wishes: dict[str, Any]
    answer_within_s: float


@final
class _Supervised:
    """A worker that holds the file, and whoever replaces it. Raises: _Refused, _Gone, OSError."""

    def __init__(self, recipe: _Recipe) -> None:
        self._recipe = recipe
        self.told: dict[str, Any] = {}
        """What it said of the file."""
        self._has_ended = False
        self._worker = self._started()

    def run(self, fed: Tensors) -> dict[str, Array]:
        """Ask it; once more its successor, where it died of the question or had died before."""
        within_s = self._recipe.answer_within_s
        if not self._worker.is_gone:
            try:
                return self._worker.run(fed, within_s)
            except _Hung:
                raise
            except _Gone:
                pass  # its successor is asked
        self._replace()
        return self._worker.run(fed, within_s)

    def end(self) -> None:
        """No worker is left, nor will one come: somebody's call may go on in another thread."""
        self._has_ended = True
        self._worker.end()

    def _replace(self) -> None:
        if not self._has_ended:
            self._worker = self._started()
        if self._has_ended:  # meanwhile, perhaps
            self._worker.end()
            raise _Gone("the model was closed meanwhile")

    def _started(self) -> _Worker:
        worker = _Worker(self._recipe.python, self._recipe.package)
        try:
            self.told = worker.ask(self._recipe.wishes, self._recipe.content)
        except BaseException:
            worker.end()
            raise
        return worker


@final
class _WorkerSession:
    """As many callers at once as it has workers."""

    def __init__(self, recipe: _Recipe, first: _Supervised, concurrency: int) -> None:
        told = first.told
        self.inputs = tensor_infos(told["inputs"])
        self.outputs = tensor_infos(told["outputs"])
        self.notes = () if told["refusal"] is None else (plain_kernels(_LIBRARY, str(told["refusal"])),)
        self._recipe = recipe
        self._all = [first]
        self._workers: Pool[_Supervised] | None = Pool(self._one_more, concurrency, first)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        if (workers := self._workers) is None:
            raise InferenceError("run the model", "it was closed", "open it again")
        fed = as_fed(inputs, self.inputs)
        with workers.borrowed() as worker:
            try:
                return worker.run(fed)
            except (_Refused, _Gone, OSError) as error:
                raise EngineFault("run the model", f"{_LIBRARY} failed ({shown(str(error), 300)})") from error

    def close(self) -> None:
        self._workers = None
        for worker in self._all:
            worker.end()

    def _one_more(self) -> _Supervised:
        one = _Supervised(self._recipe)
        self._all.append(one)
        if self._workers is None:  # closed while it started
            one.end()
        return one
