"""Metrics against values worked out by hand, and what they say about answers that are no numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.checks.agreement import SNR_CAP_DB, Distance, cosine, max_abs, snr_db, top1, top1_agreement

SIGNAL = np.array([[3.0, 4.0]], np.float32)


def test_noise_of_a_tenth_of_the_amplitude_is_twenty_decibels() -> None:
    assert snr_db(SIGNAL, SIGNAL * 1.1) == pytest.approx(20.0, abs=1e-4)


def test_equal_tensors_reach_the_cap_and_json_can_carry_it() -> None:
    assert snr_db(SIGNAL, SIGNAL) == SNR_CAP_DB
    assert snr_db(SIGNAL * 0, SIGNAL * 0) == SNR_CAP_DB
    assert snr_db(SIGNAL * 0, SIGNAL) == -SNR_CAP_DB


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_has_no_agreement_at_all(poison: float) -> None:
    sick = np.array([[3.0, poison]], np.float32)

    assert snr_db(SIGNAL, sick) == -math.inf
    assert not max_abs(SIGNAL, sick) < 1e9
    assert not cosine(SIGNAL, sick) > 0
    assert top1_agreement(SIGNAL, np.full((1, 2), math.nan)) == 0.0


@given(st.floats(-60, 60), st.integers(0, 2**32 - 1))
def test_snr_does_not_depend_on_the_unit_of_the_signal(gain_db: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    signal, noise = random.normal(size=64), random.normal(size=64) * 0.01
    gain = 10 ** (gain_db / 20)

    assert snr_db(signal * gain, (signal + noise) * gain) == pytest.approx(snr_db(signal, signal + noise), abs=1e-6)


def test_top1_counts_only_what_somebody_labelled_and_silence_is_wrong() -> None:
    assert top1([1, 2, None, 4], [1, 3, 3, None]) == pytest.approx(1 / 3)
    assert math.isnan(top1([1], [None]))
    with pytest.raises(InferenceError, match="1 answers cannot be judged by 2 labels"):
        top1([1], [1, 2])


def test_agreement_of_rows_is_the_share_with_the_same_best_class() -> None:
    assert top1_agreement(np.eye(4), np.eye(4)[[0, 1, 3, 2]]) == 0.5


def test_distance_and_angle() -> None:
    assert max_abs(SIGNAL, np.array([[3.0, 2.0]])) == 2.0
    assert cosine(SIGNAL, SIGNAL * 5) == pytest.approx(1.0)
    assert cosine(SIGNAL, np.array([[-4.0, 3.0]])) == pytest.approx(0.0)


def test_tensors_of_other_shapes_are_never_compared() -> None:
    for metric in (snr_db, max_abs, cosine, top1_agreement):
        with pytest.raises(InferenceError, match="shape"):
            metric(SIGNAL, SIGNAL[0])


def test_the_largest_error_counts_against_the_range_over_all_pairs() -> None:
    distance = Distance()
    distance.add(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    distance.add(np.array([-1.0, 3.0]), np.array([-1.0, 2.9]))

    assert distance.range_error() == pytest.approx(0.1 / 4)


def test_an_error_of_what_never_varies_counts_against_its_size() -> None:
    distance = Distance()
    distance.add(np.array([2.0]), np.array([2.5]))

    assert distance.range_error() == 0.25


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_out_of_every_range(poison: float) -> None:
    distance = Distance()
    distance.add(np.array([0.0, 1.0]), np.array([0.0, poison]))
    distance.add(np.array([0.0, 1.0]), np.array([0.0, 1.0]))

    assert distance.range_error() == math.inf
