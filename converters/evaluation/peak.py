"""Measures a variant's peak memory in a fresh process: `python -m converters.evaluation.peak FOLDER` prints bytes.

VmHWM never falls, so the engine is imported and tried first and only what comes on top is counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_runtime.contract.codec import decode
from edge_runtime.contract.release import ReleaseManifest, VariantManifest
from edge_runtime.inference.arrays import read_npz
from edge_runtime.inference.backend import BackendOptions, load_backend
from edge_runtime.inference.facts import peak_resident_bytes
from edge_runtime.inference.predictor import load_predictor

_CALLS = 3


def high_water_bytes() -> int:
    """Largest resident size this process ever had."""
    peak = peak_resident_bytes()
    if peak is None:
        raise OSError("/proc/self/status has no VmHWM")
    return peak


def added_bytes(folder: Path) -> int:
    """Bytes that loading and asking the variant in `folder` adds to a process with a warm engine."""
    release = decode((folder / "release.json").read_bytes(), ReleaseManifest)
    variant = decode((folder / "variant.json").read_bytes(), VariantManifest)
    sample = read_npz((folder / "sample.npz").read_bytes(), "the sample")
    load_backend(variant.target.engine).probe()
    before = high_water_bytes()
    files = {file.role: (folder / f"role-{file.role}").read_bytes() for file in variant.files}
    predictor = load_predictor(release, variant, files, options=BackendOptions(threads=1))
    for _ in range(_CALLS):
        predictor.run_decoded(sample)
    return high_water_bytes() - before


if __name__ == "__main__":
    sys.stdout.write(f"{added_bytes(Path(sys.argv[1]))}\n")
