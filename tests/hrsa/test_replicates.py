"""Verdicts on a kind of training: lineages are the unit, the margin is named beforehand, fewer than four have no word."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.uncertainty.replicates import holm, replicated_effects


def design(
    random: np.random.Generator, lineages: int = 4, effect: float = 0.0, metrics: int = 1
) -> tuple[dict[str, list[list[float]]], dict[str, list[list[float]]]]:
    """CKA of two arms on the Fisher scale: what lineages share, lineages sd .1, contrastive seeds sd .14."""
    arms: tuple[dict[str, list[list[float]]], ...] = {}, {}
    for number in range(metrics):
        shared = 1.3 + 0.2 * random.standard_normal(lineages)
        for arm, shift in zip(arms, (0.0, effect), strict=True):
            own = shared + shift + 0.1 * random.standard_normal(lineages)
            seeds = own[:, None] + 0.14 * random.standard_normal((lineages, 2))
            arm[f"metric {number}"] = np.tanh(seeds).tolist()
    return arms[0], arms[1]


def test_the_test_is_scipys_over_lineage_means() -> None:
    placebo, variant = design(np.random.default_rng(0), 5, 0.3)
    [found] = replicated_effects(placebo, variant, primary="metric 0", margins={"metric 0": 0.2})
    a, b = (np.arctanh(arm["metric 0"]).mean(axis=1) for arm in (placebo, variant))
    assert found.p_difference == pytest.approx(scipy.stats.ttest_rel(b, a).pvalue)
    assert found.means == pytest.approx((np.tanh(a.mean()), np.tanh(b.mean())))
    apart = replicated_effects(placebo, variant, primary="metric 0", margins={"metric 0": 0.2}, paired=False)[
        0
    ]
    assert apart.p_difference == pytest.approx(scipy.stats.ttest_ind(b, a, equal_var=False).pvalue)


def test_fewer_than_four_lineages_have_no_word() -> None:
    placebo, variant = {"cka": [[0.95], [0.951], [0.949]]}, {"cka": [[0.5], [0.501], [0.499]]}
    [found] = replicated_effects(placebo, variant, primary="cka", margins={"cka": 0.1})
    assert found.word is None
    assert found.p_difference < 0.001
    placebo["cka"].append([0.95])
    variant["cka"].append([0.5])
    assert replicated_effects(placebo, variant, primary="cka", margins={"cka": 0.1})[0].word == "different"


def test_others_than_the_primary_metric_are_corrected() -> None:
    placebo, variant = design(np.random.default_rng(1), 6, 0.2, metrics=4)
    margins = dict.fromkeys(placebo, 0.1)
    first, *others = replicated_effects(placebo, variant, primary="metric 2", margins=margins)
    assert first.metric == "metric 2"
    assert first.p_difference == first.test.p_difference
    assert [one.p_difference for one in others] == pytest.approx(
        holm([one.test.p_difference for one in others])
    )
    assert all(one.p_difference >= one.test.p_difference for one in others)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"primary": "cka"}, "primary is cka"),
        ({"margins": {}}, "no margin for metric 0"),
        ({"scales": {"metric 0": "logit"}, "placebo": {"metric 0": [[-0.2], [0.4]]}}, "between 0 and 1"),
        ({"placebo": {"metric 0": [[], [0.4]]}}, "a lineage has no value"),
    ],
)
def test_designs_that_mean_nothing_are_refused(change: dict, message: str) -> None:
    placebo, variant = design(np.random.default_rng(0), 2)
    options = {
        "placebo": placebo,
        "variant": variant,
        "primary": "metric 0",
        "margins": {"metric 0": 0.1},
    } | change
    with pytest.raises(InputError, match=message):
        replicated_effects(options.pop("placebo"), options.pop("variant"), **options)


@pytest.mark.slow
def test_a_thousand_designs_of_four_lineages() -> None:
    """False verdicts in at most 7 %: "different" without an effect, "equivalent" at the margin; a planted one is found."""

    def share(word: str, effect: float, margin: float, lineages: int = 4) -> float:
        found = [
            replicated_effects(
                *design(np.random.default_rng([number, lineages]), lineages, effect),
                primary="metric 0",
                margins={"metric 0": margin},
            )[0].word
            for number in range(1000)
        ]
        return found.count(word) / 1000

    assert share("different", 0.0, 0.01) <= 0.07
    assert share("equivalent within margin", 0.3, 0.3) <= 0.07
    assert share("different", -0.8, 0.1) > 0.9
    assert share("equivalent within margin", 0.0, 0.8) > 0.9
