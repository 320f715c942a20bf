"""The golden set at work: reads it, packs it, and asks a model the questions in it.

Three references stay apart: own (is this silicon right?), float (is this variant good?), truth (is this model good?).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.golden import TRUTH_MEMBER, Truth, read_golden, write_golden
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import GOLDEN_FAILED
from edge_runtime.contract.release import GoldenCheck, GoldenSpec
from edge_runtime.inference.arrays import read_npy, read_npz, write_npy, write_npz
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.checks.agreement import cosine, max_abs, snr_db, top1_agreement
from edge_runtime.inference.checks.golden_answers import against_answers, against_truth
from edge_runtime.inference.postprocessing.results import Answer

_METRICS: Final[Mapping[str, Callable[[Array, Array], float]]] = {
    "snr_db": snr_db,
    "max_abs": max_abs,
    "cosine": cosine,
    "top1": top1_agreement,
    "top1_agreement": top1_agreement,
}

_STORED: Final = frozenset({"decoded", "sequence"})
"""Either way a subject takes inputs after `decode`; of a sequence, all that one session hears."""


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """One question: inputs after `decode`, and the source model's canonical output tensors."""

    inputs: Tensors
    float_outputs: Tensors


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """The questions and what a person says about them."""

    samples: tuple[GoldenSample, ...]
    truth: Truth


class GoldenSubject(Protocol):
    """Whoever is asked: a loaded variant."""

    def run_decoded(self, decoded: Tensors) -> dict[str, Array]:
        """Canonical output tensors for inputs after `decode`. Raises: InferenceError."""

    def interpret(self, tensors: Tensors, decoded: Tensors | None = None) -> list[Answer]:
        """Answers from canonical output tensors, one per sample, to inputs after `decode`. Raises: InferenceError."""


def unpack_golden(packed: bytes) -> GoldenSet:
    """Read `golden.tar`. Raises: ContractError."""
    parts: dict[str, dict[int, dict[str, Array]]] = {"inputs": {}, "float": {}}
    truth = Truth()
    for name, content in read_golden(packed).items():
        if name == TRUTH_MEMBER:
            truth = decode(content, Truth)
            continue
        part, number, file_name = name.split("/")
        array = read_npy(content, f"golden member {name}")
        parts[part].setdefault(int(number), {})[file_name.removesuffix(".npy")] = array
    inputs, floats = parts["inputs"], parts["float"]
    if not inputs or sorted(inputs) != list(range(len(inputs))) or floats.keys() != inputs.keys():
        raise ContractError("read the golden set", "its samples are not numbered 0, 1, … with inputs and float each")
    if truth.lengths() - {len(inputs)}:
        raise ContractError(
            "read the golden set", f"truth.json does not hold one entry for each of {len(inputs)} samples"
        )
    return GoldenSet(tuple(GoldenSample(inputs[number], floats[number]) for number in range(len(inputs))), truth)


def pack_golden(inputs: Sequence[Tensors], float_outputs: Sequence[Tensors], truth: Truth | None = None) -> bytes:
    """Write `golden.tar`; the same set gives the same bytes.

    Args:
        inputs: for each sample, its inputs after `decode`, by public name.
        float_outputs: for each sample, the source model's canonical output tensors.
        truth: labels, when a person knows them.

    Raises:
        ContractError: over 4 MiB, or a name that has no place in it.
    """
    members = {
        f"inputs/{number}/{name}.npy": write_npy(array)
        for number, tensors in enumerate(inputs)
        for name, array in tensors.items()
    }
    for number, tensors in enumerate(float_outputs):
        for name, array in tensors.items():
            members[f"float/{number}/{name}.npy"] = write_npy(narrowed(array))
    if truth is not None:
        members[TRUTH_MEMBER] = encode(truth)
    return write_golden(members)


def load_own(content: bytes) -> tuple[Tensors, ...]:
    """Read `own.npz` (keys `<n>/<tensor>`): the variant's emulated outputs, by sample. Raises: ContractError."""
    samples: dict[int, dict[str, Array]] = {}
    for key, array in read_npz(content, "own.npz").items():
        number, slash, tensor = key.partition("/")
        if not (slash and tensor and number.isascii() and number.isdigit() and len(number) <= 6):
            raise ContractError("read own.npz", f"key {shown(key)} is not <number>/<tensor>")
        samples.setdefault(int(number), {})[tensor] = array
    if sorted(samples) != list(range(len(samples))):
        raise ContractError("read own.npz", "its samples are not numbered 0, 1, …")
    return tuple(samples[number] for number in range(len(samples)))


