"""Intervals of a pair of layers: each against the slow way of getting it."""

from __future__ import annotations

import numpy as np
import pytest

from reasoning_embedding import config, hrsa
from reasoning_embedding.hrsa.measure import Measured, measure
from reasoning_embedding.hrsa.metrics.kernels import cknna_of, gaussian_kernel, rbf_cka_of
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.uncertainty.intervals import quick_intervals, recomputed_intervals
from reasoning_embedding.hrsa.uncertainty.kernel_intervals import (
    cknna_replicates,
    kernel_intervals,
    rbf_replicates,
)
from reasoning_embedding.hrsa.uncertainty.resampling import halves, interval, resampled_counts
from reasoning_embedding.hrsa.uncertainty.with_inference import intervals as module

SETTINGS = config.Analysis.model_validate({"probe": {"kind": "world"}, "k": [5], "bootstrap": 20})
DOCUMENTS = np.repeat(np.arange(40), 5)


@pytest.fixture(scope="module")
def layers() -> tuple[Layer, Layer]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8))
    return Layer(x), Layer(x @ rng.standard_normal((8, 8)) + rng.standard_normal((200, 8)))


@pytest.fixture(scope="module")
def found(layers: tuple[Layer, Layer]) -> Measured:
    return measure(*layers, np.arange(200), DOCUMENTS, SETTINGS)


def test_quick_ones_hold_their_values(layers: tuple[Layer, Layer], found: Measured) -> None:
    made = quick_intervals(*layers, DOCUMENTS, found, 0)
    assert set(made) == {
        *("cka", "dimension_correlation", "procrustes_cosine", "procrustes_residual"),
        *("knn_jaccard@5", "knn_mutual@5"),
    }
    for name, ends in made.items():
        assert ends.low < found.metrics[name].value < ends.high, name


def test_the_residuals_interval_is_that_of_resampled_rows(
    layers: tuple[Layer, Layer], found: Measured
) -> None:
    fit = found.procrustes
    assert fit is not None
    fitted = np.setdiff1d(np.arange(200), fit.heldout)
    x, y = (side.rows - side.rows[fitted].mean(axis=0) for side in layers)
    names = np.unique(DOCUMENTS[fit.heldout])
    values = []
    for times in resampled_counts(len(names), 200, 3):
        rows = np.concatenate(
            [
                np.flatnonzero(name == DOCUMENTS)
                for name, count in zip(names, times, strict=True)
                for _ in range(count)
            ]
        )
        values.append(np.square(x[rows] @ fit.map - y[rows]).sum() / np.square(y[rows]).sum())
    slow = interval(fit.residual, np.array(values))
    fast = quick_intervals(*layers, DOCUMENTS, found, 3)["procrustes_residual"]
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), rel=1e-9)
    other = quick_intervals(*layers, DOCUMENTS, found, 4)["procrustes_residual"]
    assert (other.low, other.high) != pytest.approx((slow.low, slow.high), rel=1e-9)


def test_recomputed_ones_are_those_of_the_library(layers: tuple[Layer, Layer], found: Measured) -> None:
    made, said = recomputed_intervals(*layers, DOCUMENTS, found, SETTINGS)
    assert said == []
    assert set(made) == {
        *("permutation_match", "h_inv", "h_inv_rescaled", "cka_debiased", "procrustes_distance", "gulp"),
        *("cka_rbf", "cknna@5"),
    }
    x, y = (side.rows for side in layers)
    for name, metric in (("h_inv", hrsa.orthogonal_procrustes), ("gulp", hrsa.gulp)):
        theirs = hrsa.with_inference(metric, x, y, documents=DOCUMENTS, null=0, bootstrap=20).interval
        assert theirs is not None
        assert (made[name].low, made[name].high) == pytest.approx((theirs.low, theirs.high))
        assert theirs.low < found.metrics[name].value < theirs.high
    floor = hrsa.h_inv_floor(8)
    assert made["h_inv_rescaled"].low == pytest.approx((made["h_inv"].low - floor) / (1 - floor))


def test_intervals_move_onto_values_of_more_rows(layers: tuple[Layer, Layer], found: Measured) -> None:
    kept = found.metrics["gulp"]
    more = Measured({"gulp": hrsa.Metric(value=kept.value + 1, n=999, definition="")})
    ends = [recomputed_intervals(*layers, DOCUMENTS, one, SETTINGS)[0]["gulp"] for one in (found, more)]
    assert ends[1].low - ends[0].low == pytest.approx(1)
    assert ends[1].high - ends[0].high == pytest.approx(1)


