"""What `edge-runtime tune` found best on this machine: read whenever a model is opened, written by `tuning.kept`.

A choice is kept by variant digest and device fingerprint, and counts only with the engine version it was measured with.
Who never tuned does not wait for the types of what is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import TUNE

if TYPE_CHECKING:
    from edge_runtime.inference.tuned_choice import TunedChoice

FILE_NAME: Final = "tuned.json"
_FILE_MAX_BYTES: Final = 1024 * 1024

TunedFrom = Path | Literal["off"] | None
"""Folder of what was tuned; `off`: as if nothing had been; None: the user's own."""


def default_folder() -> Path:
    """Where choices are kept unless somebody says otherwise (XDG Base Directory Specification, `XDG_STATE_HOME`)."""
    given = os.environ.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return base / "edgefleet"


def fingerprint_of(facts: DeviceFacts) -> Digest:
    """What makes two machines the same to an engine: processor, instruction set, cores, board.

    Accelerators are none of it: whoever opens a release wakes up only those that it names, and `tune` all.
    """
    told = [facts.arch, facts.cpu, sorted(facts.isa), facts.cores, facts.board]
    return digest_of(encode(told))


def read_choices(folder: TunedFrom = None) -> tuple[TunedChoice, ...]:
    """Choices kept in a folder; none when there is no file, or one that cannot be read: a model opens without them."""
    if folder == "off":
        return ()
    try:
        with ((folder or default_folder()) / FILE_NAME).open("rb") as source:
            content = source.read(_FILE_MAX_BYTES + 1)
        from edge_runtime.inference.tuned_choice import TunedFile

        return tuple(decode(content, TunedFile, max_bytes=_FILE_MAX_BYTES).choices)
    except (OSError, RuntimeError, ContractError):
        # RuntimeError: a daemon's user may have no home.
        return ()


def applicable(choices: Iterable[TunedChoice], release: Digest, facts: DeviceFacts) -> dict[Digest, TunedChoice]:
    """The choices that count here, by variant digest."""
    made = tuple(choices)
    if not made:
        return {}
    fingerprint = fingerprint_of(facts)
    present = {str(engine): {None, *engine.providers} for engine in facts.engines}
    return {
        one.variant: one
        for one in made
        if (one.release, one.fingerprint) == (release, fingerprint) and one.provider in present.get(one.engine, ())
    }


def winner_of(tuned: Mapping[Digest, TunedChoice]) -> Digest | None:
    """The variant that was found best of its release; None when nothing was tuned."""
    return next((one.variant for one in tuned.values() if one.is_winner), None)


def leaves_threads_open(manifest: VariantManifest) -> bool:
    """Whether a variant lets the device choose its threads: it says `tune`, or nothing."""
    return manifest.engine.options.get("intra_op_threads", TUNE) in {None, TUNE}
