"""As much of CUDA's runtime as an engine needs that takes addresses: memory, copies, one stream for each caller.

Source: NVIDIA, CUDA Runtime API (`libcudart`): memory management, stream management, device management.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, Final, final

import numpy as np

from edge_runtime.inference.backend import Array

_LIBRARIES: Final = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_TO_DEVICE: Final = 1
_TO_HOST: Final = 2
_CAPABILITY: Final = (75, 76)
"""`cudaDevAttrComputeCapabilityMajor` and `…Minor`."""


class CudaError(Exception):
    """The runtime said no, in its own words."""


@final
class Cuda:
    """The first GPU. Any thread may call; what it makes belongs to one caller at a time.

    Args:
        library: `libcudart`, or what behaves like it.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def capability(self) -> str:
        """Of the GPU: `8.7` of an Orin. Raises: CudaError."""
        return ".".join(str(self._attribute(number)) for number in _CAPABILITY)

    def driver(self) -> int:
        """Newest CUDA that the driver knows: 12060 is 12.6. Raises: CudaError."""
        found = ctypes.c_int()
        self._check("ask for the driver", self._library.cudaDriverGetVersion(ctypes.byref(found)))
        return found.value

    def stream(self) -> Stream:
        """A queue of copies and runs. Raises: CudaError."""
        handle = ctypes.c_void_p()
        self._check("make a stream", self._library.cudaStreamCreate(ctypes.byref(handle)))
        return Stream(self, handle.value or 0)

    def memory(self, size: int) -> Memory:
        """Bytes on the device, and as many that the host sees. Raises: CudaError."""
        return Memory(self, max(size, 1))

    def _attribute(self, number: int) -> int:
        found = ctypes.c_int()
        done = self._library.cudaDeviceGetAttribute(ctypes.byref(found), ctypes.c_int(number), ctypes.c_int(0))
        self._check("ask for the GPU", done)
        return found.value

    def allocate(self, kind: str, size: int) -> int:
        """Address of bytes made by `cudaMalloc` or `cudaMallocHost`. Raises: CudaError."""
        address = ctypes.c_void_p()
        make = getattr(self._library, kind)
        self._check(f"take {size} bytes", make(ctypes.byref(address), ctypes.c_size_t(size)))
        return address.value or 0

    def free(self, kind: str, address: int) -> None:
        """Give memory or a stream back; at the end of a process nobody minds that it cannot."""
        getattr(self._library, kind)(ctypes.c_void_p(address))

    def copy(self, target: int, source: int, size: int, *, to_device: bool, stream: int) -> None:
        """Queue a copy. Raises: CudaError."""
        kind = _TO_DEVICE if to_device else _TO_HOST
        done = self._library.cudaMemcpyAsync(
            ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )  # fmt: skip
        self._check("copy", done)

    def wait(self, stream: int) -> None:
        """Until the queue is empty; whatever failed in it is said here. Raises: CudaError."""
        self._check("run", self._library.cudaStreamSynchronize(ctypes.c_void_p(stream)))

    def _check(self, what: str, status: int) -> None:
        if status == 0:
            return
        say: Callable[..., Any] = self._library.cudaGetErrorString
        words = say(ctypes.c_int(status))
        raise CudaError(f"CUDA cannot {what}: {words.decode() if isinstance(words, bytes) else status}")


@final
class Stream:
    """A queue; given back with its last user."""

    def __init__(self, cuda: Cuda, handle: int) -> None:
        self.handle = handle
        self._cuda = cuda
        weakref.finalize(self, cuda.free, "cudaStreamDestroy", handle)

    def wait(self) -> None:
        """Raises: CudaError."""
        self._cuda.wait(self.handle)


@final
class Memory:
    """Bytes on the device and their image in page-locked host memory, from which the device copies without help."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.size = size
        self._cuda = cuda
        self.device = cuda.allocate("cudaMalloc", size)
        weakref.finalize(self, cuda.free, "cudaFree", self.device)
        self._host = cuda.allocate("cudaMallocHost", size)
        # Whoever holds a view of it holds the bytes: they are freed with the last view.
        self._bytes = (ctypes.c_uint8 * size).from_address(self._host)
        weakref.finalize(self._bytes, cuda.free, "cudaFreeHost", self._host)

    def view(self, shape: tuple[int, ...], dtype: str) -> Array:
        """The host's image as an array, of a size that fits."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(memoryview(self._bytes).cast("B"), dtype, count).reshape(shape)

    def send(self, size: int, stream: Stream) -> None:
        """Queue a copy of the first bytes to the device. Raises: CudaError."""
        self._cuda.copy(self.device, self._host, size, to_device=True, stream=stream.handle)

    def fetch(self, size: int, stream: Stream) -> None:
        """Queue a copy of the first bytes from the device. Raises: CudaError."""
        self._cuda.copy(self._host, self.device, size, to_device=False, stream=stream.handle)


def load_cuda() -> Cuda:
    """The runtime of this machine. Raises: OSError without it, CudaError without a GPU."""
    for name in _LIBRARIES:
        try:
            library: Any = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaGetErrorString.restype = ctypes.c_char_p
        cuda = Cuda(library)
        cuda.capability()
        return cuda
    raise OSError("libcudart is not installed")