def test_wide_models_go_without_and_say_so(
    layers: tuple[Layer, Layer], found: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = SETTINGS.model_copy(update={"bootstrap": 0})
    assert recomputed_intervals(*layers, DOCUMENTS, found, none) == ({}, [])
    monkeypatch.setattr(module, "WIDEST", 7)
    made, said = recomputed_intervals(*layers, DOCUMENTS, found, SETTINGS)
    assert set(made) == {"cka_rbf", "cknna@5"}  # kernels do not care how wide a model is
    assert len(said) == 1
    assert "h_inv" in said[0]
    assert "8 dimensions are more than 7" in said[0]


def test_too_few_texts_are_said(layers: tuple[Layer, Layer], found: Measured) -> None:
    made, said = recomputed_intervals(*layers, np.repeat(np.arange(2), 100), found, SETTINGS)
    assert made == {}
    assert all("no interval, 2 different documents" in text for text in said)
    assert len(said) == 6


def test_replicates_within_a_kernel_are_those_of_resampled_rows(layers: tuple[Layer, Layer]) -> None:
    a, b = layers
    kernels = [gaussian_kernel(side) for side in layers]
    slow = []
    for times in resampled_counts(40, 6, 1):
        rows = np.repeat(np.arange(200), times[DOCUMENTS])
        centring = np.eye(len(rows)) - 1 / len(rows)
        k, m = (centring @ kernel[np.ix_(rows, rows)] @ centring for kernel in kernels)
        slow.append((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    assert rbf_replicates(a, b, DOCUMENTS, 6, 1) == pytest.approx(np.array(slow), abs=1e-12)
    assert rbf_replicates(a, b, DOCUMENTS, 6, 2) != pytest.approx(np.array(slow), abs=1e-6)
    fast = cknna_replicates(a.rows, b.rows, DOCUMENTS, [2, 5], 6, 1)
    for k in (2, 5):
        values = [float(hrsa.cknna(a.rows[rows], b.rows[rows], k=k)) for rows in halves(DOCUMENTS, 6, 1)]
        assert fast[k] == pytest.approx(np.array(values), abs=1e-12)
    assert fast[5] != pytest.approx(cknna_replicates(a.rows, b.rows, DOCUMENTS, [5], 6, 2)[5], abs=1e-6)


def test_documents_need_not_be_rows_and_rows_not_all(layers: tuple[Layer, Layer]) -> None:
    some = np.sort(np.random.default_rng(0).choice(200, size=90, replace=False))
    found = measure(*layers, some, DOCUMENTS, SETTINGS)
    made, said = recomputed_intervals(*layers, DOCUMENTS, found, SETTINGS)
    assert said == []
    for name in ("cka_rbf", "cknna@5"):
        assert made[name].low < found.metrics[name].value < made[name].high
        assert found.metrics[name].n == 90


@pytest.mark.parametrize("name", ["cka_rbf", "cknna@5"])
def test_intervals_from_kernels_cover_the_mean_of_other_texts(name: str) -> None:
    """Of 40 samples of 24 texts, about 95 % of the intervals hold the mean over all samples."""
    mix = np.random.default_rng(99).standard_normal((6, 6))
    documents = np.repeat(np.arange(24), 4)
    few = SETTINGS.model_copy(update={"bootstrap": 40})
    values, ends = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = np.repeat(rng.standard_normal((24, 6)), 4, axis=0) + rng.standard_normal((96, 6))
        a, b = Layer(x), Layer(x @ mix + 1.5 * rng.standard_normal((96, 6)))
        metric = rbf_cka_of(a, b) if name == "cka_rbf" else cknna_of(a, b, np.arange(96), 5)
        found = Measured({name: metric}, rows=np.arange(96))
        values.append(metric.value)
        ends.append(kernel_intervals(a, b, documents, found, few)[0][name])
    truth, spread = np.mean(values), np.std(values)
    assert np.mean([one.low < truth < one.high for one in ends]) >= 0.85
    width = np.mean([one.high - one.low for one in ends]) / (2 * 1.96)
    assert 0.75 * spread < width < 1.5 * spread