def pack_own(outputs: Sequence[Tensors]) -> bytes:
    """Write `own.npz`: for each sample, canonical output tensors computed in float emulation."""
    return write_npz(
        {f"{number}/{name}": narrowed(array) for number, one in enumerate(outputs) for name, array in one.items()}
    )


def narrowed(array: Array) -> Array:
    """Integers in the smallest type that holds them: a class map comes as int64 and is an eighth of that."""
    if array.dtype.kind not in "iu" or not array.size:
        return array
    smallest, largest = int(array.min()), int(array.max())
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32"):
        if np.iinfo(name).min <= smallest and largest <= np.iinfo(name).max:
            return array.astype(name)
    return array


def run_golden(
    subject: GoldenSubject, golden: GoldenSet, spec: GoldenSpec, own: Sequence[Tensors] | None = None
) -> list[CheckResult]:
    """Ask all questions, one at a time, and judge the answers by the release's checks.

    Args:
        subject: the loaded variant.
        golden: the release's golden set.
        spec: thresholds, from the release manifest.
        own: the variant's own emulated outputs; None: they equal the float reference.

    Raises:
        InferenceError: the model cannot answer, or (code `golden_failed`) answers in another shape.
        UnsupportedFeature: a metric that this runtime does not compute.
        ContractError: golden set and manifest do not fit together.
    """
    count = len(golden.samples)
    if spec.stored not in _STORED:
        raise UnsupportedFeature("check the golden set", f"it is stored as {shown(spec.stored)}", "update the runtime")
    # Fewer questions than promised would be an easier examination.
    if count != spec.count or (own is not None and len(own) != count):
        raise ContractError("check the golden set", f"it promises {spec.count} samples and holds {count}")
    references = {"float": tuple(sample.float_outputs for sample in golden.samples)}
    references["own"] = references["float"] if own is None else tuple(own)
    outputs = tuple(subject.run_decoded(sample.inputs) for sample in golden.samples)
    return [_judge(check, _measure(check, subject, outputs, references, golden)) for check in spec.checks]


def _measure(
    check: GoldenCheck,
    subject: GoldenSubject,
    outputs: Sequence[Tensors],
    references: Mapping[str, Sequence[Tensors]],
    golden: GoldenSet,
) -> float:
    if check.on is not None and check.against != "truth":
        metric = _METRICS.get(check.metric)
        if metric is None:
            raise UnsupportedFeature(
                "check the golden set", f"metric {shown(check.metric)} is not built in this runtime"
            )
        return metric(_stacked(references[check.against], check.on), _stacked(outputs, check.on, references["float"]))
    answers = _answers(subject, golden, outputs)
    if check.against == "truth":
        return against_truth(check.metric, answers, golden.truth)
    return against_answers(check.metric, answers, _answers(subject, golden, references[check.against]))


def _judge(check: GoldenCheck, value: float) -> CheckResult:
    if check.min is None and check.max is None:
        raise ContractError("check the golden set", f"its check of {check.metric} has no bound and could never fail")
    passed = math.isfinite(value)
    passed = passed and (check.min is None or value >= check.min) and (check.max is None or value <= check.max)
    return CheckResult(
        against=check.against,
        metric=check.metric,
        on=check.on,
        value=value if math.isfinite(value) else None,
        passed=passed,
        min=check.min,
        max=check.max,
    )


def _stacked(samples: Sequence[Tensors], name: str, shaped_like: Sequence[Tensors] | None = None) -> Array:
    """One tensor of all samples, [samples, …]."""
    arrays = []
    for number, tensors in enumerate(samples):
        if name not in tensors:
            raise ContractError("check the golden set", f"tensor {shown(name)} is missing in sample {number}")
        array = tensors[name]
        wanted = shaped_like[number][name].shape if shaped_like and name in shaped_like[number] else array.shape
        if array.shape != wanted:
            raise InferenceError(
                "check the golden set",
                f"the model answers {name} with shape {list(array.shape)}, the reference has {list(wanted)}",
                code=GOLDEN_FAILED,
            )
        arrays.append(array.ravel())
    if len({array.size for array in arrays}) != 1:
        return np.concatenate(arrays)
    return np.stack(arrays)


def _answers(subject: GoldenSubject, golden: GoldenSet, outputs: Sequence[Tensors]) -> list[Answer]:
    answers: list[Answer] = []
    for sample, tensors in zip(golden.samples, outputs, strict=True):
        answers.extend(subject.interpret(tensors, sample.inputs))
    return answers
