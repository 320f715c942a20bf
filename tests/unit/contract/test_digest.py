"""Digests: the same whoever computes them, and small ones cost no library."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.contract.digest import digest_of, digest_of_file

SIZES = [0, 1, 63, 64, (1 << 18) - 1, 1 << 18, (1 << 18) + 1]
"""On both sides of a block of SHA-256, and of the size from which on another implementation computes it."""


@pytest.mark.parametrize("size", SIZES)
def test_a_digest_is_sha256_whichever_implementation_a_size_is_given_to(size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    (tmp_path / "file").write_bytes(content)
    expected = "sha256:" + hashlib.sha256(content).hexdigest()

    assert digest_of(content) == expected
    assert digest_of(memoryview(content)) == expected
    assert digest_of_file(tmp_path / "file") == (expected, size)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="hides the module by its name in older versions")
def test_a_python_without_its_own_sha256_takes_the_one_of_hashlib() -> None:
    program = (
        "import sys; sys.modules['_sha256'] = None\n"
        "from edge_runtime.contract.digest import digest_of\n"
        "print(digest_of(b'abc'), '_hashlib' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=100)

    assert done.stdout == f"sha256:{hashlib.sha256(b'abc').hexdigest()} True\n"
