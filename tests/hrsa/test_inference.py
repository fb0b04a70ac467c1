"""How sure a number is: intervals over documents, nulls over permuted rows, seed bands, equivalence."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from reasoning_embedding import hrsa
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.registry import METRICS, SPECTRUM
from reasoning_embedding.hrsa.uncertainty.jackknife import debiased_cka_interval, leave_one_out
from reasoning_embedding.hrsa.uncertainty.resampling import (
    aligned_rows,
    bootstrap_similarity,
    halves,
    interval_of_halves,
    resampled_counts,
    shuffles,
)

PAIRS = [name for name, spec in METRICS.items() if spec.of_layers is not None]


def test_bootstrap_by_sufficient_statistics_equals_resampled_rows():
    random = np.random.RandomState(0)
    sizes = random.randint(1, 9, 40)
    documents = np.repeat(np.arange(40), sizes)
    x = random.randn(len(documents), 12) + 2
    y = x + random.randn(*x.shape)
    found = bootstrap_similarity(Layer(x), Layer(y), documents, replicates=60, seed=5)
    replicates = {"cka": [], "dimension_correlation": []}
    for counts in resampled_counts(40, 60, 5):
        rows = np.repeat(np.arange(len(documents)), counts[documents])
        replicates["cka"].append(float(hrsa.linear_cka(x[rows], y[rows])))
        replicates["dimension_correlation"].append(float(hrsa.dimension_wise_correlation(x[rows], y[rows])))
    estimates = {"cka": hrsa.linear_cka(x, y), "dimension_correlation": hrsa.dimension_wise_correlation(x, y)}
    for name, values in replicates.items():
        low, middle, high = np.percentile(values, [2.5, 50, 97.5])
        assert found[name].low == pytest.approx(float(estimates[name]) + low - middle, abs=1e-9)
        assert found[name].high == pytest.approx(float(estimates[name]) + high - middle, abs=1e-9)


def test_bootstrap_over_documents_is_wider_than_over_tokens():
    random = np.random.RandomState(0)
    documents = np.repeat(np.arange(50), 20)
    values = random.randn(50)[documents] + 0.1 * random.randn(1000)
    by_document = hrsa.bootstrap_mean(values, documents)
    by_row = hrsa.bootstrap_mean(values, np.arange(1000))
    assert by_document.high - by_document.low > 3 * (by_row.high - by_row.low)
    # The width is that of the mean of 50 independent values.
    assert by_document.high - by_document.low == pytest.approx(2 * 1.96 / np.sqrt(50), rel=0.25)


def test_bootstrap_covers_the_truth():
    covered = 0
    for seed in range(100):
        values = np.random.RandomState(seed).randn(60)
        found = hrsa.bootstrap_mean(values, np.arange(60), seed=seed)
        covered += found.low <= 0 <= found.high
    assert 86 <= covered <= 99


def test_permutation_null_separates_related_from_unrelated_rows():
    random = np.random.RandomState(0)
    x = random.randn(80, 6)
    related = hrsa.permutation_null(hrsa.linear_cka, x, x + random.randn(80, 6), permutations=99)
    unrelated = hrsa.permutation_null(hrsa.linear_cka, x, random.randn(80, 6), permutations=99)
    assert related.p == pytest.approx(0.01)
    assert related.value > related.mean + 5 * related.sd
    assert unrelated.p > 0.05
    with pytest.raises(InputError, match="at least one permutation"):
        hrsa.permutation_null(hrsa.linear_cka, x, x, permutations=0)


def test_shuffles_keep_documents_whole():
    documents = np.array([3, 3, 1, 1, 1, 7])
    for order in shuffles(documents, 20):
        assert sorted(order) == list(range(6))
        where = np.argsort(order)
        assert where[1] == where[0] + 1
        assert list(where[2:5] - where[2]) == [0, 1, 2]


def test_documents_shuffled_whole_keep_the_error_rate_that_single_rows_break():
    """Unrelated models, but tokens of a document are alike."""
    documents = np.repeat(np.arange(12), 6)
    by_row, by_document = [], []
    for seed in range(20):
        random = np.random.RandomState(seed)
        x, y = (random.randn(12, 4)[documents] + 0.1 * random.randn(72, 4) for _ in range(2))
        options = {"permutations": 39, "seed": seed}
        by_row.append(hrsa.permutation_null(hrsa.linear_cka, x, y, **options).p)
        by_document.append(hrsa.permutation_null(hrsa.linear_cka, x, y, documents=documents, **options).p)
    assert np.mean(np.array(by_row) < 0.05) > 0.9
    assert np.mean(np.array(by_document) < 0.05) < 0.2


def test_rows_keep_their_places_when_documents_of_other_lengths_change_theirs():
    documents = np.array([3, 1, 3, 1, 3, 7, 1, 9, 9, 8, 8])
    rows = aligned_rows(documents)
    # Lengths 3, 3, 1, 2 and 2: three quarters of the documents have two rows.
    assert rows.tolist() == [1, 3, 0, 2, 9, 10, 7, 8]
    for order in shuffles(documents[rows], 20):
        assert (np.arange(8) % 2 == order % 2).all()
    assert aligned_rows(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_a_null_of_unequal_documents_is_exact_and_shifting_them_along_is_not():
    """Two unrelated models, 36 texts of 2 rows and 4 of 40; the wrong way is the control that must fail."""
    documents = np.repeat(np.arange(40), [2] * 36 + [40] * 4)
    aligned, shifted = [], []
    for seed in range(60):
        random = np.random.RandomState(seed)
        x, y = (random.randn(40, 4)[documents] + 0.5 * random.randn(len(documents), 4) for _ in range(2))
        found = hrsa.permutation_null(hrsa.linear_cka, x, y, documents=documents, permutations=39, seed=seed)
        assert found.rows == 80
        aligned.append(found.p)
        value = float(hrsa.linear_cka(x, y))
        null = [float(hrsa.linear_cka(x, y[order])) for order in shuffles(documents, 39, seed)]
        shifted.append((1 + np.sum(np.array(null) >= value)) / 40)
    assert np.mean(np.array(aligned) <= 0.05) <= 0.15
    assert np.mean(np.array(shifted) <= 0.05) > 0.4


def test_debiased_cka_without_each_document_is_that_of_the_other_rows():
    random = np.random.RandomState(0)
    documents = np.repeat(np.arange(30), random.randint(1, 20, 30))
    x = random.randn(len(documents), 12) + 1
    y = x[:, :7] + random.randn(len(documents), 7)
    assert len(x) > 256  # more than a block
    found = leave_one_out(Layer(x), Layer(y), documents)
    rows = [np.ones(len(x), dtype=bool), *(documents != one for one in range(30))]
    slow = [float(hrsa.debiased_linear_cka(x[kept], y[kept])) for kept in rows]
    assert found == pytest.approx(np.array(slow), abs=1e-12)
    assert found[1:] != pytest.approx(np.roll(slow[1:], 1), abs=1e-6)
    ends = debiased_cka_interval(Layer(x), Layer(y), documents)
    z = np.arctanh(slow[1:])
    half = scipy.stats.t.ppf(0.975, 29) * np.sqrt(29 / 30 * ((z - z.mean()) ** 2).sum())
    assert (ends.low, ends.high) == pytest.approx(
        tuple(np.tanh(30 * np.arctanh(slow[0]) - 29 * z.mean() + np.array([-half, half])))
    )
    assert ends.replicates is not None
    assert np.arctanh(ends.replicates).std() * scipy.stats.t.ppf(0.975, 29) == pytest.approx(half, rel=0.2)


def test_two_halves_of_a_mean_have_its_standard_error():
    values = np.random.RandomState(0).randn(50)
    pairs = [(values[one].mean(), values[other].mean()) for one, other in halves(np.arange(50), 4000, 1)]
    found = interval_of_halves(values.mean(), pairs, 50)
    half = scipy.stats.t.ppf(0.975, 49) * values.std(ddof=1) / np.sqrt(50)
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.03 * half
    )


def related(n: int = 60, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    x = random.randn(n, d)
    return x, x + 0.5 * random.randn(n, d), np.repeat(np.arange(n // 2), 2)


@pytest.mark.parametrize("name", PAIRS)
def test_nulls_that_reuse_layers_equal_nulls_that_recompute_everything(name):
    spec, (x, y, documents) = METRICS[name], related()
    extra = {"documents": documents} if spec.takes_documents else {}
    slow = hrsa.permutation_null(
        lambda a, b: spec.function(a, b, **extra),
        *(x, y),
        permutations=30,
        documents=documents,
        distance=spec.distance,
    )
    found = hrsa.with_inference(spec.function, x, y, documents=documents, null=30, bootstrap=0)
    assert found.interval is None
    assert found.null is not None
    assert (found.null.mean, found.null.sd) == pytest.approx((slow.mean, slow.sd), rel=1e-7)
    assert found.null.p == slow.p == pytest.approx(1 / 31)
    assert found.chance is not None
    assert float(found) == pytest.approx(float(spec.function(x, y, **extra)))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_can_carry_an_interval(name):
    spec, (x, y, documents) = METRICS[name], related(n=120)
    sides = (x,) if spec.level is SPECTRUM else (x, y)
    options = {"ranks": (1, 6)} if name == "alpha_req" else {}
    if name == "linear_probe_transfer":
        options = {"labels": (x[:, 0] > 0).astype(int)}
    found = hrsa.with_inference(spec.function, *sides, documents=documents, null=3, bootstrap=20, **options)
    assert type(found) is type(spec.function(*sides, **options))
    assert found.interval is not None
    assert found.interval.low <= found.value <= found.interval.high
    assert found.interval.high > found.interval.low
    assert found.interval.replicates is not None
    assert len(found.interval.replicates) == 20
    assert (found.null is None) == (spec.level is SPECTRUM)


def test_intervals_from_sums_do_not_depend_on_the_order_of_documents():
    x, y, documents = related()
    order = np.random.RandomState(1).permutation(60)
    first = hrsa.with_inference(hrsa.linear_cka, x, y, documents=documents, null=0, bootstrap=50)
    mixed = (side[order] for side in (x, y))
    second = hrsa.with_inference(hrsa.linear_cka, *mixed, documents=documents[order], null=0, bootstrap=50)
    assert first.interval is not None
    assert second.interval is not None
    assert (first.interval.low, first.interval.high) == pytest.approx(
        (second.interval.low, second.interval.high)
    )


def test_ones_own_metric_and_few_documents():
    def distance(x: np.ndarray, y: np.ndarray) -> hrsa.Metric:
        return hrsa.Metric(
            value=-float(np.abs(x - y).mean()), n=len(x), definition="mean absolute difference"
        )

    x, y, _ = related()
    found = hrsa.with_inference(distance, x, y, documents=np.arange(60) % 6, null=19, bootstrap=30)
    assert found.null is not None
    assert found.null.p == 0.05
    assert found.chance == found.null.mean
    assert "6 documents" in found.warnings[0]
    with pytest.raises(InputError, match="3 different documents"):
        hrsa.with_inference(distance, x, y, documents=np.arange(60) % 3)
    with pytest.raises(InputError, match="59 of 60 rows"):
        hrsa.with_inference(distance, x, y, documents=np.arange(59))


@pytest.mark.parametrize(
    "name", ["debiased_linear_cka", "dimension_wise_correlation", "permutation_match", "knn_overlap"]
)
def test_intervals_cover_the_truth(name):
    """A jackknife, sums per document, documents drawn with replacement, and halves of the documents."""
    metric = METRICS[name].function

    def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.RandomState(seed)
        x = random.randn(n, 3) * [1, 1.5, 2]
        return x, 0.8 * x + random.randn(n, 3)

    # k-NN overlap has no value at any number of rows: its mean at this one is what intervals hold.
    many = name == "knn_overlap"
    samples = [draw(80, 1000 + seed) for seed in range(200)] if many else [draw(100_000, 0)]
    truth = float(np.mean([float(metric(*sample)) for sample in samples]))
    covered = 0
    for seed in range(1, 51):
        found = hrsa.with_inference(metric, *draw(80, seed), null=0, bootstrap=40, seed=seed).interval
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 41 <= covered <= 50


def test_seed_band_is_the_prediction_interval_of_one_more_run():
    random = np.random.RandomState(0)
    draws = random.randn(2000, 5)
    inside = np.mean([hrsa.seed_band(row[:4]).contains(row[4]) for row in draws])
    assert inside == pytest.approx(0.95, abs=0.015)
    band = hrsa.seed_band(draws[0, :3], level=0.9)
    half = scipy.stats.t.ppf(0.95, 2) * draws[0, :3].std(ddof=1) * np.sqrt(4 / 3)
    assert (band.low, band.high) == pytest.approx((band.mean - half, band.mean + half))
    assert "3 runs" in band.warnings[0]
    for values in ([0.9], [0.9, np.nan]):
        with pytest.raises(InputError, match="two or more finite numbers"):
            hrsa.seed_band(values)


@pytest.mark.parametrize("ratio", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_equivalence_of_runs_is_scipys_pair_of_t_tests(paired, ratio):
    random = np.random.RandomState(0)
    a, b = 5 + 0.3 * random.randn(6), 5.2 + 0.2 * random.randn(6)
    margin = 1.1 if ratio else 0.5
    found = hrsa.equivalence_of_runs(a, b, margin, paired=paired, ratio=ratio)
    x, y, m = (np.log(a), np.log(b), np.log(margin)) if ratio else (a, b, margin)

    def p(shift: float, alternative: str) -> float:
        if paired:
            return scipy.stats.ttest_1samp(y - x, shift, alternative=alternative).pvalue
        return scipy.stats.ttest_ind(y - shift, x, equal_var=False, alternative=alternative).pvalue

    assert found.p_lower == pytest.approx(p(-m, "greater"))
    assert found.p_upper == pytest.approx(p(m, "less"))
    assert found.p_value == max(found.p_lower, found.p_upper)
    assert found.p_difference == pytest.approx(p(0, "two-sided"))
    assert (found.low > found.margin[0] and found.high < found.margin[1]) == (found.p_value < 0.05)
    assert found.estimate == pytest.approx(np.exp((y - x).mean()) if ratio else (b - a).mean())


def test_bootstrap_equivalence_agrees_with_the_normal_limit():
    replicates = np.random.RandomState(0).randn(40_000) * 0.02 + 0.03
    found = hrsa.equivalence_of_replicates(0.03, replicates, margin=0.05)
    assert found.p_upper == pytest.approx(scipy.stats.norm.sf(1), abs=0.01)
    assert found.p_difference == pytest.approx(2 * scipy.stats.norm.sf(1.5), abs=0.01)
    assert found.verdict == "undecided"


def test_verdicts():
    tight = 0.001 * np.random.RandomState(0).randn(999)
    verdicts = [
        hrsa.equivalence_of_replicates(center, tight + center, margin=0.02).verdict
        for center in (0, 0.01, 0.02, 0.1)
    ]
    assert verdicts == ["equivalent within margin", "equivalent within margin", "different", "different"]
    assert hrsa.equivalence_of_replicates(0, 50 * tight, margin=0.02).verdict == "undecided"
    assert hrsa.equivalence_of_replicates(1.3, tight + 1.3, 1.25, ratio=True).verdict == "different"
    same = hrsa.equivalence_of_runs([1, 1, 1], [1, 1, 1], margin=0.1)
    assert (same.verdict, same.p_difference) == ("equivalent within margin", 1)


def test_difference_of_two_pairs_uses_matching_replicates():
    x, y, documents = related(n=200)
    z = y + 0.1 * np.random.RandomState(2).randn(*y.shape)
    options = {"documents": documents, "null": 0, "bootstrap": 300}
    near, far = (hrsa.with_inference(hrsa.linear_cka, x, side, **options) for side in (y, z))
    assert near.interval is not None
    assert far.interval is not None
    difference = near.interval.replicates - far.interval.replicates
    found = hrsa.equivalence_of_replicates(near.value - far.value, difference, margin=0.1)
    assert found.verdict == "equivalent within margin"
    assert np.std(difference) < 0.5 * np.std(near.interval.replicates)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hrsa.equivalence_of_runs([1, 2], [1, 2], margin=0), "no difference lies within"),
        (lambda: hrsa.equivalence_of_runs([1, 2], [1, 2], margin=0.9, ratio=True), "no ratio lies within"),
        (lambda: hrsa.equivalence_of_runs([1, -2], [1, 2], 1.1, ratio=True), "positive values"),
        (lambda: hrsa.equivalence_of_runs([1, 2, 3], [1, 2], 1, paired=True), "3 and 2 runs"),
        (lambda: hrsa.equivalence_of_runs([1, 2], [1, 2], 1, alpha=0.7), "a test's level"),
        (lambda: hrsa.equivalence_of_replicates(1, np.array([np.inf, 1]), 1), "1 not finite"),
    ],
)
def test_tests_that_mean_nothing_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
