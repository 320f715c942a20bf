"""The outcome gate: a census of the wave."""

import pytest

from fleet_server.rollouts.gates import judge
from fleet_server.rollouts.model import OutcomeGate, WaveCensus

STRICT = OutcomeGate(max_failed_ratio=0.0)


@pytest.mark.parametrize(
    ("census", "result", "says"),
    [
        (WaveCensus(0, reached=2), "inconclusive", "0 of 2 devices confirmed, 2 undecided"),
        (WaveCensus(0, reached=2, confirmed=1), "inconclusive", "1 of 2 devices confirmed, 1 undecided"),
        (WaveCensus(0, reached=2, confirmed=2), "pass", "2 of 2 devices confirmed"),
        (WaveCensus(0, reached=1, confirmed=1), "pass", "1 of 1 device confirmed"),
        (WaveCensus(1, reached=2, failed=1), "fail", "wave 2 failed: of 2 devices 1 refused the release"),
        (WaveCensus(0, reached=2, rolled_back=1), "fail", "1 rolled back"),
        (WaveCensus(0, reached=2, silent=1, confirmed=1), "fail", "1 silent past the deadline"),
        (WaveCensus(0, reached=0), "pass", "no device of its own"),
        (WaveCensus(0, reached=1, superseded=1), "pass", "no device of its own"),
    ],
)
def test_a_strict_gate(census: WaveCensus, result: str, says: str) -> None:
    verdict = judge(STRICT, census)

    assert verdict.result == result
    assert says in verdict.sentence


def test_a_tolerant_gate_passes_with_what_it_tolerates_and_says_so() -> None:
    verdict = judge(OutcomeGate(max_failed_ratio=0.1), WaveCensus(0, reached=10, confirmed=9, failed=1))

    assert verdict.result == "pass"
    assert (
        verdict.sentence
        == "wave 1 passed: 9 of 10 devices confirmed, of 10 devices 1 refused the release (1 tolerated)"
    )


def test_a_tolerant_gate_fails_as_soon_as_the_share_can_no_longer_hold() -> None:
    verdict = judge(OutcomeGate(max_failed_ratio=0.1), WaveCensus(0, reached=10, failed=2))

    assert verdict.result == "fail"


def test_the_sentence_names_devices_and_reasons() -> None:
    census = WaveCensus(0, reached=1, failed=1, reasons=(("gate-1", "truth_failed"),))

    assert judge(STRICT, census).sentence == (
        "wave 1 failed: of 1 device 1 refused the release (gate-1: truth_failed), none tolerated"
    )
