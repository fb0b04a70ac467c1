"""Intervals of a pair of layers: each against the slow way of getting it."""

from __future__ import annotations

import numpy as np
import pytest

from reasoning_embedding import config, hrsa
from reasoning_embedding.hrsa import intervals as module
from reasoning_embedding.hrsa.inference import interval, resampled_counts
from reasoning_embedding.hrsa.intervals import quick_intervals, recomputed_intervals
from reasoning_embedding.hrsa.layer import Layer
from reasoning_embedding.hrsa.levels import Measured, measure

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
        *("permutation_match", "h_inv", "h_inv_rescaled", "cka_debiased", "procrustes_distance", "gulp")
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
    assert made == {}
    assert len(said) == 1
    assert "h_inv" in said[0]
    assert "8 dimensions are more than 7" in said[0]


def test_too_few_texts_are_said(layers: tuple[Layer, Layer], found: Measured) -> None:
    made, said = recomputed_intervals(*layers, np.repeat(np.arange(2), 100), found, SETTINGS)
    assert made == {}
    assert all("no interval, 2 different documents" in text for text in said)
    assert len(said) == 5
