"""Metrics against numbers computed by hand or by another implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import BadDataset
from converters.evaluation.metrics.classes import TopK, TopOneAgreement
from converters.evaluation.metrics.metric import Reply, Score, wilson
from converters.evaluation.metrics.tensors import MeanCosine


def said(*scores: float) -> Reply:
    return Reply({"scores": np.array([scores], np.float32)}, {})


def test_top_k_counts_samples_whose_class_is_among_the_best() -> None:
    top1, top2 = TopK("top1", "scores", 1), TopK("top2", "scores", 2)

    for metric in (top1, top2):
        metric.add(said(0.1, 0.7, 0.2), 1)
        metric.add(said(0.1, 0.7, 0.2), 2)
        metric.add(said(0.1, 0.7, 0.2), 0)

    assert (top1.score().value, top1.score().count) == (pytest.approx(1 / 3), 3)
    assert top2.score().value == pytest.approx(2 / 3)


def test_a_background_class_is_never_the_best() -> None:
    metric = TopK("top1", "scores", 1, ignore=(0,))

    metric.add(said(0.9, 0.1, 0.0), 1)

    assert metric.score().value == 1.0


def test_an_answer_that_is_not_a_number_is_wrong_and_agrees_with_nothing() -> None:
    metric, agreement = TopK("top1", "scores", 1), TopOneAgreement("scores")

    metric.add(said(float("nan"), 1.0), 0)
    agreement.add(said(float("nan"), 1.0), said(float("nan"), 1.0))

    assert (metric.score().value, agreement.score().value) == (0.0, 0.0)


@pytest.mark.parametrize(("truth", "says"), [(7, "none of the model's 2"), ((0.5,), "one class per sample")])
def test_a_truth_the_metric_cannot_use_is_refused(truth, says) -> None:
    with pytest.raises(BadDataset, match=says):
        TopK("top1", "scores", 1).add(said(0.0, 1.0), truth)


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Wilson score interval of 81 successes in 263 trials, as in Newcombe, Statistics in Medicine 17 (1998), table I.
    low, high = wilson(81 / 263, 263)

    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_interval_of_a_share_holds_the_share(count, share) -> None:
    low, high = wilson(share, count)

    assert 0.0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1.0


def test_equal_numbers_have_cosine_one_and_silence_agrees_with_silence() -> None:
    agreement = MeanCosine("scores")

    agreement.add(said(1.0, 2.0), said(2.0, 4.0))
    agreement.add(said(0.0, 0.0), said(0.0, 0.0))

    assert agreement.score().value == pytest.approx(1.0)


def test_a_loss_has_the_direction_of_its_metric() -> None:
    share, error = Score("top1", 0.9, 10), Score("mae", 0.9, 10, is_error=True)

    assert share.lost_from(1.0) == pytest.approx(0.1)
    assert error.lost_from(1.0) == pytest.approx(-0.1)
