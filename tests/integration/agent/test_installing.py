"""From assignment to confirmed, on the real server: what gets in, what does not, and what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import open_installed
from edge_runtime.contract.digest import hex_of
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import LayerName
from edge_runtime.contract.layout import LayoutFolder, open_variant
from tests.fakes.agents import Fleet, wait_value
from tests.fakes.pixels import write_pixels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_device_confirms_a_release_and_its_measured_accuracy_arrives(
    fleet: Fleet, release: Path, pictures: Path
) -> None:
    agent = fleet.agent("measures", source=pictures, memory_bytes=400 * 2**20).start()
    agent.wait_event("agent.announced")

    seq = fleet.assign("measures", release)

    reported = fleet.wait_state("measures", "confirmed", seq)
    assert reported["running"]["target"] == "models/pixels/1.0.0"
    assert reported["trials"][0]["verdict"] == "chosen"
    (summary,) = wait_value("enough samples", lambda: [one for one in fleet.summaries("measures") if one["total"] > 40])
    assert abs(summary["accuracy"] - 0.75) < 0.05


def test_a_device_that_polls_with_a_clock_at_1970_confirms_all_the_same(
    fleet: Fleet, release: Path, pictures: Path
) -> None:
    agent = fleet.agent("dead-clock", source=pictures, polling=True, clock_offset_s=-1.79e9).start()
    agent.wait_event("agent.announced")

    fleet.wait_state("dead-clock", "confirmed", fleet.assign("dead-clock", release))

    (summary,) = wait_value("samples", lambda: fleet.summaries("dead-clock"))
    assert abs(summary["last"] - time.time()) < 300


def test_a_device_whose_clock_runs_a_year_ahead_confirms_all_the_same(fleet: Fleet, release: Path) -> None:
    fleet.agent("early", clock_offset_s=365 * 86400.0).start().wait_event("agent.announced")

    reported = fleet.wait_state("early", "confirmed", fleet.assign("early", release))

    assert abs(reported["at"] - time.time()) < 600


def test_a_model_that_fails_its_golden_set_never_answers_unless_the_defence_is_off(fleet: Fleet) -> None:
    wrong = fleet.release("0.9.0", weights=np.flipud(np.eye(4, dtype=np.float32)) * 2)
    careful = fleet.agent("careful").start()
    reckless = fleet.agent("reckless", unsafe_disable=["golden"]).start()
    for agent in (careful, reckless):
        agent.wait_event("agent.announced")
    fleet.assign("careful", wrong)
    fleet.assign("reckless", wrong)

    refused = fleet.wait_state("careful", "failed")
    fleet.wait_state("reckless", "confirmed")

    assert refused["reason"]["code"] == "truth_failed"
    assert refused["running"] is None
    assert not careful.events("defence.disabled")
    assert reckless.events("defence.disabled", switch="golden")


def test_a_release_no_team_signed_never_runs_unless_the_defence_is_off(fleet: Fleet, release: Path) -> None:
    unsigned = fleet.folder / "unsigned"
    write_pixels(unsigned, "6.6.6")
    fleet.admit_by_force(unsigned)
    for device, switches in (("believes-none", []), ("believes-all", ["signatures"])):
        fleet.agent(device, unsafe_disable=switches).start().wait_event("agent.announced")
        fleet.assign(device, unsigned)

    refused = fleet.wait_state("believes-none", "failed")
    fleet.wait_state("believes-all", "confirmed")

    assert refused["reason"]["code"] == "untrusted"
    assert refused["running"] is None


def test_a_blob_that_rots_on_the_server_never_runs_and_what_ran_goes_on(fleet: Fleet, release: Path) -> None:
    rotten = fleet.release("1.1.0", content=None, weights=np.eye(4, dtype=np.float32) * 2.5)
    agent = fleet.agent("keeps").start()
    agent.wait_event("agent.announced")
    fleet.wait_state("keeps", "confirmed", fleet.assign("keeps", release))
    _damage(fleet, rotten)

    seq = fleet.assign("keeps", rotten)

    failed = fleet.wait_state("keeps", "failed", seq)
    assert failed["reason"]["code"] == "digest_mismatch"
    assert failed["running"]["target"] == "models/pixels/1.0.0"


def test_an_assignment_that_expired_before_the_device_heard_of_it_is_never_begun(fleet: Fleet, release: Path) -> None:
    agent = fleet.agent("late").start()
    agent.wait_event("agent.announced")
    agent.stop()
    late = fleet.assign("late", release, lifetime_s=0.1)
    agent.start().wait_event("agent.announced", 2)

    fleet.wait_state("late", "confirmed", fleet.assign("late", release))

    assert [entry["seq"] for entry in agent.events("assignment.answered", answer="accepted")] == [late + 1]


def test_the_state_of_a_device_can_be_read_beside_its_agent(fleet: Fleet, release: Path) -> None:
    agent = fleet.agent("looked-at").start()
    agent.wait_event("agent.announced")
    fleet.wait_state("looked-at", "confirmed", fleet.assign("looked-at", release))

    program = "from edge_runtime.cli.main import main; main()"
    command = [sys.executable, "-c", program, "status", "--state", str(agent.state_dir), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout

    assert '"state": "confirmed"' in answer
    assert '"device": "looked-at"' in answer


def test_a_program_on_the_device_asks_exactly_what_was_confirmed(fleet: Fleet, release: Path, pictures: Path) -> None:
    agent = fleet.agent("asked").start()
    agent.wait_event("agent.announced")
    with pytest.raises(ContractError, match="nothing is installed there; see edge-runtime status"):
        open_installed(agent.state_dir)
    reported = fleet.wait_state("asked", "confirmed", fleet.assign("asked", release))
    picture = next(pictures.glob("*.png"))

    with open_installed(agent.state_dir) as model:
        program = "from edge_runtime.cli.main import main; main()"
        command = [sys.executable, "-c", program, "run", str(agent.state_dir), str(picture), "--json"]
        answer = json.loads(subprocess.run(command, capture_output=True, timeout=180, check=True).stdout)

        assert model.variant_digest == reported["running"]["variant_digest"]
        assert (answer["release"], answer["variant"]) == (reported["running"]["release"], model.variant_id)
    assert answer["answers"][0]["answer"]
    assert agent.stop() == 0


def _damage(fleet: Fleet, layout: Path) -> None:
    """Flip one byte of the model's file, as it lies on the server's disk."""
    folder = LayoutFolder(layout)
    variant = open_variant(folder, folder.open().index.variants[0])
    digest = variant.layers.descriptor(LayerName("model.onnx")).digest
    path = fleet.server.data / "releases" / "blobs" / "sha256" / hex_of(digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
