"""What one device is offered: which variants, in which order, and why (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Candidate, Policy, Running
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.variant_choice import OfferedVariant, Rejected, choose
from fleet_server.inventory.model import AssignmentDraft
from fleet_server.releases.model import ReleaseDetail
from fleet_server.rollouts.model import RolloutId, RolloutPlan

_LIFETIME_S: Final = 7 * 86_400.0
_WAY_BACK_S: Final = 90 * 86_400.0
"""A device that slept through a revert must still go back when it wakes up."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One variant a device may try, and why it stands where it stands."""

    variant: VariantId
    digest: Digest
    size_bytes: int
    because: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The variants for one device, best first, and those that cannot run there."""

    suggestions: tuple[Suggestion, ...]
    rejected: tuple[Rejected, ...]
    max_trials: int


def class_of(facts: DeviceFacts) -> str:
    """A name for all devices on which the same variant wins: same machine, same engines."""
    engines = sorted(f"{fact} {sorted(fact.providers)}" for fact in facts.engines)
    parts = [facts.profile, facts.arch, facts.cpu, facts.cores, sorted(facts.isa), engines, sorted(facts.accelerators)]
    return hashlib.sha256(encode(parts)).hexdigest()[:32]


def offer(
    variants: tuple[OfferedVariant, ...], facts: DeviceFacts | None, winner: Digest | None, max_trials: int
) -> Offer:
    """The variants of a release for a device.

    Args:
        variants: all variants of the release.
        facts: what the device said about itself; None before its first birth: then it is offered everything.
        winner: the variant that already won on its class.
        max_trials: how many it may try when there is no winner.
    """
    if facts is None:
        blind = tuple(_suggest(variant, "the device has not said yet what it is") for variant in variants)
        return Offer(blind, (), max_trials)
    choice = choose(variants, facts, winner)
    has_winner = bool(choice.candidates) and choice.candidates[0].digest == winner
    ordered = tuple(_suggest(variant, _because(variant, winner)) for variant in choice.candidates)
    return Offer(ordered, choice.rejected, 1 if has_winner else max_trials)


def forward_draft(rollout: RolloutId, plan: RolloutPlan, release: ReleaseDetail, offered: Offer) -> AssignmentDraft:
    """The assignment that brings a device to the rollout's release."""
    return AssignmentDraft(
        kind="model",
        target=release.release.target,
        release=release.release.digest,
        length=release.release.length,
        candidates=_candidates(offered.suggestions),
        max_trials=offered.max_trials,
        policy=Policy(soak_s=plan.soak_s, deadline_s=plan.deadline_s),
        rollout=rollout,
        lifetime_s=max(_LIFETIME_S, plan.deadline_s),
    )


def back_draft(
    rollout: RolloutId, plan: RolloutPlan, previous: Running | None, release: ReleaseDetail | None
) -> AssignmentDraft:
    """The assignment that brings a device back to what it had confirmed; nothing (kind `none`) when there was nothing.

    The variant it ran comes first and alone; `release` is the earlier release, and None without one.
    """
    # The device's own deadline is the long one: late is better than never on the way back.
    policy = Policy(soak_s=plan.soak_s, deadline_s=_WAY_BACK_S)
    if previous is None or release is None:
        return AssignmentDraft(kind="none", policy=policy, rollout=rollout, lifetime_s=_WAY_BACK_S)
    ran = [variant for variant in release.offered if variant.digest == previous.variant_digest]
    return AssignmentDraft(
        kind="model",
        target=release.release.target,
        release=release.release.digest,
        length=release.release.length,
        candidates=_candidates([_suggest(variant, "it ran before") for variant in ran or release.offered]),
        max_trials=1 if ran else plan.max_trials,
        policy=policy,
        rollout=rollout,
        lifetime_s=_WAY_BACK_S,
    )


def _candidates(suggestions: Sequence[Suggestion]) -> tuple[Candidate, ...]:
    return tuple(Candidate(id=suggestion.variant, digest=suggestion.digest) for suggestion in suggestions)


def _suggest(variant: OfferedVariant, because: str) -> Suggestion:
    size_bytes = sum(file.size for file in variant.manifest.files)
    return Suggestion(variant.manifest.id, variant.digest, size_bytes, because)


def _because(variant: OfferedVariant, winner: Digest | None) -> str:
    target = variant.manifest.target
    if variant.digest == winner:
        return "it won on a device of this class"
    if variant.latency_ms is not None:
        return f"{variant.latency_ms:g} ms was measured on this class"
    if target.accelerator:
        return f"it uses the device's {target.accelerator}"
    return f"it fits; {target.precision} on {target.engine} is a guess until the device has tried it"
