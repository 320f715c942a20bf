"""What changed between two releases: promises, variants, numbers, and whether numbers may be compared at all; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import Evidence, EvidenceFile
from edge_runtime.contract.release import ReleaseManifest, VariantManifest, Waiver

_IGNORED: Final = frozenset({"schema", "version", "variants", "waivers", "reference", "recipe"})
"""Parts of the manifest that are told in another place, or say nothing alone."""
_SHOWN: Final = 160


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two releases, read."""

    digest: Digest
    manifest: ReleaseManifest
    variants: Mapping[str, tuple[Digest, VariantManifest]]
    evidence: EvidenceFile | None


class Numbers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one release says about a variant."""

    digest: Digest | None = None
    size_bytes: int | None = None
    accuracy: float | None = None
    metric: str | None = None
    p50_ms: float | None = None
    verdict: str = ""


class VariantChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One variant in both releases."""

    variant: str
    change: Literal["added", "removed", "changed", "same"]
    before: Numbers | None = None
    after: Numbers | None = None
    is_same_machine: bool = True
    """Whether both latencies are of the same processor, instruction set and engine version."""


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the manifest."""

    path: str
    before: str
    after: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that differs."""

    name: str
    title: str
    """Both sides, for a person."""
    before: str
    """Version."""
    after: str
    before_digest: Digest
    after_digest: Digest
    is_same: bool
    """Not one byte differs."""
    reference_before: float | None = None
    """Score of the source model."""
    reference_after: float | None = None
    variants: list[VariantChange] = []
    promises: list[FieldChange] = []
    """What applications, devices and rollouts rely on: signature, steps, golden set, limits, licence, source."""
    waivers_added: list[Waiver] = []
    waivers_gone: list[Waiver] = []
    notes: list[str] = []


def compare(before: Side, after: Side) -> Comparison:
    """Compare two releases, normally of one model."""
    old, new = before.manifest, after.manifest
    names = sorted(before.variants.keys() | after.variants.keys())
    variants = [_variant(name, before, after) for name in names]
    return Comparison(
        name=new.name,
        title=_title(old, new),
        before=old.version,
        after=new.version,
        before_digest=before.digest,
        after_digest=after.digest,
        is_same=before.digest == after.digest,
        reference_before=old.reference.value if old.reference else None,
        reference_after=new.reference.value if new.reference else None,
        variants=variants,
        promises=list(_promises(old, new)),
        waivers_added=[waiver for waiver in new.waivers if waiver not in old.waivers],
        waivers_gone=[waiver for waiver in old.waivers if waiver not in new.waivers],
        notes=list(_notes(old, new, variants)),
    )


def _title(old: ReleaseManifest, new: ReleaseManifest) -> str:
    if old.name == new.name:
        return f"{new.name}: {old.version} → {new.version}"
    return f"{old.name} {old.version} → {new.name} {new.version}"


def _variant(name: str, before: Side, after: Side) -> VariantChange:
    old, new = before.variants.get(name), after.variants.get(name)
    seen, seen_after = _evidence(name, before), _evidence(name, after)
    change: Literal["added", "removed", "changed", "same"] = "changed"
    if old is None or new is None:
        change = "added" if old is None else "removed"
    elif old[0] == new[0]:
        change = "same"
    return VariantChange(
        variant=name,
        change=change,
        before=_numbers(old, seen),
        after=_numbers(new, seen_after),
        is_same_machine=seen is None or seen_after is None or _machine(seen) == _machine(seen_after),
    )


def _evidence(name: str, side: Side) -> Evidence | None:
    if side.evidence is None:
        return None
    return side.evidence.variants.get(name) or side.evidence.refused.get(name)


def _numbers(variant: tuple[Digest, VariantManifest] | None, evidence: Evidence | None) -> Numbers | None:
    """Of a shipped variant, or of one that was refused; None when the release never heard of it."""
    if variant is None and evidence is None:
        return None
    accuracy, latency = (evidence.accuracy, evidence.latency_ms) if evidence else (None, None)
    size = sum(file.size for file in variant[1].files) if variant else evidence.size_bytes if evidence else None
    return Numbers(
        digest=variant[0] if variant else None,
        size_bytes=size,
        accuracy=accuracy.value if accuracy else None,
        metric=accuracy.metric if accuracy else None,
        p50_ms=latency.p50 if latency else None,
        verdict="shipped" if variant else evidence.verdict if evidence else "",
    )


def _machine(evidence: Evidence) -> tuple[object, ...]:
    where = evidence.where
    return where.cpu, where.arch, tuple(where.isa), where.execution, where.engine


def _promises(old: ReleaseManifest, new: ReleaseManifest) -> Iterator[FieldChange]:
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for name in sorted(before.keys() | after.keys()):
        if name not in _IGNORED:
            yield from _differences(name, before.get(name), after.get(name))


def _differences(path: str, before: object, after: object) -> Iterator[FieldChange]:
    """The smallest parts that differ, in order."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(f"{path}.{key}", before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for position, pair in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}[{position}]", *pair)
    else:
        yield FieldChange(path=path, before=_text(before), after=_text(after))


def _text(value: object) -> str:
    """For a person, on one line: whatever a release holds, only printable letters and no more than fit."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in _words(value))
    return plain if len(plain) <= _SHOWN else f"{plain[: _SHOWN - 1]}…"


def _words(value: object) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or "nothing"
        case list() if any(isinstance(item, dict) for item in value):
            return "; ".join(_words(item) for item in value)
        case list():
            return f"[{', '.join(map(_words, value))}]"
        case _:
            return str(value)


def _notes(old: ReleaseManifest, new: ReleaseManifest, variants: list[VariantChange]) -> Iterator[str]:
    if old.name != new.name:
        yield f"these are two models: {old.name} and {new.name}"
    if old.reference and new.reference and old.reference.evaluation != new.reference.evaluation:
        yield "accuracy is of two different evaluation sets: compare it with care"
    if any(not one.is_same_machine for one in variants):
        yield "some latencies are of two machines or engine versions: they are shown, not compared"
    if old.signature != new.signature:
        yield "the signature changed: applications must be changed with it"
    if old.preprocess == new.preprocess and old.source == new.source and old.calibration != new.calibration:
        if old.calibration and new.calibration:
            yield "same model, other calibration data"
        else:
            yield f"same model, and only {(old if old.calibration else new).version} was calibrated"
