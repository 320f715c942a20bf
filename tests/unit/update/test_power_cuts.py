"""The power goes at each single act of an installation, one after the other: no place is left to chance."""

from pathlib import Path

import pytest

from edge_runtime.contract.device_state import SlotState
from tests.fakes.update_world import Quality, World

ACTS_MAX = 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quality", "may_confirm"),
    [(Quality(), True), (Quality(error_share=1.0), False)],
    ids=["good", "sick_when_live"],
)
def test_a_power_cut_at_any_act_ends_in_an_outcome_with_the_right_release_answering(
    tmp_path: Path, *, quality: Quality, may_confirm: bool
) -> None:
    for act in range(1, ACTS_MAX):
        folder = tmp_path / str(act)
        folder.mkdir()
        world = World(folder)
        world.boot()
        old = world.publish("1", Quality())
        world.offer(world.assignment(1, old))
        assert world.run() is SlotState.CONFIRMED
        new = world.publish("2", quality)
        world.offer(world.assignment(2, new))

        world.fuse.left = act
        state = world.run()

        was_cut = world.fuse.left is None
        world.fuse.left = None
        assert state in {SlotState.CONFIRMED, SlotState.FAILED, SlotState.ROLLED_BACK}, act
        assert state is not SlotState.CONFIRMED or may_confirm, act
        expected = new if state is SlotState.CONFIRMED else old
        assert world.answering == expected.candidates[0].digest, act
        assert world.machine.reported().seq == 2, act
        world.close()
        if not was_cut:
            assert act > 20, "the sweep saw hardly anything"
            return
    raise AssertionError("the installation never ended within the sweep")
