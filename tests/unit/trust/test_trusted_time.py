import math

import pytest

from edge_runtime.contract.errors import TrustError
from edge_runtime.trust.assignment import sign_time, verify_time
from edge_runtime.trust.repository import load_repository
from edge_runtime.trust.trusted_time import SIGNED_TOLERANCE_S, TimeFloor, trusted_now
from tests.fakes.trust_forge import DAY, DEVICE, NOW, Forge

BUILT = 1_780_000_000.0
FLOOR = 1_800_000_000.0
YEAR = 365.25 * 86400


def test_a_plausible_system_clock_is_believed() -> None:
    assert trusted_now(FLOOR + YEAR, BUILT, FLOOR) == FLOOR + YEAR


def test_a_clock_at_1970_falls_back_to_the_floor() -> None:
    assert trusted_now(0.0, BUILT, FLOOR) == FLOOR


def test_a_new_device_at_1970_falls_back_to_its_build() -> None:
    assert trusted_now(0.0, BUILT, 0.0) == BUILT


def test_a_clock_beyond_two_years_after_the_floor_is_distrusted() -> None:
    assert trusted_now(FLOOR + 2.01 * YEAR, BUILT, FLOOR) == FLOOR
    assert trusted_now(2_524_608_000.0, BUILT, FLOOR) == FLOOR


def test_a_clock_that_is_no_number_is_distrusted() -> None:
    assert trusted_now(math.nan, BUILT, FLOOR) == FLOOR
    assert trusted_now(math.inf, BUILT, FLOOR) == FLOOR


def test_signed_time_outranks_a_clock_that_runs_ahead() -> None:
    assert trusted_now(FLOOR + YEAR, BUILT, FLOOR, FLOOR + 60) == FLOOR + 60
    assert trusted_now(FLOOR + 61, BUILT, FLOOR, FLOOR + 60) == FLOOR + 61
    assert trusted_now(FLOOR + 61 + SIGNED_TOLERANCE_S, BUILT, FLOOR, FLOOR + 60) == FLOOR + 60


def test_signed_time_brings_back_a_device_that_lay_in_a_drawer_for_years() -> None:
    woken = FLOOR + 5 * YEAR

    assert trusted_now(woken, BUILT, FLOOR) == FLOOR
    assert trusted_now(woken, BUILT, FLOOR, woken - 1) == woken


def test_older_signed_time_never_turns_the_floor_back() -> None:
    assert trusted_now(0.0, BUILT, FLOOR, FLOOR - 1) == FLOOR
    assert TimeFloor(BUILT, FLOOR).raised(FLOOR - 1).floor_s == FLOOR
    assert TimeFloor(BUILT, FLOOR).raised(math.nan).floor_s == FLOOR


def test_a_floor_rises_by_signed_time_only() -> None:
    floor = TimeFloor(BUILT, FLOOR)

    floor.now(FLOOR + YEAR)

    assert floor.floor_s == FLOOR
    assert floor.raised(FLOOR + 10).now(0.0) == FLOOR + 10


def test_a_clock_a_month_ahead_is_put_right_by_the_first_signed_time() -> None:
    forge = Forge()
    floor = TimeFloor(build_s=NOW - 100 * DAY, floor_s=NOW - DAY)
    ahead = NOW + 30 * DAY
    with pytest.raises(TrustError, match="expired"):
        load_repository(forge, forge.first_root, now=floor.now(ahead), floors={})

    keys = load_repository(forge, forge.first_root, now=floor.proven_s, floors={}).director_keys
    signed_s = verify_time(sign_time(DEVICE, "n", NOW, forge.director_key), keys=keys, device=DEVICE, nonce="n")

    load_repository(forge, forge.first_root, now=floor.now(ahead, signed_s), floors={})
