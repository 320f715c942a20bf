"""A device's store with a release that is right and one that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from tests.fakes.models import WEIGHTS
from tests.fakes.pixels import write_pixels
from tests.unit.agent.stores import stored


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store's folder."""
    return tmp_path_factory.mktemp("device") / "store"


@pytest.fixture(scope="module")
def store(root: Path) -> ContentStore:
    """The store."""
    return ContentStore(root)


@pytest.fixture(scope="module")
def good(store: ContentStore, tmp_path_factory: pytest.TempPathFactory) -> Activation:
    """Answers its golden set."""
    layout = tmp_path_factory.mktemp("good") / "layout"
    write_pixels(layout, "1.0.0")
    return stored(store, layout, 1)


@pytest.fixture(scope="module")
def wrong(store: ContentStore, tmp_path_factory: pytest.TempPathFactory) -> Activation:
    """Answers it wrongly."""
    layout = tmp_path_factory.mktemp("wrong") / "layout"
    write_pixels(layout, "2.0.0", weights=np.flipud(WEIGHTS).copy())
    return stored(store, layout, 2)
