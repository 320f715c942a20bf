"""`.npz` and `.npy` files of a set, read with bounds: a data file runs no code and takes no memory it does not say."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from converters.errors import BadDataset
from edge_runtime.contract.errors import ContractError
from edge_runtime.inference.arrays import read_npy, read_npz
from edge_runtime.inference.backend import Array

UNPACKED_MAX_BYTES: Final = 2 * 1024**3
"""Of an `.npz`, which stands in memory as a whole; a `.npy` of any size stays on disk."""
_SPLIT: Final = "write each array as a .npy, or split the set"


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a `.npz` by key, or that of a `.npy` under the empty name.

    Raises:
        BadDataset: unreadable, damaged, larger than `UNPACKED_MAX_BYTES`, or neither numbers nor text.
    """
    try:
        with path.open("rb") as source:
            if path.suffix.lower() == ".npz":
                if path.stat().st_size > UNPACKED_MAX_BYTES:
                    raise BadDataset(f"read {path}", f"it is larger than {UNPACKED_MAX_BYTES} bytes", _SPLIT)
                return read_npz(source.read(), "it", max_bytes=UNPACKED_MAX_BYTES, allows_text=True)
            mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            return {"": read_npy(mapped, "it", allows_text=True)}
    except MemoryError as error:
        raise BadDataset(f"read {path}", "it is larger than memory", _SPLIT) from error
    except (OSError, ValueError, ContractError) as error:
        because = error.because if isinstance(error, ContractError) else str(error)
        raise BadDataset(f"read {path}", because, "write it with numpy.savez or numpy.save") from error
