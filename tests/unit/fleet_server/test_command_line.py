"""What the commands check before they ask a server, and what they never say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.trust.keys import SigningKey
from fleet_server.cli.devices import claim
from fleet_server.cli.remote import Remote
from fleet_server.errors import FleetError, InvalidRequest, Unauthenticated

KEY = "ef_0123abcd_" + "s" * 43


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEFLEET_API_KEY", raising=False)


def test_a_missing_key_is_named_as_what_is_missing() -> None:
    with pytest.raises(Unauthenticated, match=r"no API key is given; set EDGEFLEET_API_KEY or give --api-key @FILE"):
        Remote(None, None)


def test_an_empty_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.key"
    path.touch()

    with pytest.raises(Unauthenticated, match=r"empty\.key is empty"):
        Remote(None, f"@{path}")


def test_another_secret_in_the_place_of_a_key_is_refused_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "team.key"
    SigningKey.generate().save(path)
    secret = path.read_text().splitlines()[1]

    with pytest.raises(Unauthenticated, match=r"team\.key gives is no API key") as refused:
        Remote(None, f"@{path}")

    assert secret not in str(refused.value)
    with pytest.raises(Unauthenticated) as refused:
        Remote(None, path.read_text())
    assert secret not in str(refused.value)


def test_a_key_and_a_file_that_holds_one_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text(KEY + "\n")

    for given in (KEY, f"@{path}"):
        with Remote(None, given) as remote:
            assert remote.url == "http://127.0.0.1:8080"


def test_a_key_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="No such file or directory; check --api-key"):
        Remote(None, f"@{tmp_path / 'none'}")


def test_a_claim_that_may_still_be_good_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.json"
    path.write_text("{}")

    with pytest.raises(InvalidRequest, match=r"it exists, and may hold a claim that is still good; add --force"):
        claim(device="cam-1", output=path, api_key=KEY)

    assert path.read_text() == "{}"
