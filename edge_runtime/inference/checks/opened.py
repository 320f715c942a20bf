"""The golden set of a release that is open: found among its layers, and asked."""

from __future__ import annotations

from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import parse_layer_name
from edge_runtime.contract.release import GOLDEN_MAX_BYTES, layer_of
from edge_runtime.inference.arrays import ARCHIVE_MAX_BYTES
from edge_runtime.inference.checks.golden import GoldenSet, load_own, run_golden, unpack_golden
from edge_runtime.inference.opening import Opened, read_layer


def golden_of(opened: Opened) -> GoldenSet | None:
    """The golden questions of a release; None when it has none. Raises: ContractError, DigestMismatch."""
    spec = opened.release.manifest.golden
    if spec is None:
        return None
    title = parse_layer_name(spec.layer)
    return unpack_golden(read_layer(opened.source, opened.release.layers, title, GOLDEN_MAX_BYTES))


def check_opened(opened: Opened) -> list[CheckResult]:
    """Ask them of the loaded variant; empty when there are none.

    Raises:
        InferenceError: the model cannot answer.
        ContractError: the golden set breaks the contract.
        DigestMismatch: it is not the promised one.
    """
    spec, golden = opened.release.manifest.golden, golden_of(opened)
    if spec is None or golden is None:
        return []
    own = None
    if reference := opened.variant.manifest.golden_own:
        own = load_own(read_layer(opened.source, opened.variant.layers, layer_of(reference), ARCHIVE_MAX_BYTES))
    return run_golden(opened.predictor, golden, spec, own)
