"""What a candidate answers, with this machine's kernels and with emulated ones: golden checks and accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from converters.evaluation.disagreement import Example
from converters.evaluation.emulation import EXECUTION, Emulator, Subject, answer_elsewhere
from converters.evaluation.evaluate import Evaluated, evaluate, judge_answers
from converters.pipeline.material import Order
from converters.planning.judge import Answered
from converters.release.variants import Built
from edge_runtime.contract.evidence import Accuracy, CheckResult
from edge_runtime.contract.release import ReferenceScore
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.checks.golden import load_own, run_golden
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.inference.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of kernels' answers, measured."""

    accuracy: Accuracy
    checks: tuple[CheckResult, ...]
    answered: Answered
    """The same for the judge."""
    worst: tuple[Example, ...] = ()
    """Samples on which it is farthest from the source model."""


def ask_here(predictor: Predictor, built: Built, order: Order, *, kernels: str, is_narrow: bool) -> Asked:
    """Ask golden and evaluation set of a candidate that is loaded here. Raises: InferenceError, BadDataset."""
    reference = order.reference
    evaluated = evaluate(predictor, reference.examination)
    checks = run_golden(predictor, reference.golden, reference.spec, own_of(built))
    return _asked(evaluated, checks, order, kernels=kernels, is_narrow=is_narrow)


def ask_elsewhere(emulator: Emulator, built: Built, predictor: Predictor, order: Order, folder: Path) -> Asked:
    """Ask both sets of a candidate on another instruction set.

    Args:
        emulator: where it answers.
        built: the candidate.
        predictor: the same, loaded here, for the postprocessing.
        order: what is built.
        folder: where questions and answers are kept meanwhile.

    Raises:
        InferenceError: the emulated engine did not come up, or failed.
    """
    reference, examination = order.reference, order.reference.examination
    golden = [sample.inputs for sample in reference.golden.samples]
    questions = chain(golden, examination.dataset.decoded(examination.preprocessor))
    release = order.material.draft.manifest
    answers = answer_elsewhere(emulator, Subject(release, built.manifest, built.files), questions, folder)
    recorded = _Recorded(iter(list(islice(answers, len(golden)))), predictor)
    checks = run_golden(recorded, reference.golden, reference.spec, own_of(built))
    asked = examination.dataset.decoded(examination.preprocessor)
    evaluated = judge_answers(zip(asked, answers, strict=True), examination)
    kernels = f"{emulator.kernels} ({EXECUTION})"
    return _asked(evaluated, checks, order, kernels=kernels, is_narrow=emulator.is_narrow)


def ask_itself(built: Built, predictor: Predictor, order: Order) -> tuple[CheckResult, ...]:
    """The golden checks of a candidate's own float arithmetic; empty where the source model's answers are that."""
    reference, own = order.reference, own_of(built)
    if own is None:
        return ()
    recorded = _Recorded(iter([dict(answer) for answer in own]), predictor)
    return tuple(run_golden(recorded, reference.golden, reference.spec, own))


def own_of(built: Built) -> tuple[Tensors, ...] | None:
    """The candidate's own emulated answers to the golden set; None when they equal the float reference."""
    return load_own(built.own) if built.own is not None else None


@dataclass(frozen=True, slots=True)
class _Recorded:
    """Answers that were given elsewhere, as the golden check asks for them."""

    answers: Iterator[dict[str, Array]]
    predictor: Predictor

    def run_decoded(self, decoded: Tensors) -> dict[str, Array]:  # noqa: ARG002 (the questions were asked in this order)
        return next(self.answers)

    def interpret(self, tensors: Tensors, decoded: Tensors | None = None) -> list[Answer]:
        return self.predictor.interpret(tensors, decoded)


def _asked(
    evaluated: Evaluated, checks: Sequence[CheckResult], order: Order, *, kernels: str, is_narrow: bool
) -> Asked:
    reference = order.reference.score
    accuracy, drop = _accuracy(evaluated, checks, reference)
    # Where the source model itself was allowed to contradict the labels, no variant is blamed for it.
    is_waived = any(waiver.check == "golden" for waiver in order.reference.waivers)
    judged = tuple(check for check in checks if not (is_waived and check.against == "truth"))
    answered = Answered(
        kernels, is_narrow, judged, drop, accuracy.agreement or 0.0, evaluated.snr_db, evaluated.range_error
    )
    return Asked(accuracy, tuple(checks), answered, evaluated.worst)


def _accuracy(
    evaluated: Evaluated, checks: Sequence[CheckResult], reference: ReferenceScore | None
) -> tuple[Accuracy, float | None]:
    shown, drop = evaluated.score or evaluated.agreement, None
    if evaluated.score is not None and reference is not None:
        drop = evaluated.score.lost_from(reference.value)
    accuracy = Accuracy(
        metric=shown.metric,
        value=round(shown.value, 6),
        count=shown.count,
        float_value=reference.value if reference else None,
        # Of the golden set: emulation is far too slow for the whole evaluation set.
        own_snr_db=next((one.value for one in checks if one.against == "own" and one.metric == "snr_db"), None),
        float_snr_db=_finite(evaluated.snr_db),
        agreement=round(evaluated.agreement.value, 6),
        agreement_metric=evaluated.agreement.metric,
        cosine=_finite(evaluated.cosine, 6),
        range_error=None if evaluated.range_error is None else _finite(evaluated.range_error, 8),
        ci95=[round(bound, 4) for bound in shown.ci95] if shown.ci95 else None,
    )
    return accuracy, None if drop is None else round(drop, 6) + 0.0


def _finite(value: float, digits: int = 2) -> float | None:
    return round(value, digits) if np.isfinite(value) else None
