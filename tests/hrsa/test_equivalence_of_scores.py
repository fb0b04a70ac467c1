"""Intervals and equivalence tests against scipy and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.uncertainty.equivalence import (
    Equivalence,
    equivalence_of_estimate,
    equivalence_of_replicates,
    equivalence_of_runs,
)
from reasoning_embedding.hrsa.uncertainty.resampling import bootstrap_means
from reasoning_embedding.hrsa.uncertainty.seed_band import mean_std

BASE = np.array([53.4, 53.6, 53.5, 53.1])
VARIANT = np.array([53.5, 53.9, 53.4, 53.3])


def paired_tost(base, variant, margin: float) -> Equivalence:
    return equivalence_of_runs(base, variant, margin, paired=True)


def welch_tost(base, variant, margin: float) -> Equivalence:
    return equivalence_of_runs(base, variant, margin)


def test_mean_and_std_over_seeds():
    assert mean_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.sqrt(7 / 3)))
    assert mean_std([5.0]) == (5.0, None)
    with pytest.raises(InputError, match="at least one"):
        mean_std([])
    with pytest.raises(InputError, match="finite"):
        mean_std([1.0, np.nan])


@pytest.mark.parametrize("margin", [0.05, 0.3, 0.5, 2.0])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.4])
def test_paired_tost_is_scipys_two_one_sided_tests(margin, shift):
    found = paired_tost(BASE, VARIANT + shift, margin)
    delta = VARIANT + shift - BASE
    lower = stats.ttest_rel(VARIANT + shift + margin, BASE, alternative="greater").pvalue
    upper = stats.ttest_1samp(delta, margin, alternative="less").pvalue
    assert found.p_value == pytest.approx(max(lower, upper), rel=1e-9)
    interval = stats.ttest_1samp(delta, 0).confidence_interval(0.95)
    assert found.confidence == pytest.approx((interval.low, interval.high))
    assert (found.method, found.n, found.estimate) == ("paired t", 4, pytest.approx(delta.mean()))


@pytest.mark.parametrize("margin", [0.05, 0.5, 2.0])
def test_welch_tost_is_scipys(margin):
    variant = VARIANT[:3] * 1.01
    found = welch_tost(BASE, variant, margin)
    lower = stats.ttest_ind(variant + margin, BASE, equal_var=False, alternative="greater").pvalue
    upper = stats.ttest_ind(variant - margin, BASE, equal_var=False, alternative="less").pvalue
    assert found.p_value == pytest.approx(max(lower, upper), rel=1e-9)
    interval = stats.ttest_ind(variant, BASE, equal_var=False).confidence_interval(0.95)
    assert found.confidence == pytest.approx((interval.low, interval.high))
    assert (found.method, found.n) == ("Welch t", 3)


def test_verdicts():
    def verdict(difference: float, error: float) -> str:
        return equivalence_of_estimate(difference, error, 2, 0.5).place

    assert verdict(0.1, 0.05) == "within"
    assert verdict(-12.03, 0.14) == "beyond"
    assert verdict(0.45, 0.05) == "open"  # too near to the margin for either
    assert verdict(0.0, 1.0) == "open"  # too uncertain
    # Not zero, and yet within the margin: significance and equivalence are different questions.
    small = equivalence_of_estimate(0.2, 0.02, 4, 0.5)
    assert small.confidence[0] > 0
    assert small.place == "within"


def test_seeds_without_spread_are_certain():
    assert paired_tost([1.0, 2.0], [1.25, 2.25], 0.5).p_value == 0
    assert paired_tost([1.0, 2.0], [2.0, 3.0], 0.5).p_value == 1
    assert paired_tost([1.0, 2.0], [1.5, 2.5], 0.5).place == "open"  # exactly at the margin
    assert welch_tost([1.0, 1.0], [1.2, 1.2], 0.5).place == "within"


@pytest.mark.parametrize(
    "call",
    [
        lambda: paired_tost([1.0], [2.0], 0.5),
        lambda: paired_tost([1.0, 2.0], [2.0, 3.0, 4.0], 0.5),
        lambda: welch_tost([1.0], [2.0, 3.0], 0.5),
        lambda: paired_tost(BASE, VARIANT, 0.0),
        lambda: paired_tost(BASE, VARIANT, -1.0),
        lambda: equivalence_of_estimate(0.0, 1.0, 2, float("nan")),
        lambda: equivalence_of_estimate(0.0, 1.0, 0, 0.5),
        lambda: equivalence_of_estimate(0.0, -1.0, 2, 0.5),
        lambda: equivalence_of_replicates(0.0, [0.0, 0.1], 0.0, n=1),
        lambda: bootstrap_means([[0.0], [0.0, 1.0]], ["same", "same"]),
        lambda: bootstrap_means([[]], ["a"]),
    ],
)
def test_what_cannot_be_tested_is_refused(call):
    with pytest.raises(InputError):
        call()


def _scores(rng: np.random.Generator, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Per-query scores of two models: strongly alike, skewed, in [0, 1]; true difference 0.05."""
    hard = rng.beta(0.6, 0.6, queries)
    return 0.9 * hard, np.clip(0.9 * hard + 0.05 + rng.uniform(-0.05, 0.05, queries), 0, 1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(500):
        base, variant = _scores(rng, 60)
        samples = bootstrap_means([variant - base], ["q"], draws=400, seed=trial)[:, 0]
        found = equivalence_of_replicates(float((variant - base).mean()), samples, 0.01, n=60)
        hits += found.confidence[0] <= 0.05 <= found.confidence[1]
    assert 0.91 <= hits / 500 <= 0.98  # 0.95; the error of 500 trials is 0.01


def test_the_equivalence_test_rarely_accepts_a_difference_at_its_margin():
    rng = np.random.default_rng(8)
    accepted = 0
    for trial in range(400):
        base, variant = _scores(rng, 60)
        samples = bootstrap_means([variant - base], ["q"], draws=400, seed=trial)[:, 0]
        accepted += equivalence_of_replicates(0.0, samples, 0.05, n=60).place == "within"
    assert accepted / 400 <= 0.09


def test_pairing_is_what_makes_the_interval_short():
    base, variant = _scores(np.random.default_rng(1), 200)
    paired = bootstrap_means([variant - base], ["q"])[:, 0].std()
    apart = np.subtract(*bootstrap_means([variant, base], ["q", "other"]).T).std()
    assert paired == pytest.approx((variant - base).std() / np.sqrt(200), rel=0.05)  # the plug-in error
    assert apart > 5 * paired


def test_tasks_with_the_same_queries_share_their_draws():
    difference = np.random.default_rng(2).normal(size=100)
    same = bootstrap_means([difference, difference], ["q", "q"])
    assert np.array_equal(same[:, 0], same[:, 1])
    apart = bootstrap_means([difference, difference], ["q", "other"])
    assert abs(np.corrcoef(apart.T)[0, 1]) < 0.05
    assert same.mean(axis=1).std() == pytest.approx(np.sqrt(2) * apart.mean(axis=1).std(), rel=0.06)


def test_draws_of_a_task_do_not_depend_on_other_tasks_nor_on_chunks(monkeypatch):
    difference = np.random.default_rng(3).normal(size=50)
    alone = bootstrap_means([difference], ["q"], draws=200)
    assert np.array_equal(
        bootstrap_means([[0.0, 1.0], difference], ["other", "q"], draws=200)[:, 1], alone[:, 0]
    )
    monkeypatch.setattr("reasoning_embedding.hrsa.uncertainty.resampling._CHUNK", 500)
    assert np.array_equal(bootstrap_means([difference], ["q"], draws=200), alone)
    assert not np.array_equal(bootstrap_means([difference], ["q"], draws=200, seed=1), alone)


def test_bootstrap_p_value_counts_draws_outside_the_margin():
    samples = np.concatenate([np.full(90, 0.1), np.full(9, 0.7)])
    found = equivalence_of_replicates(0.1, samples, 0.5, n=3)
    assert found.p_value == 10 / 100
    assert found.place == "open"
    assert equivalence_of_replicates(0.1, samples, 0.8, n=3).p_value == 1 / 100
    assert equivalence_of_replicates(0.1, samples, 0.05, n=3).place == "beyond"
