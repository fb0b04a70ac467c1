"""Bad input: a named error, or a warning in the result; never a silent number."""

from __future__ import annotations

import numpy as np
import pytest

from reasoning_embedding import hrsa
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.registry import METRICS, SPECTRUM, MetricSpec

RANDOM = np.random.RandomState(0)
X, Y = RANDOM.randn(100, 10), RANDOM.randn(100, 10)
LABELS = np.arange(100) % 2
EQUAL_WIDTHS = ("dimension_wise_correlation", "orthogonal_procrustes", "linear_probe_transfer")


def call(spec: MetricSpec, x: np.ndarray, y: np.ndarray) -> hrsa.Metric:
    if spec.level is SPECTRUM:
        return spec.function(x)
    return spec.function(x, y, LABELS) if spec.function is hrsa.linear_probe_transfer else spec.function(x, y)


def with_nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[7, 2] = np.nan
    return x


@pytest.mark.parametrize("name", METRICS)
def test_rows_that_are_not_numbers_are_named(name):
    with pytest.raises(InputError, match="the first is row 7"):
        call(METRICS[name], with_nan(X), Y)


@pytest.mark.parametrize("name", [name for name, spec in METRICS.items() if spec.level is not SPECTRUM])
def test_sides_that_do_not_match_are_refused(name):
    with pytest.raises(InputError, match="50 rows against 100"):
        call(METRICS[name], X[:50], Y)
    if name in EQUAL_WIDTHS:
        with pytest.raises(InputError, match="4 dimensions against 10"):
            call(METRICS[name], X[:, :4], Y)
    else:
        assert np.isfinite(float(call(METRICS[name], X[:, :4], Y)))


@pytest.mark.parametrize("name", [name for name in METRICS if name != "linear_probe_transfer"])
def test_rows_that_are_all_equal_are_refused(name):
    with pytest.raises(InputError, match=r"equal|constant|do not vary|distinct rows|fewer than 3"):
        call(METRICS[name], np.full_like(X, 3.3), Y)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: hrsa.orthogonal_procrustes(X[:, :1], X[:, :1]), "at least 2 dimensions"),
        (lambda: hrsa.orthogonal_procrustes(X, Y, components=11), "11 components asked for, 10 vary"),
        (lambda: hrsa.orthogonal_procrustes(X, Y, components=0), "0 components asked for"),
        (lambda: hrsa.linear_cka(X[0], X), "expected rows of shape"),
        (lambda: hrsa.debiased_linear_cka(X[:3], X[:3]), "at least 4 rows"),
        (lambda: hrsa.knn_overlap(X, X, k=100), "more than 100 distinct rows"),
        (lambda: hrsa.knn_overlap(X, X, k=0), "k = 0"),
        (lambda: hrsa.cknna(X, X, k=100), "got 100"),
        (lambda: hrsa.cknna(X, X, k=1), "k >= 2"),
        (lambda: hrsa.rbf_cka(X, X, width=0), "must be positive"),
        (lambda: hrsa.rbf_cka(np.repeat(X[:2], [90, 10], axis=0), X), "more than half of the rows are equal"),
        (lambda: hrsa.gulp(X, X, lam=0), "ridge must be positive"),
        (lambda: hrsa.rankme(X, "tau"), "unknown RankMe variant"),
        (lambda: hrsa.alpha_req(X, ranks=(12, 100)), "fewer than 3"),
        (lambda: hrsa.alpha_req(X, ranks=(0, 9)), "from 1"),
        (lambda: hrsa.isotropy(X[:, :1]), "at least 2 dimensions"),
        (lambda: hrsa.isotropy(np.eye(4)[:, :3] * [[1], [0], [0], [0]]), "fewer than two rows are not zero"),
        (lambda: hrsa.permutation_null(hrsa.linear_cka, X, Y, permutations=0), "at least one permutation"),
    ],
)
def test_what_a_metric_cannot_use_is_named(compute, message):
    with pytest.raises(InputError) as caught:
        compute()
    assert message in str(caught.value)


def with_constants(x: np.ndarray) -> np.ndarray:
    return np.hstack([x, np.full((100, 3), 7.7)])


@pytest.mark.parametrize(
    ("compute", "warning"),
    [
        (lambda: hrsa.linear_cka(X[:6], Y[:6]), "use debiased CKA"),
        (lambda: hrsa.orthogonal_procrustes(X[:45], Y[:45]), "36 fitted rows for 10 dimensions"),
        (lambda: hrsa.orthogonal_procrustes(X, Y, components=1), "1 components lie so oblique"),
        (
            lambda: hrsa.orthogonal_procrustes(with_constants(X), with_constants(Y)),
            "not determined in 3 of 13 directions",
        ),
        (lambda: hrsa.gulp(X[:8], Y[:8]), "8 rows for 10 dimensions"),
        (lambda: hrsa.procrustes_distance(X[:8], Y[:8]), "8 rows for 10 dimensions"),
        (lambda: hrsa.rankme(X[:8]), "8 rows for 10 dimensions"),
        (lambda: hrsa.participation_ratio(X[:8]), "8 rows for 10 dimensions"),
        (lambda: hrsa.isotropy(X[:8]), "8 rows for 10 dimensions"),
        (lambda: hrsa.isotropy(np.vstack([X, np.zeros(10)])), "1 rows are zero"),
        (lambda: hrsa.dimension_wise_correlation(with_constants(X), with_constants(Y)), "3 of 13 dimensions"),
        (lambda: hrsa.permutation_match(with_constants(X), with_constants(Y)), "3 of 13 dimensions"),
        (
            lambda: hrsa.linear_probe_transfer(with_constants(X), with_constants(Y), LABELS, probe="ridge"),
            "3 of 13 dimensions are constant",
        ),
        (lambda: hrsa.knn_overlap(np.vstack([X, X[:5]]), np.vstack([Y, Y[:5]])), "5 of 105 rows are dup"),
        (lambda: hrsa.cknna(np.vstack([X, X[:5]]), np.vstack([Y, Y[:5]])), "5 of 105 rows are duplicates"),
        (lambda: hrsa.knn_overlap(np.vstack([X, 2 * X]), np.vstack([Y, 3 * Y]), k=2), "ties with the next"),
        (
            lambda: hrsa.knn_overlap(np.vstack([X, np.zeros(10)]), np.vstack([Y, Y[:1] + 1])),
            "1 rows are zero",
        ),
    ],
)
def test_what_makes_a_number_less_than_it_seems_is_said(compute, warning):
    found = compute()
    assert np.isfinite(float(found))
    assert any(warning in text for text in found.warnings), found.warnings


def test_good_rows_give_no_warnings():
    random = np.random.RandomState(1)
    x = random.randn(400, 16)
    y = x + random.randn(400, 16)
    for name, spec in METRICS.items():
        if name not in ("linear_probe_transfer", "alpha_req"):
            found = spec.function(x) if spec.level is SPECTRUM else spec.function(x, y)
            assert not found.warnings, name
