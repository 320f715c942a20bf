"""Interpreters of TFLite files, whichever library brings them; as a program, what runs them for another process.

The program lives in an environment of its own, with an old Python, an old numpy and nothing of ours (ADR 0021): so this
file needs Python 3.8 and numpy, and imports nothing else of the runtime.
"""

from __future__ import annotations

import base64
import ctypes
import importlib
import json
import signal
import socket
import struct
import sys
from importlib import metadata
from typing import Any, Final

import numpy as np

PROBE: Final = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA8AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "RAAAAAQAAADY////DAAAABAAAAAUAAAAAQAAAAEAAAABAAAAeQAAAAEAAAABAAAAFAAQAAwAAAAAAAgAAAAAAAAABAAUAAAADAAAABAAAAAUAAAA"
    "AQAAAAEAAAABAAAAeAAAAAEAAAABAAAAAQAAABAAAAAMAAwACwAAAAAABAAMAAAAZQAAAAAAAGU="
)
"""The smallest TFLite file that XNNPACK takes: `y` = |`x`|, float32 [1]."""
EDGETPU_LIBRARY: Final = "libedgetpu.so.1"
_SIZE: Final = struct.Struct("<I")
_MESSAGE_MAX_BYTES: Final = 1 << 20
_DELEGATED: Final = "DELEGATE"
"""What the interpreter calls a part of the graph that XNNPACK has taken over."""


class Interpreter:
    """One interpreter and the sizes that its free axes have now; one caller at a time."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        details, answers = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = _described(details)
        self.outputs = _described(answers)
        self._fed = {one[0]: int(details[place]["index"]) for place, one in enumerate(self.inputs)}
        self._read = {one[0]: int(answers[place]["index"]) for place, one in enumerate(self.outputs)}
        self._shapes = {
            one[0]: tuple(int(size) for size in details[place]["shape"]) for place, one in enumerate(self.inputs)
        }

    def run(self, fed: dict[str, Any]) -> dict[str, Any]:
        """Outputs by tensor name, owned by the caller, to C-contiguous inputs; raises what the library raises."""
        self._resize(fed)
        for name, array in fed.items():
            self._interpreter.set_tensor(self._fed[name], array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._read.items()}

    def _resize(self, fed: dict[str, Any]) -> None:
        """A free axis holds the size of the last call; another one plans the memory anew."""
        changed = {name: array.shape for name, array in fed.items() if array.shape != self._shapes[name]}
        for name, shape in changed.items():
            self._interpreter.resize_tensor_input(self._fed[name], shape, strict=True)
        if changed:
            # Forgotten first: after a failure the interpreter holds neither the old sizes nor the new ones.
            self._shapes.update(dict.fromkeys(changed, ()))
            self._interpreter.allocate_tensors()
            self._shapes.update(changed)


class Maker:
    """Makes interpreters of one file, all alike; the file's bytes are shared, its unpacked weights are not.

    Args:
        library: module with `Interpreter` and `OpResolverType`.
        content: of the file.
        threads: inside one call; None: the library's default.
        delegate: of an accelerator; None: what the library takes by itself.
    """

    def __init__(self, library: Any, content: bytes, threads: int | None, delegate: Any = None) -> None:
        self.refusal: BaseException | None = None
        """Why the library's default delegate is not used, where it refused."""
        self._kernels = library.OpResolverType
        self._library = library
        self._content = content
        self._threads = threads
        self._delegate = delegate
        self._resolver: Any = self._kernels.AUTO

    def __call__(self) -> Interpreter:
        """One more interpreter."""
        interpreter = self._library.Interpreter(
            model_content=self._content,
            num_threads=self._threads,
            experimental_op_resolver_type=self._resolver,
            experimental_delegates=None if self._delegate is None else [self._delegate],
        )
        interpreter.allocate_tensors()
        return Interpreter(interpreter)

    def first(self, *, is_reference: bool) -> Interpreter:
        """The first interpreter, which decides which kernels those after it use."""
        if is_reference:
            self._resolver = self._kernels.BUILTIN_REF
        try:
            return self()
        except Exception as refusal:
            if is_reference or self._delegate is not None:
                raise
            self._resolver = self._kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            try:
                first = self()
            except Exception:  # noqa: BLE001 (what the kernels say of an unreadable file, the delegate said first)
                raise refusal from None
            self.refusal = refusal
            return first


