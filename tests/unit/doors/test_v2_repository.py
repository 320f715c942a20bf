"""Loading and unloading by clients: each refusal says what was wanted, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.contract.errors import InferenceError
from edge_runtime.doors.door import Listen
from edge_runtime.doors.serve import ServePlan, serving
from edge_runtime.doors.v2.repository import Repository
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.calls import UnknownModel
from edge_runtime.serving.host import ModelHost
from tests.fakes.pixels import write_pixels


@pytest.fixture
def service(tmp_path: Path) -> Iterator[V2Service]:
    write_pixels(tmp_path / "pixels", "1.0.0")
    with ModelHost() as host:
        yield V2Service(host, "1.2.3", Repository(tmp_path))


def test_unloading_what_the_repository_does_not_hold_is_refused_as_such(service: V2Service) -> None:
    why = "cannot unload model 'nope': the repository holds no such release; ask for its index: POST"
    with pytest.raises(InferenceError, match=why):
        service.unload("nope")


def test_a_release_that_cannot_be_read_hides_no_other_and_the_operator_is_told_why(tmp_path: Path) -> None:
    write_pixels(tmp_path / "sound", "1.0.0")
    write_pixels(tmp_path / "torn", "1.1.0")
    (tmp_path / "torn" / "index.json").write_text("no index")
    said: list[str] = []

    with serving(ServePlan((), http=Listen("127.0.0.1", 0), repository=tmp_path), said.append):
        pass

    assert [one.version for one in Repository(tmp_path).releases()] == ["1.0.0"]
    assert len(said) == 1
    assert said[0].startswith("left out of the repository: cannot ")
    assert str(tmp_path / "torn") in said[0]


def test_a_model_that_was_unloaded_is_told_apart_from_one_that_never_was_there(service: V2Service) -> None:
    service.load("pixels")
    service.unload("pixels")

    with pytest.raises(UnknownModel, match="it was unloaded; list what is: POST /v2/repository/index"):
        service.find("pixels", "")
    with pytest.raises(UnknownModel, match="it is not served here; list what is: POST /v2/repository/index"):
        service.find("nope", "")

    service.load("pixels")
    assert service.find("pixels", "").name == "pixels"
