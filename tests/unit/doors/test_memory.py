"""Freed memory stays with a process that asked for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys, threading
from edge_runtime.doors.memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def tensors(count):
    for _ in range(count):
        blocks = [libc.malloc(4_000_000) for _ in range(3)]
        for block in blocks:
            ctypes.memset(block, 1, 4_000_000)
        for block in blocks:
            libc.free(block)

def faults_of(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors(count)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

libc.malloc.argtypes = [ctypes.c_size_t]
tensors(3)
print(faults_of(10))
"""


def faults(mode: str) -> int:
    """Page faults of ten rounds of three tensors of 4 MB, after the first few."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_that_was_freed_is_not_fetched_from_the_kernel_again() -> None:
    assert faults("kept") * 10 < faults("as it is")
