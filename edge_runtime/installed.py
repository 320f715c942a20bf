"""What a device's agent has installed, opened by another program on the same device."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import SlotId, parse_slot_id, shown
from edge_runtime.contract.layout import BlobSource, OpenRelease, open_release

if TYPE_CHECKING:
    from edge_runtime.contract.device_profile import DeviceFacts
    from edge_runtime.inference.model import Model
    from edge_runtime.inference.tuned import TunedFrom
    from edge_runtime.update.states import Activation
    from edge_runtime.update.store import ContentStore

DATABASE: Final = "state.db"
STORE: Final = "store"
POINTERS: Final = "pointers"


def is_state_folder(path: Path) -> bool:
    """Whether a folder is an agent's `state_dir`."""
    return (path / DATABASE).is_file()


def slot_of(path: Path, slot: str | None) -> SlotId | None:
    """The slot that is meant of a `state_dir`, `main` where none was named; None: it is a release folder.

    Raises:
        ContractError: a slot was named of a release folder, which has none, or by what is no name.
    """
    if is_state_folder(path):
        return parse_slot_id("main" if slot is None else slot)
    if slot is None:
        return None
    because = f"{path} is no device's state_dir, and only that has slots"
    raise ContractError(f"choose slot {shown(slot)}", because, "leave --slot out, or name the state_dir of a device")


class InstalledBuild(msgspec.Struct, frozen=True):
    """What one slot of a device runs now."""

    activation: Activation
    release: OpenRelease
    source: BlobSource


def installed_builds(state_dir: Path | str) -> dict[SlotId, InstalledBuild]:
    """The build of every slot of this device that has one.

    Raises:
        ContractError: it is no agent's state folder, nothing is installed, or a release breaks the contract.
        DigestMismatch: a file is not the promised one.
    """
    # What moves updates is imported by whoever has a state folder: a command asks every release whether it is one.
    from edge_runtime.update.pointers import SlotPointers
    from edge_runtime.update.store import ContentStore

    folder = _checked(state_dir)
    pointers, store = SlotPointers(folder / POINTERS), ContentStore(folder / STORE)
    found: dict[SlotId, InstalledBuild] = {}
    for slot in pointers.slots():
        current = pointers.read(slot).current
        if current is not None:
            found[slot] = InstalledBuild(current, read_build(store, current), store)
    if not found:
        remedy = f"see edge-runtime status --state {folder}"
        raise ContractError(f"open what {folder} runs", "nothing is installed there", remedy)
    return found


def open_installed(
    state_dir: Path | str,
    slot: str = "main",
    *,
    threads: int | None = None,
    backends: Collection[str] | None = None,
    batch: int | None = None,
    tuned: TunedFrom = None,
) -> Model:
    """Open exactly the build that a slot of this device runs now; a later update does not change the opened model.

    Args:
        state_dir: the agent's `state_dir`; needs the rights of the agent's user.
        slot: which of the device's models.
        threads: threads inside one call; None: as the variant says.
        backends: names of engines that may be used; None: all.
        batch: samples of which the engine is asked at once where a call brings several.
        tuned: where what `edge-runtime tune` found is taken from.

    Raises:
        ContractError: it is no agent's state folder, or nothing is installed in the slot.
        InferenceError: the build cannot be loaded with these engines.
        DigestMismatch: a file is not the promised one.
    """
    from edge_runtime.update.pointers import SlotPointers
    from edge_runtime.update.store import ContentStore

    folder = _checked(state_dir)
    current = SlotPointers(folder / POINTERS).read(parse_slot_id(slot)).current
    if current is None:
        remedy = f"see edge-runtime status --state {folder}"
        raise ContractError(f"open what slot {slot} of {folder} runs", "nothing is installed there", remedy)
    return open_build(
        ContentStore(folder / STORE), current, threads=threads, backends=backends, batch=batch, tuned=tuned
    )


def read_build(store: ContentStore, build: Activation) -> OpenRelease:
    """The release of a build, as it is stored. Raises: ContractError, DigestMismatch."""
    from edge_runtime.update.contents import read_index

    return open_release(store, read_index(store, build.release, build.release_bytes))


def open_build(
    store: ContentStore,
    build: Activation,
    *,
    threads: int | None = None,
    backends: Collection[str] | None = None,
    facts: DeviceFacts | None = None,
    batch: int | None = None,
    tuned: TunedFrom = None,
) -> Model:
    """Open exactly the build that an activation names. Raises: InferenceError, ContractError, DigestMismatch."""
    # The engine is imported with the first model: an agent without one stays small.
    from edge_runtime.inference.model import Model

    release = read_build(store, build)
    return Model.open(
        (release, store), variant=build.variant, threads=threads, backends=backends, facts=facts, batch=batch,
        built=store.built, tuned=tuned,
    )  # fmt: skip


def _checked(state_dir: Path | str) -> Path:
    folder = Path(state_dir)
    if not is_state_folder(folder):
        raise ContractError(f"open {folder}", "it is no agent's state folder", "name the state_dir of a device")
    return folder
