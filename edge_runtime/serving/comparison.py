"""How far a candidate's replies agree with those that clients got: added up pair by pair, nothing is kept (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import Array
from edge_runtime.inference.checks.agreement import Distance, box_matches, f1, max_abs
from edge_runtime.serving.calls import Reply


@dataclass(frozen=True, slots=True)
class TensorAgreement:
    """How far one output tensor agrees, over all replies."""

    samples: int
    snr_db: float
    """Of the candidate's numbers, with the live ones as signal."""
    max_abs: float
    """Largest difference."""
    same_top: float
    """Share of samples whose largest number stands at the same place."""


@dataclass(frozen=True, slots=True)
class AnswerAgreement:
    """How far one public output agrees, over all replies."""

    samples: int
    agreement: float
    """Share with the same best class; of objects that both saw (F1 at half overlap); else of equal answers."""


Agreement = TensorAgreement | AnswerAgreement


class Comparison:
    """Takes in pairs of replies to the same calls.

    Args:
        kinds: kind of each public output, as the release's signature says.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        self._tensors: dict[str, _TensorSums] = {}
        self._answers: dict[str, _AnswerSums] = {}

    def add(self, live: Reply, candidate: Reply) -> None:
        """Take one pair in. Raises: InferenceError: they cannot be compared, because their shapes or outputs differ."""
        if live.tensors.keys() != candidate.tensors.keys():
            raise InferenceError("compare answers", f"{sorted(live.tensors)} and {sorted(candidate.tensors)} differ")
        for name, values in live.tensors.items():
            other = candidate.tensors[name]
            if isinstance(values, list) and isinstance(other, list):
                self._answers.setdefault(name, _AnswerSums()).add(values, other, self._kinds.get(name, ""))
            elif not isinstance(values, list) and not isinstance(other, list):
                self._tensors.setdefault(name, _TensorSums()).add(values, other)
            else:
                raise InferenceError("compare answers", f"{name} is a tensor in one and none in the other")

    def read(self) -> dict[str, Agreement]:
        """By output name."""
        tensors: dict[str, Agreement] = {name: sums.read() for name, sums in list(self._tensors.items())}
        return tensors | {name: sums.read() for name, sums in list(self._answers.items())}


class _TensorSums:
    def __init__(self) -> None:
        self._distance = Distance()
        self._samples = 0
        self._same = 0.0
        self._largest = 0.0

    def add(self, live: Array, candidate: Array) -> None:
        self._distance.add(live, candidate)
        rows = len(live) if live.ndim > 1 else 1
        first, second = live.reshape(rows, -1), candidate.reshape(rows, -1)
        self._samples += rows
        if first.size:
            self._same += int((first.argmax(axis=1) == second.argmax(axis=1)).sum())
        self._largest = float(np.maximum(self._largest, max_abs(live, candidate)))

    def read(self) -> TensorAgreement:
        share = self._same / self._samples if self._samples else float("nan")
        return TensorAgreement(self._samples, self._distance.snr_db(), self._largest, share)


class _AnswerSums:
    def __init__(self) -> None:
        self._samples = 0
        self._matched = 0
        self._said = 0
        self._wanted = 0

    def add(self, live: list[bytes], candidate: list[bytes], kind: str) -> None:
        if len(live) != len(candidate):
            raise InferenceError("compare answers", f"there are {len(live)} of one and {len(candidate)} of the other")
        for one, other in zip(live, candidate, strict=True):
            self._samples += 1
            if kind == "detections":
                self._add_objects(one, other)
                continue
            self._said, self._wanted = self._said + 1, self._wanted + 1
            self._matched += _top(one) == _top(other) if kind == "classes" else one == other

    def _add_objects(self, live: bytes, candidate: bytes) -> None:
        (boxes, classes), (found, found_classes) = _objects(live), _objects(candidate)
        self._matched += box_matches(found, found_classes, boxes, classes)
        self._said, self._wanted = self._said + len(found_classes), self._wanted + len(classes)

    def read(self) -> AnswerAgreement:
        return AnswerAgreement(self._samples, f1(self._matched, self._said, self._wanted))


class _Found(msgspec.Struct):
    index: int
    box: list[float] = []


def _top(document: bytes) -> int | None:
    found = msgspec.json.decode(document, type=list[_Found])
    return found[0].index if found else None


def _objects(document: bytes) -> tuple[Array, list[int]]:
    found = msgspec.json.decode(document, type=list[_Found])
    return np.asarray([one.box for one in found], np.float64).reshape(-1, 4), [one.index for one in found]
