"""How a device joins: once, with a key of its own, and never half."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.agents import Fleet
from tests.fakes.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_device_enrols_with_its_own_key_and_keeps_its_identity_at_the_next_start(fleet: Fleet) -> None:
    agent = fleet.agent("joins").start()
    agent.wait_event("agent.announced")
    fleet.wait_connection("joins", "ready")
    folder = agent.state_dir / "identity"
    key, certificate = (folder / "device.key").read_bytes(), (folder / "device.crt").read_bytes()

    assert agent.stop() == 0
    agent.start().wait_event("agent.announced", 2)

    assert (folder / "device.key").stat().st_mode & 0o777 == 0o600
    assert ((folder / "device.key").read_bytes(), (folder / "device.crt").read_bytes()) == (key, certificate)
    assert len(agent.events("device.enrolled")) == 1
    assert json.loads((folder / "enrolment.json").read_text())["claim"] == ""


def test_a_used_claim_is_refused_in_one_sentence_and_leaves_no_identity(fleet: Fleet) -> None:
    claim = fleet.claim(fleet.folder / "one-claim.json")
    fleet.agent("first", enrolment=str(claim)).start().wait_event("device.enrolled")

    second = fleet.agent("second", enrolment=str(claim)).start()

    assert second.ends() == 1
    assert second.log.count("\n") == 1
    assert "the claim was used already" in second.log
    assert [path.name for path in (second.state_dir / "identity").iterdir()] == ["device.key"]


def test_a_claim_nobody_made_and_a_foreign_authority_are_refused_in_one_sentence(fleet: Fleet) -> None:
    claim = json.loads(fleet.claim(fleet.folder / "forged.json").read_text())
    (fleet.folder / "forged.json").write_text(json.dumps({**claim, "claim": "x" * 43}))
    (fleet.folder / "pin.json").write_text(json.dumps({**claim, "ca_sha256": "0" * 64}))

    forged = fleet.agent("forged", enrolment=str(fleet.folder / "forged.json")).start()
    pinned = fleet.agent("pinned", enrolment=str(fleet.folder / "pin.json")).start()

    assert (forged.ends(), pinned.ends()) == (1, 1)
    assert "this server does not know the claim" in forged.log
    assert "its CA certificate is not the pinned one" in pinned.log
    assert (forged.log + pinned.log).count("\n") == 2


def test_a_device_whose_server_is_away_waits_for_it(fleet: Fleet) -> None:
    claim = json.loads(fleet.claim(fleet.folder / "away.json").read_text())
    (fleet.folder / "away.json").write_text(json.dumps({**claim, "server_url": f"https://127.0.0.1:{free_port()}"}))
    agent = fleet.agent("waits", enrolment=str(fleet.folder / "away.json")).start()

    agent.wait_event("enrolment.delayed", 2)

    assert agent.stop() == 0
    assert not (agent.state_dir / "identity" / "grant.json").exists()


def test_a_device_killed_before_it_stored_its_certificate_joins_with_the_same_claim(fleet: Fleet) -> None:
    agent = fleet.agent("killed").start()
    agent.wait_event("device.enrolled")
    agent.stop(9)
    for name in ("grant.json", "enrolment.json", "device.crt"):
        (agent.state_dir / "identity" / name).unlink()

    agent.start()

    agent.wait_event("device.enrolled", 2)


def test_a_second_agent_on_the_same_folder_and_a_foreign_identity_are_refused(fleet: Fleet) -> None:
    agent = fleet.agent("alone").start()
    agent.wait_event("device.enrolled")

    beside = _run(agent.config)
    agent.stop()
    agent.config.write_text(agent.config.read_text().replace('"alone"', '"other"', 1))
    other = _run(agent.config)

    assert (beside.returncode, other.returncode) == (1, 1)
    assert "another agent is running on it" in beside.stderr
    assert "holds the identity of alone" in other.stderr


def _run(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_runtime.agent", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_a_device_that_slept_past_the_end_of_its_certificate_renews_it_whatever_its_clock_says(fleet: Fleet) -> None:
    agent = fleet.agent("sleeper", clock_offset_s=-1.79e9).start()
    agent.wait_event("agent.announced")
    agent.stop()
    fleet.let_certificates_expire("sleeper")

    agent.start()

    agent.wait_event("certificate.renewed")
    agent.wait_event("agent.announced", 2)
    assert len(agent.events("device.enrolled")) == 1
