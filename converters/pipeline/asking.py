"""What a candidate answers, with this machine's kernels and with emulated ones: golden checks and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Final

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

EMULATED_MOST: Final = 16
"""Samples of the evaluation set that are asked where an engine is emulated, besides the golden set.

A call of MobileNetV2 takes QEMU 3 to 15 seconds. Sums that overflow do so in nearly every sample (6 dB from the file's
own arithmetic, where sound kernels are 45 dB from it), which the golden set shows; few more tell what it costs."""


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


@dataclass(frozen=True, slots=True)
class Here:
    """A candidate as it answers on this machine, beside which other kernels are looked at."""

    predictor: Predictor
    asked: Asked
    """What it said to the whole evaluation set."""


def ask_elsewhere(
    emulator: Emulator, built: Built, here: Here, order: Order, folder: Path, *, told: Callable[[int, int], None]
) -> Asked:
    """Ask a candidate the golden set and a part of the evaluation set on another instruction set.

    Args:
        emulator: where it answers.
        built: the candidate.
        here: the same on this machine.
        order: what is built.
        folder: where questions and answers are kept meanwhile.
        told: how many of how many questions are answered, after each.

    Raises:
        InferenceError: the emulated engine did not come up, or failed.
    """
    reference, examination = order.reference, order.reference.examination.part(EMULATED_MOST)
    golden = [sample.inputs for sample in reference.golden.samples]
    questions = chain(golden, examination.dataset.decoded(examination.preprocessor))
    subject = Subject(order.material.draft.manifest, built.manifest, built.files)
    count = len(golden) + len(examination.dataset.samples)
    told(0, count)
    answers = answer_elsewhere(emulator, subject, questions, folder, lambda done: told(done, count))
    recorded = _Recorded(iter(list(islice(answers, len(golden)))), here.predictor)
    checks = run_golden(recorded, reference.golden, reference.spec, own_of(built))
    asked = examination.dataset.decoded(examination.preprocessor)
    evaluated = judge_answers(zip(asked, answers, strict=True), examination)
    kernels = f"{emulator.kernels} ({EXECUTION})"
    found = replace(_asked(evaluated, checks, order, kernels=kernels, is_narrow=emulator.is_narrow), worst=())
    if examination is reference.examination:
        return found
    beside = evaluate(here.predictor, examination)
    return replace(found, answered=beside_here(found.answered, here.asked.answered, evaluated, beside))


def beside_here(there: Answered, here: Answered, asked: Evaluated, beside: Evaluated) -> Answered:
    """What kernels would lose on the whole set: what this machine loses there, and what they lose besides on a part.

    One sample of a part says nothing about a hundredth of the whole, so one may be lost.

    Args:
        there: those kernels, by the part.
        here: this machine, by the whole set.
        asked: those kernels' answers to the part.
        beside: this machine's answers to the part.
    """
    spared = 1.0 / asked.agreement.count
    less = max(0.0, beside.agreement.value - asked.agreement.value - spared)
    # Written so that −inf, of answers that are no numbers, is never taken from itself.
    more_noise = beside.snr_db - asked.snr_db if asked.snr_db < beside.snr_db else 0.0
    drop = here.drop
    if drop is not None and asked.score is not None and beside.score is not None:
        lost = asked.score.lost_from(beside.score.value)
        drop = round(drop + max(0.0, lost - (0.0 if asked.score.is_error else spared)), 6)
    return replace(there, drop=drop, agreement=here.agreement - less, snr_db=here.snr_db - more_noise)


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
