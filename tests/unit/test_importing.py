"""What imports make counts as old; nothing else does for their sake."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from edge_runtime.importing import uncollected


@pytest.fixture(autouse=True)
def _nothing_is_collected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def is_old(thing: object) -> bool:
    return any(one is thing for one in gc.get_objects(generation=2))


def test_what_an_import_made_counts_as_old() -> None:
    with uncollected():
        made: list[object] = [[]]
        sys.modules["edgefleet_test_import"] = sys
    del sys.modules["edgefleet_test_import"]

    assert is_old(made)


def test_where_nothing_was_imported_everything_keeps_its_age() -> None:
    with uncollected():
        made: list[object] = [[]]

    assert not is_old(made)