def working_providers(library: Any) -> list[str]:
    """What really ran a one-operator model, or took the Edge TPU; raises what the library raises."""
    interpreter = library.Interpreter(model_content=PROBE, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()
    kinds = [str(entry["op_name"]) for entry in interpreter._get_ops_details()]  # noqa: SLF001 (nothing public says it)
    return ["cpu"] + ["xnnpack"] * (_DELEGATED in kinds) + ["edgetpu"] * _has_edgetpu(library)


def load_edgetpu(library: Any, options: dict[str, str]) -> Any:
    """The Edge TPU's delegate; raises what the loader or the library raises."""
    # Looked for first: the library's delegate object is torn down noisily when it never found the Edge TPU's own.
    ctypes.CDLL(EDGETPU_LIBRARY)
    return library.load_delegate(EDGETPU_LIBRARY, options)


def _has_edgetpu(library: Any) -> bool:
    try:
        load_edgetpu(library, {})
    except Exception:  # noqa: BLE001 (no library, no device, or another program that has it: it does not work here)
        return False
    return True


def _described(details: list[dict[str, Any]]) -> list[tuple[str, str, list[int]]]:
    """Name, numpy type and shape (-1: may vary) in the file's order; a name that it repeats bears its number."""
    names = [str(entry["name"]) for entry in details]
    return [
        (
            name if name and names.count(name) == 1 else f"{name}#{details[place]['index']}",
            np.dtype(details[place]["dtype"]).name,
            [int(size) for size in details[place]["shape_signature"]],
        )
        for place, name in enumerate(names)
    ]


# --- the program: each message is the size of a JSON document, the document, then the bytes of what it describes ---


def send(channel: socket.socket, told: dict[str, Any], *parts: Any) -> None:
    """Send a message and bytes behind it. Raises: OSError."""
    content = json.dumps(told).encode()
    channel.sendall(_SIZE.pack(len(content)) + content)
    for part in parts:
        channel.sendall(part)


def receive(channel: socket.socket) -> dict[str, Any]:
    """The next message, without the bytes behind it. Raises: EOFError, OSError; ValueError: it is none."""
    (size,) = _SIZE.unpack(receive_bytes(channel, _SIZE.size))
    if size > _MESSAGE_MAX_BYTES:
        raise ValueError(f"a message of {size} bytes")
    told: dict[str, Any] = json.loads(receive_bytes(channel, size))
    return told


def receive_bytes(channel: socket.socket, size: int) -> bytearray:
    """Exactly so many bytes. Raises: EOFError, OSError."""
    content = bytearray(size)
    _fill(channel, memoryview(content))
    return content


def send_tensors(channel: socket.socket, tensors: dict[str, Any]) -> None:
    """Send arrays by name. Raises: OSError."""
    described = [(name, array.dtype.name, array.shape) for name, array in tensors.items()]
    send(channel, {"tensors": described}, *(array.reshape(-1).view(np.uint8) for array in tensors.values()))


def receive_tensors(channel: socket.socket, described: Any) -> dict[str, Any]:
    """The arrays behind a message, writable. Raises: EOFError, OSError."""
    tensors = {}
    for name, dtype, shape in described:
        tensors[name] = array = np.empty(shape, dtype)
        _fill(channel, array.reshape(-1).view(np.uint8).data)
    return tensors


def _fill(channel: socket.socket, view: memoryview) -> None:
    filled = 0
    while filled < len(view):
        received = channel.recv_into(view[filled:])
        if not received:
            raise EOFError
        filled += received


class _Desk:
    """Answers the questions of the other process, whose tensors or file come as `content`."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._library: Any = None
        self._interpreter: Interpreter | None = None

    def answer(self, question: dict[str, Any], content: bytes) -> dict[str, Any]:
        if self._library is None:
            self._library = importlib.import_module(self._package + ".interpreter")
        if "threads" in question:
            return self._opened(question, content)
        version = metadata.version(self._package.replace("_", "-"))
        return {"version": version, "providers": working_providers(self._library)}

    def run(self, tensors: dict[str, Any]) -> dict[str, Any]:
        if self._interpreter is None:
            raise RuntimeError("no model was opened")
        return self._interpreter.run(tensors)

    def _opened(self, wishes: dict[str, Any], content: bytes) -> dict[str, Any]:
        edgetpu = wishes["edgetpu"]
        delegate = None if edgetpu is None else load_edgetpu(self._library, edgetpu)
        maker = Maker(self._library, content, wishes["threads"], delegate)
        self._interpreter = one = maker.first(is_reference=wishes["is_reference"])
        refusal = None if maker.refusal is None else str(maker.refusal)
        return {"inputs": one.inputs, "outputs": one.outputs, "refusal": refusal}


def _serve(channel: socket.socket, desk: _Desk) -> None:
    while True:
        question = receive(channel)
        tensors = receive_tensors(channel, question["tensors"]) if "tensors" in question else None
        content = bytes(receive_bytes(channel, question.get("size", 0)))
        try:
            given = None if tensors is None else desk.run(tensors)
            told = desk.answer(question, content) if tensors is None else {}
        except Exception as error:  # noqa: BLE001 - the other side must hear of it, whatever it is
            given, told = None, {"error": str(error) or type(error).__name__}
        if given is None:
            send(channel, told)
        else:
            send_tensors(channel, given)


def main(descriptor: int, package: str) -> None:
    """Answer the process at the other end of a socket until it hangs up.

    Args:
        descriptor: of the connected socket.
        package: that has `interpreter`.
    """
    # Ctrl-C reaches the whole terminal; whoever started us decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _serve(socket.socket(fileno=descriptor), _Desk(package))
    except (EOFError, OSError):
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
