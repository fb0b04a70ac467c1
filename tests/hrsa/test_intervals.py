"""Intervals of a pair of layers: each against the slow way of getting it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from reasoning_embedding import config, hrsa
from reasoning_embedding.hrsa.measure import LINEAR, Measured, measure
from reasoning_embedding.hrsa.metrics.cka import gaussian_kernel, rbf_cka
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.neighbours import cknna_of
from reasoning_embedding.hrsa.metrics.result import Interval
from reasoning_embedding.hrsa.moments import PairSums
from reasoning_embedding.hrsa.uncertainty import intervals as module
from reasoning_embedding.hrsa.uncertainty.intervals import (
    add_intervals,
    kernel_intervals,
    rbf_replicates,
)
from reasoning_embedding.hrsa.uncertainty.neighbour_halves import cknna_of_halves, knn_of_halves
from reasoning_embedding.hrsa.uncertainty.resampling import halves, interval, resampled_counts

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


def made_of(
    layers: tuple[Layer, Layer],
    found: Measured,
    settings: config.Measuring = SETTINGS,
    documents: np.ndarray = DOCUMENTS,
    *,
    every: bool = True,
) -> tuple[dict[str, Interval], dict[str, str]]:
    """Intervals by metric, and reasons why there is none."""
    copy = dataclasses.replace(found, metrics=dict(found.metrics))
    add_intervals(copy, *layers, documents, settings, every=every)
    assert copy.metrics.keys() == found.metrics.keys()
    metrics = copy.metrics.items()
    return (
        {name: metric.interval for name, metric in metrics if metric.interval is not None},
        {name: metric.no_interval for name, metric in metrics if metric.no_interval is not None},
    )


def test_quick_ones_hold_their_values(layers: tuple[Layer, Layer], found: Measured) -> None:
    made, reasons = made_of(layers, found, every=False)
    assert not reasons
    assert set(made) == {
        *("cka", "dimension_correlation", "procrustes_cosine", "procrustes_residual"),
        *("knn_jaccard@5", "knn_mutual@5", "cka_debiased", "cka_unit"),
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
    fast = made_of(layers, found, SETTINGS.model_copy(update={"seed": 3}), every=False)[0][
        "procrustes_residual"
    ]
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), rel=1e-9)
    other = made_of(layers, found, SETTINGS.model_copy(update={"seed": 4}), every=False)[0][
        "procrustes_residual"
    ]
    assert (other.low, other.high) != pytest.approx((slow.low, slow.high), rel=1e-9)


def test_recomputed_ones_are_those_of_the_library(layers: tuple[Layer, Layer], found: Measured) -> None:
    made, reasons = made_of(layers, found)
    assert reasons == {}
    assert set(made) - set(made_of(layers, found, every=False)[0]) == {
        *("permutation_match", "h_inv", "h_inv_rescaled", "procrustes_distance", "gulp"),
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


def test_values_of_more_rows_than_are_kept_have_a_reason_in_the_place_of_an_interval(
    layers: tuple[Layer, Layer],
) -> None:
    held = np.isin(DOCUMENTS, [3, 11, 20, 30])
    both = [[torch.from_numpy(np.concatenate([side.rows, side.rows[::-1]]))] for side in layers]
    sums = PairSums([(0, 0)])
    sums.add(both, torch.from_numpy(np.concatenate([held, held[::-1]])))
    found = measure(*layers, np.arange(200), DOCUMENTS, SETTINGS, sums=(sums.cross[0, 0], held))
    made, reasons = made_of(layers, found)
    assert set(reasons) == set(LINEAR) - {"procrustes_cosine"}
    assert all("400 rows, of which 200 are kept" in reason for reason in reasons.values())
    assert found.metrics.keys() == made.keys() | reasons.keys()
    for name, ends in made.items():
        assert ends.low < found.metrics[name].value < ends.high, name


def test_an_interval_is_of_the_split_that_its_value_is_of(layers: tuple[Layer, Layer]) -> None:
    """Whichever documents are held out, replicates hold out by the same seed as the value."""
    settings = SETTINGS.model_copy(update={"seed": 5})
    found = measure(*layers, np.arange(200), DOCUMENTS, settings)
    made = made_of(layers, found, settings)[0]["h_inv"]
    x, y = (side.rows for side in layers)
    values = [
        float(hrsa.orthogonal_procrustes(x[rows], y[rows], documents=DOCUMENTS[rows], seed=5))
        for times in resampled_counts(40, 20, 5)
        for rows in [np.repeat(np.arange(200), times[DOCUMENTS])]
    ]
    slow = interval(found.metrics["h_inv"].value, np.array(values))
    assert (made.low, made.high) == pytest.approx((slow.low, slow.high), rel=1e-9)


def test_wide_models_go_without_and_say_so(
    layers: tuple[Layer, Layer], found: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = made_of(layers, found, every=False)[0]
    none = SETTINGS.model_copy(update={"bootstrap": 0})
    assert made_of(layers, found, none)[0].keys() == quick.keys()
    monkeypatch.setattr(module, "WIDEST", 7)
    made, reasons = made_of(layers, found)
    assert set(made) - set(quick) == {"cka_rbf", "cknna@5"}  # kernels do not care how wide a model is
    assert "h_inv" in reasons
    assert set(reasons.values()) == {"8 dimensions are more than 7"}


def test_too_few_texts_are_said(layers: tuple[Layer, Layer], found: Measured) -> None:
    two = np.repeat(np.arange(2), 100)
    made, reasons = made_of(layers, found, documents=two)
    assert made.keys() == made_of(layers, found, documents=two, every=False)[0].keys()
    assert all("2 different documents" in reason for reason in reasons.values())
    assert {"cka_rbf", "cknna@5", "gulp", "cka_debiased", "h_inv"} <= reasons.keys()


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
    fast = cknna_of_halves(a.rows, b.rows, DOCUMENTS, [2, 5], 6, 1)
    for k in (2, 5):
        values = [
            [float(hrsa.cknna(a.rows[rows], b.rows[rows], k=k)) for rows in pair]
            for pair in halves(DOCUMENTS, 6, 1)
        ]
        assert fast[k] == pytest.approx(np.array(values), abs=1e-12)
    assert fast[5] != pytest.approx(cknna_of_halves(a.rows, b.rows, DOCUMENTS, [5], 6, 2)[5], abs=1e-6)


def test_neighbours_within_halves_are_those_found_anew(layers: tuple[Layer, Layer]) -> None:
    a, b = layers
    rows = np.arange(0, 200, 2)
    documents = DOCUMENTS[rows]
    fast = knn_of_halves(a, b, rows, documents, [5, 12, 20], 5, 1)
    # More than an eighth of all rows: half of the neighbours in half of the rows.
    for k, inside in ((5, 5), (12, 12), (20, 10)):
        for found, pair in zip(
            fast[k], halves(np.unique(documents, return_inverse=True)[1], 5, 1), strict=True
        ):
            slow = [hrsa.knn_overlap(a.rows[rows[half]], b.rows[rows[half]], inside) for half in pair]
            assert found[0] == pytest.approx([one.value for one in slow])
            assert found[1] == pytest.approx([one.mutual for one in slow])
    # A row all of whose near neighbours are of one long document, which may lie in the other half.
    directions = np.repeat(np.eye(2, 6), 120, axis=0)
    clustered = directions + 1e-3 * np.random.default_rng(0).standard_normal((240, 6))
    codes = np.repeat(np.arange(4), [1, 119, 1, 119])
    found = knn_of_halves(
        Layer(clustered), b := Layer(clustered * [1, 1, 2, 0.5, 1, 1]), np.arange(240), codes, [3], 5, 1
    )
    for values, pair in zip(found[3], [p for p in halves(codes, 5, 1) if min(map(len, p)) > 3], strict=True):
        slow = [hrsa.knn_overlap(clustered[half], b.rows[half], 3).value for half in pair]
        assert values[0] == pytest.approx(slow)


def test_documents_need_not_be_rows_and_rows_not_all(layers: tuple[Layer, Layer]) -> None:
    some = np.sort(np.random.default_rng(0).choice(200, size=90, replace=False))
    found = measure(*layers, some, DOCUMENTS, SETTINGS)
    made, reasons = made_of(layers, found)
    assert reasons == {}
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
        metric = rbf_cka(a, b) if name == "cka_rbf" else cknna_of(a, b, np.arange(96), 5)
        found = Measured({name: metric}, rows=np.arange(96))
        values.append(metric.value)
        ends.append(kernel_intervals(found, a, b, documents, few)[0][name])
    truth, spread = np.mean(values), np.std(values)
    assert np.mean([one.low < truth < one.high for one in ends]) >= 0.85
    width = np.mean([one.high - one.low for one in ends]) / (2 * 1.96)
    assert 0.75 * spread < width < 1.5 * spread
