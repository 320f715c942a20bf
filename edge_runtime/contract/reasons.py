"""Reason codes that devices report and operators read; open on the wire, closed here.

A reader meets codes newer than itself: it shows them verbatim and treats them as not retryable.
"""

from __future__ import annotations

from typing import Final

NETWORK: Final = "network"
DISK_FULL: Final = "disk_full"
DIGEST_MISMATCH: Final = "digest_mismatch"
BLOB_MISSING: Final = "blob_missing"
BAD_RELEASE: Final = "bad_release"
UNTRUSTED: Final = "untrusted"
EXPIRED: Final = "expired"
NO_VARIANT: Final = "no_variant"
GOLDEN_FAILED: Final = "golden_failed"
KERNEL_MISMATCH: Final = "kernel_mismatch"
TRUTH_FAILED: Final = "truth_failed"
TOO_SLOW: Final = "too_slow"
CRASH_LOOP: Final = "crash_loop"
MEMORY: Final = "memory"
UNSUPPORTED_FEATURE: Final = "unsupported_feature"
LOAD_FAILED: Final = "load_failed"
ENGINE_FAILED: Final = "engine_failed"
HUNG: Final = "hung"
DEADLINE: Final = "deadline"
SOAK_FAILED: Final = "soak_failed"
SUPERSEDED: Final = "superseded"
INTERNAL: Final = "internal"

EXPLANATIONS: Final[dict[str, str]] = {
    NETWORK: "the server or the registry could not be reached; the device waits and tries again",
    DISK_FULL: "the release does not fit on the device's disk",
    DIGEST_MISMATCH: "bytes that arrived are not the bytes that were signed",
    BLOB_MISSING: "the server does not have a file that the release lists; push the release again",
    BAD_RELEASE: "the release breaks the contract; build it again",
    UNTRUSTED: "a signature, role or sequence number could not be accepted",
    EXPIRED: "the assignment or the metadata behind it has expired",
    NO_VARIANT: "no variant of the release fits this device",
    GOLDEN_FAILED: "the variant's answers to the golden set are too far from the source model's",
    KERNEL_MISMATCH: "this machine computes the variant differently from its own float emulation (saturating kernels)",
    TRUTH_FAILED: "the model's answers to the golden set contradict its labels",
    TOO_SLOW: "the variant misses its latency bound on this device",
    CRASH_LOOP: "the model took the runtime down more than once",
    MEMORY: "the model does not fit into the memory this device grants it",
    UNSUPPORTED_FEATURE: "the release needs a feature that this agent does not know; update the runtime first",
    LOAD_FAILED: "the engine refused to load the variant",
    ENGINE_FAILED: "the engine or its accelerator failed while it was answering",
    HUNG: "the engine did not come back within its time and was ended",
    DEADLINE: "the device did not reach confirmed within its deadline",
    SOAK_FAILED: "the model made errors while it was being watched after activation",
    SUPERSEDED: "a newer assignment replaced this one",
    INTERNAL: "the agent failed unexpectedly; its log has the details",
}

RETRYABLE: Final = frozenset({NETWORK, DISK_FULL, DIGEST_MISMATCH, BLOB_MISSING, EXPIRED, MEMORY, DEADLINE, INTERNAL})


def explain(code: str) -> str:
    """One sentence for a person about a reason code; unknown codes are named as such."""
    return EXPLANATIONS.get(code, f"reason {code!r} is newer than this software")


def is_retryable(code: str) -> bool:
    """Whether trying the same release again on the same device can help."""
    return code in RETRYABLE
