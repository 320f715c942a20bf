"""One server inside the process for the tests of a module: making its keys is what costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.server import LocalFleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    made = LocalFleet(tmp_path_factory.mktemp("server") / "data")
    yield made
    made.close()
