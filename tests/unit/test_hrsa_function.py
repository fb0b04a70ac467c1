"""Probes across models, and how sure a number is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from reasoning_embedding import hrsa
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.inference import bootstrap_similarity, resampled_counts
from reasoning_embedding.hrsa.layer import Layer


def classes(n: int = 400, d: int = 16, count: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    labels = np.arange(n) % count
    return 3 * random.randn(count, d)[labels] + random.randn(n, d), labels


def test_a_probe_reads_its_own_model_and_a_noisy_copy_but_not_a_rotated_one():
    x, labels = classes()
    near = hrsa.linear_probe_transfer(x, x + 0.1 * np.random.RandomState(1).randn(*x.shape), labels)
    turned = hrsa.linear_probe_transfer(x, x @ ortho_group.rvs(16, random_state=0), labels)
    assert near.own > 0.97
    assert near.value > 0.95
    assert near.gap == pytest.approx(near.own - near.value)
    assert turned.own == near.own
    assert turned.value < 0.7
    assert near.chance == pytest.approx(0.25)
    assert near.permuted < 0.5
    assert (near.n, near.classes) == (80, 4)


def test_labels_that_mean_nothing_give_chance():
    x, labels = classes()
    shuffled = np.random.RandomState(3).permutation(labels)
    assert hrsa.linear_probe_transfer(x, x, shuffled).own < 0.45


def test_a_class_with_too_few_texts_is_left_out_by_name():
    x, labels = classes()
    names = np.array(["a", "b", "c", "d"], dtype=object)[labels]
    names[:2] = "rare"
    found = hrsa.linear_probe_transfer(x, x, names)
    assert found.classes == 4
    assert "left out: rare" in found.warnings[0]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros(400), {}, "a probe needs two"),
        (np.zeros(10), {}, "10 labels for 400 rows"),
        (np.arange(400) % 2, {"test": 0.6, "dev": 0.5}, "no training rows"),
    ],
)
def test_bad_probes_are_refused(labels, options, message):
    x, _ = classes()
    with pytest.raises(InputError, match=message):
        hrsa.linear_probe_transfer(x, x, labels, **options)


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
