"""Numbers of one candidate on this machine: latency beside the float variant, peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from converters.planning.judge import SLOWER_MARGIN
from edge_runtime.contract.codec import encode
from edge_runtime.contract.evidence import Latency
from edge_runtime.contract.release import ReleaseManifest, VariantManifest
from edge_runtime.inference.arrays import write_npz
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.predictor import Predictor

WARM_UP: Final = 10
ROUNDS: Final = 200
ROUNDS_MIN: Final = 30
BUDGET_S: Final = 1.0
PEAK_TIMEOUT_S: Final = 120.0


def measure_latency(predictor: Predictor, beside: Predictor | None, decoded: Tensors) -> Latency:
    """Milliseconds per call, of one sample or one step of a stream; with `beside`, the ratio to it from calls in turn.

    Who seems slower is measured a second time, and the kinder of the two counts: a neighbour is no reason to refuse.
    """
    first = _measured(predictor, beside, decoded)
    if first.ratio_to_float is None or first.ratio_to_float <= SLOWER_MARGIN:
        return first
    second = _measured(predictor, beside, decoded)
    return min(first, second, key=lambda one: one.ratio_to_float or 0.0)


def _measured(predictor: Predictor, beside: Predictor | None, decoded: Tensors) -> Latency:
    feeds = predictor.preprocess.after_decode(predictor.first_step(decoded))
    other = beside.preprocess.after_decode(beside.first_step(decoded)) if beside else {}
    own_ms: list[float] = []
    other_ms: list[float] = []
    started = time.perf_counter()
    for number in range(WARM_UP + ROUNDS):
        # Each goes first in every second pair: whoever comes second finds caches and clock as the first left them.
        if number % 2:
            took_other = _timed(beside, other) if beside else 0.0
            took = _timed(predictor, feeds)
        else:
            took = _timed(predictor, feeds)
            took_other = _timed(beside, other) if beside else 0.0
        if number >= WARM_UP:
            own_ms.append(took)
            other_ms.append(took_other)
        if number >= WARM_UP + ROUNDS_MIN and time.perf_counter() - started > BUDGET_S:
            break
    p50, p95 = np.percentile(own_ms, [50, 95])
    return Latency(
        p50=round(float(p50), 4),
        p95=round(float(p95), 4),
        ratio_to_float=round(_ratio(own_ms, other_ms), 3) if beside else None,
        float_p50=round(float(np.percentile(other_ms, 50)), 4) if beside else None,
    )


def _ratio(own_ms: list[float], other_ms: list[float]) -> float:
    """The median ratio within pairs, which share what the machine did meanwhile; both orders weigh the same."""
    ratios = np.log(own_ms) - np.log(other_ms)
    return float(np.exp((np.median(ratios[::2]) + np.median(ratios[1::2])) / 2))


def measure_peak(
    release: ReleaseManifest, variant: VariantManifest, files: dict[str, bytes], decoded: Tensors
) -> int | None:
    """Bytes that loading and asking the variant adds in a fresh process; None when it could not be measured."""
    with TemporaryDirectory(prefix="edge-convert-peak-") as name:
        folder = Path(name)
        (folder / "release.json").write_bytes(encode(release))
        (folder / "variant.json").write_bytes(encode(variant))
        (folder / "sample.npz").write_bytes(write_npz(dict(decoded)))
        for role, content in files.items():
            (folder / f"role-{role}").write_bytes(content)
        command = [sys.executable, "-m", "converters.evaluation.peak", name]
        try:
            # A process that is ended from outside leaves what it put into the temporary folder.
            environment = {**os.environ, "TMPDIR": name}
            finished = subprocess.run(command, capture_output=True, timeout=PEAK_TIMEOUT_S, check=True, env=environment)
            return int(finished.stdout)
        except (subprocess.SubprocessError, ValueError):
            return None


def _timed(predictor: Predictor, feeds: Tensors) -> float:
    started = time.perf_counter()
    predictor.run_canonical(feeds)
    return (time.perf_counter() - started) * 1000
