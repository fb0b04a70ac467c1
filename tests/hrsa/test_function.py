"""Probes across models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from reasoning_embedding import hrsa
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.metrics.probe_transfer import STRENGTHS, stratified_split


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


@pytest.mark.parametrize("probe", ["logistic", "ridge"])
def test_accuracies_are_scikit_learns(probe):
    """Both probes refitted from scratch on the same split."""
    x, labels = classes(d=6)
    y = x + np.random.RandomState(1).randn(*x.shape)
    found = hrsa.linear_probe_transfer(x, y, labels, probe=probe, seed=3)
    assert f"{probe} probe" in found.definition
    train, dev, test = stratified_split(labels, 0.2, 0.2, 3)
    assert np.array_equal(found.rows, test)
    assert not set(train) & set(dev) | set(dev) & set(test)
    scaler = StandardScaler().fit(x[train])
    if probe == "logistic":
        probes = [LogisticRegression(C=c, max_iter=2000) for c in STRENGTHS]
    else:
        probes = [RidgeClassifier(alpha=len(train) / (100 * c)) for c in STRENGTHS]
    fitted = [p.fit(scaler.transform(x[train]), labels[train]) for p in probes]
    best = max(fitted, key=lambda p: p.score(scaler.transform(x[dev]), labels[dev]))
    assert found.own == pytest.approx(best.score(scaler.transform(x[test]), labels[test]), abs=0.013)
    assert found.value == pytest.approx(best.score(scaler.transform(y[test]), labels[test]), abs=0.013)
    assert found.correct.mean() == pytest.approx(found.value)


def test_a_ridge_probe_has_a_label_permutation_control_too():
    x, labels = classes()
    found = hrsa.linear_probe_transfer(x, x, labels, probe="ridge")
    assert (found.own, found.gap) == (found.value, 0)
    assert found.own > 0.97
    assert found.permuted < 0.5


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros(400), {}, "a probe needs two"),
        (np.zeros(10), {}, "10 labels for 400 rows"),
        ([None, *[0, 1] * 199, 0], {}, "1 of 400 rows have no label, the first is row 0"),
        (np.where(np.arange(400) == 3, np.nan, np.arange(400) % 2), {}, "the first is row 3"),
        (np.arange(400) % 2, {"probe": "tree"}, "unknown probe 'tree'"),
        (np.arange(400) % 2, {"test": 0.6, "dev": 0.5}, "no training rows"),
    ],
)
def test_bad_probes_are_refused(labels, options, message):
    x, _ = classes()
    with pytest.raises(InputError, match=message):
        hrsa.linear_probe_transfer(x, x, labels, **options)
