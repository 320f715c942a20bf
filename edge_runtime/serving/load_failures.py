"""Why a variant could not be brought into memory, and whether the next one may do better."""

from __future__ import annotations

from edge_runtime.contract.errors import DigestMismatch, EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import GOLDEN_FAILED, LOAD_FAILED, MEMORY
from edge_runtime.contract.release import VariantManifest
from edge_runtime.serving.instance import Instance, is_out_of_memory


def load_failure(variant: VariantManifest, error: Exception) -> InferenceError:
    """The refusal for whatever an engine raised while it loaded."""
    if is_out_of_memory(error):
        because, remedy, code = (
            "there is not enough memory for it",
            "unload other models, or build a smaller one",
            MEMORY,
        )
    else:
        because, remedy, code = f"{type(error).__name__}: {shown(str(error))}", "check its engine", LOAD_FAILED
    return InferenceError(f"load variant {variant.id}", because, remedy, code=code)


def ask_golden(instance: Instance, what: str) -> None:
    """Ask a loaded variant its golden questions, which warms it up as well, and refuse one that answers wrongly.

    Raises:
        InferenceError: code `golden_failed`, `memory`, or `load_failed` where it breaks at them.
        EdgeError: as `Instance.golden_check`.
    """
    variant = instance.variant.id
    try:
        checks = instance.golden_check()
    except EdgeError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise load_failure(instance.variant, error) from error
        because = f"variant {variant} breaks at its golden set ({type(error).__name__}: {shown(str(error))})"
        raise InferenceError(f"serve {what}", because, "build the release again", code=LOAD_FAILED) from error
    for check in checks:
        if not check.passed:
            raise InferenceError(
                f"serve {what}",
                f"golden check {check.against} {check.metric} of variant {variant} is {check.value}",
                "build the release again, or load another variant",
                code=GOLDEN_FAILED,
            )


def leads_on(error: EdgeError) -> bool:
    """Whether the next variant may do better: one that answers wrongly or was tampered with spoils the release."""
    return error.code != GOLDEN_FAILED and not isinstance(error, DigestMismatch)


def all_refused(what: str, refusals: list[tuple[VariantManifest, EdgeError]]) -> EdgeError:
    """One error for the refusals of all variants."""
    if len(refusals) == 1:
        return refusals[0][1]
    reasons = "; ".join(f"{one.id}: {error.because}" for one, error in refusals)
    codes = {error.code for _, error in refusals}
    code = codes.pop() if len(codes) == 1 else LOAD_FAILED
    return InferenceError(f"serve {what}", f"no variant could be loaded ({reasons})", "see the reasons", code=code)
