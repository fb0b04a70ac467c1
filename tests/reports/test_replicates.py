"""Arms against their placebo: values by lineage from pairs and scores, tests over lineages, words only from four on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reasoning_embedding.config import Replicates
from reasoning_embedding.hrsa.trajectory import ProbeSummary
from reasoning_embedding.reports.comparison import compare_backbones
from reasoning_embedding.reports.comparison_tables import render, to_terminal
from reasoning_embedding.reports.grid import to_text
from reasoning_embedding.reports.headline import headline
from reasoning_embedding.reports.labels import replicate_label
from reasoning_embedding.reports.narrative import findings
from reasoning_embedding.reports.records import (
    AnalysedModel,
    AnalysedPair,
    Experiment,
    GrownBackbone,
    Run,
    Scores,
)
from reasoning_embedding.reports.replicates import (
    answers,
    chance_table,
    replicate_sentences,
    replicate_table,
    weight_table,
)
from reasoning_embedding.reports.svg import effect_chart

ARMS = {"rlvr": 0.80, "rlvr-placebo": 0.93, "sft": 0.90, "sft-placebo": 0.90}
NOISE = np.random.RandomState(0).randn(200)


def design(lineages: int = 4, seeds: int = 1) -> Replicates:
    return Replicates.model_validate(
        {
            "lineages": lineages,
            "seeds": seeds,
            "base": "base",
            "arms": ["rlvr", "sft"],
            "primary": {"arm": "rlvr", "metric": "cka", "margin": 0.2},
            "others": [
                {"of": "scores", "task": "w", "metric": "ndcg_at_10", "scale": "plain", "margin": 0.02},
                {"of": "embedders", "metric": "cka", "layer": 1, "margin": 0.2},
            ],
        }
    )


def pair(name: str, value: float) -> AnalysedPair:
    model = AnalysedModel("m", "bidirectional")
    return AnalysedPair(
        name=name,
        a=model,
        b=model,
        probe=ProbeSummary("world", 10, 100, "all", "h"),
        layers_a=("embedding", "norm"),
        layers_b=("embedding", "norm"),
        heatmaps={},
        diagonal={"cka": [0.5, value]},
        last={"cka": value},
        intervals={},
        chance={},
        definitions={},
        probe_transfer=None,
        spectrum=(),
        warnings=(),
    )


def experiment(folder: Path, plan: Replicates, *, own: bool = True) -> Experiment:
    """All arms of a plan, with values of its own for every lineage and seed; scores of eight queries a run."""
    noise, pairs, runs, grown = iter(np.tile(NOISE, 4)), [], [], []
    for lineage, seed in plan.cells:
        for arm, level in ({"base": 0.5} | ARMS).items():
            name = plan.run(arm, lineage, seed)
            backbone = "base" if arm == "base" and not own else f"{arm}-{lineage}"
            place = folder / name
            (place / "per_query").mkdir(parents=True)
            queries = {f"q{i}": level / 2 + 0.02 * next(noise) for i in range(8)}
            (place / "per_query" / "w.json").write_text(json.dumps({"scores": queries}))
            score = float(np.mean([*queries.values()]))
            scores = Scores(name, 5, {"w": {"ndcg_at_10": score}}, folder=place)
            runs.append(Run(name, backbone, lineage, (), {5: scores}))
            if arm == "base":
                continue
            pairs.append(pair(plan.pair("embedders", arm, lineage, seed), level + 0.01 * next(noise)))
            grown.append(GrownBackbone(f"{arm}-{lineage}", "rlvr", None, (), {}, (), 2.5 + lineage, 9))
    return Experiment(
        folder=folder,
        name="e",
        title="e",
        runs=tuple(runs),
        baselines={},
        backbones=tuple(grown),
        pairs=tuple(pairs),
        trajectories=(),
        seed_band=(),
        missing=(),
        replicates=plan,
    )


def test_the_test_is_that_of_scipy_over_lineage_means(tmp_path: Path) -> None:
    plan = design(seeds=2)
    found, missing = answers(experiment(tmp_path, plan))
    assert missing == []
    assert [answer.primary for answer in found] == [True, *[False] * 5]
    first = found[0]
    assert first.effect is not None
    x, y = (np.arctanh(np.array(arm)).mean(axis=1) for arm in (first.placebo, first.variant))
    assert x.shape == (4,)
    wanted = stats.ttest_rel(y, x)
    assert first.effect.test.p_difference == pytest.approx(wanted.pvalue, rel=1e-6)
    assert first.effect.test.estimate == pytest.approx((y - x).mean())
    assert first.effect.word == "different"
    # Holm over the five others: the least p is multiplied by five.
    others = sorted(answer.effect.test.p_difference for answer in found[1:] if answer.effect)
    corrected = sorted(answer.effect.p_difference for answer in found[1:] if answer.effect)
    assert corrected[0] == pytest.approx(min(1, 5 * others[0]))
    sft = next(answer for answer in found if answer.question.name == "sft: embedders, cka, layer last")
    assert sft.effect is not None
    assert sft.effect.word == "equivalent within margin"
    layer = next(answer for answer in found if answer.question.name == "rlvr: embedders, cka, layer 1")
    assert layer.variant == first.variant  # the last layer's, by its number


def test_a_given_base_is_tested_by_welch(tmp_path: Path) -> None:
    found, _ = answers(experiment(tmp_path, design(), own=False))
    assert found[0].effect is not None
    x, y = (np.arctanh(np.array(arm)).mean(axis=1) for arm in (found[0].placebo, found[0].variant))
    assert found[0].effect.test.p_difference == pytest.approx(
        stats.ttest_ind(y, x, equal_var=False).pvalue, rel=1e-6
    )


def test_below_four_lineages_there_is_no_word(tmp_path: Path) -> None:
    for lineages in (1, 3):
        few = experiment(tmp_path / str(lineages), design(lineages))
        text = "\n".join(replicate_sentences(few))
        assert "These checkpoints of RLVR and its placebo differ by −0.1" in text
        assert f"on these texts ({lineages} lineage" in text
        for word in ("moves", "different", "equivalent", "stays open"):
            assert word not in text
        grid = replicate_table(few)
        assert {row[-1].text for row in grid.rows} == {"–"}
    four = "\n".join(replicate_sentences(experiment(tmp_path / "4", design())))
    assert "RLVR moves the embedder's representation more than its placebo does" in four


def test_three_sources_of_chance_are_kept_apart(tmp_path: Path) -> None:
    plan = design(seeds=2)
    one = experiment(tmp_path / "two", plan)
    scores = next(answer for answer in answers(one)[0] if answer.question.name.startswith("rlvr: scores"))
    assert scores.queries is not None
    error, count = scores.queries
    runs = {run.name: run for run in one.runs}
    table = np.array(
        [
            [
                [
                    *json.loads((runs[plan.run(arm, *cell)].last.folder / "per_query/w.json").read_text())[
                        "scores"
                    ].values()
                ]
                for cell in plan.cells
            ]
            for arm in ("rlvr-placebo", "rlvr")
        ]
    )  # arm, cell, query
    of_query = (table[1] - table[0]).mean(axis=0)
    assert (error, count) == (pytest.approx(of_query.std(ddof=1) / np.sqrt(8)), 8)
    cells = (table[1] - table[0]).mean(axis=1).reshape(4, 2)
    assert scores.seeds == pytest.approx(np.sqrt(cells.var(axis=1, ddof=1).mean()))
    assert scores.spread == pytest.approx(cells.mean(axis=1).std(ddof=1))
    shown = to_text(chance_table(one), 200)
    assert "8 queries" in shown
    single = experiment(tmp_path / "one", design())
    assert answers(single)[0][0].seeds is None
    assert "one seed each" in to_text(chance_table(single), 200)


def test_what_is_missing_is_said_and_nothing_is_made_up(tmp_path: Path) -> None:
    whole = experiment(tmp_path, design())
    lacking = replace(whole, pairs=tuple(p for p in whole.pairs if p.name != "embedders-base-sft-placebo-3"))
    found, missing = answers(lacking)
    assert missing == [
        "sft: embedders, cka, layer last: not every lineage of sft-placebo was measured",
        "sft: embedders, cka, layer 1: not every lineage of sft-placebo was measured",
    ]
    assert len(found) == 4
    # A value that its scale does not know is not tested, and does not stop the others.
    perfect = [
        replace(p, diagonal={"cka": [0.5, 1.0]}) if p.name.endswith("sft-2") else p for p in whole.pairs
    ]
    found, _ = answers(replace(whole, pairs=tuple(perfect)))
    refused = next(answer for answer in found if answer.question.name == "sft: embedders, cka, layer 1")
    assert refused.effect is None
    assert "lie not all between -1 and 1" in refused.untested
    assert sum(answer.effect is not None for answer in found) == 5
    # Without its primary question a design says nothing.
    perfect = [replace(p, last={"cka": 1.0}) if p.name.endswith("rlvr-2") else p for p in whole.pairs]
    found, _ = answers(replace(whole, pairs=tuple(perfect)))
    assert all(answer.effect is None for answer in found)
    assert found[1].untested == "the primary question cannot be tested, so nothing is"


def test_tables_and_page_show_arms_by_name(tmp_path: Path) -> None:
    one = experiment(tmp_path, design())
    text = to_text(replicate_table(one), 250)
    assert all(part in text for part in ("RLVR", "primary", "in Fisher's z"))
    weights = to_text(weight_table(one), 200)
    assert all(part in weights for part in ("placebo of RLVR", "3.500 to 6.500", "9, 9, 9, 9"))
    assert findings(one)[0][0] == "Arms against their placebo"
    assert replicate_label("rlvr-placebo-2-seed1") == "placebo of RLVR, lineage 2, seed 1"
    none = replace(one, replicates=None)
    assert replicate_table(none).rows == weight_table(none).rows == chance_table(none).rows == ()


def test_the_score_table_tells_lineages_seeds_and_queries_apart(tmp_path: Path) -> None:
    plan = design(seeds=2)
    write_scores(tmp_path, plan)
    table = compare_backbones(tmp_path)
    assert [pair.label for pair in table.pairs][:2] == ["rlvr v base", "sft v base"]
    pair = table.pairs[0]
    assert (pair.lineages, pair.seeds) == (4, (8, 8))
    entry = pair.entry("w")
    assert entry is not None
    assert entry.lineages is not None
    assert entry.seeds is not None
    values = {
        arm: np.array([100 * score_of(arm, lineage, seed) for lineage, seed in plan.cells]).reshape(4, 2)
        for arm in ("base", "rlvr")
    }
    means = {arm: value.mean(axis=1) for arm, value in values.items()}
    wanted = stats.ttest_rel(means["rlvr"], means["base"])
    assert entry.lineages.p_difference == pytest.approx(wanted.pvalue, rel=1e-6)
    assert (entry.lineages.method, entry.lineages.n) == ("paired t", 4)
    apart = values["rlvr"] - values["base"]
    error = np.sqrt(apart.var(axis=1, ddof=1).mean() / 8)
    interval = stats.t(df=4, loc=apart.mean(), scale=error).interval(0.95)
    assert entry.seeds.confidence == pytest.approx(interval, rel=1e-6)
    assert "over lineages" in to_terminal(table, 300)
    assert "lineages_p" in render(table, "csv")


def test_scores_of_three_lineages_get_no_verdict(tmp_path: Path) -> None:
    write_scores(tmp_path, design(3))
    table = compare_backbones(tmp_path)
    assert {entry.verdict for pair in table.pairs for entry in pair.entries} == {""}
    assert "no verdict below 4" in to_terminal(table, 300)


def score_of(arm: str, lineage: int, seed: int) -> float:
    level = {"base": 0.5, "rlvr": 0.55}.get(arm, 0.52)
    return level + 0.01 * NOISE[hash_of(arm) + 2 * lineage + seed]


def hash_of(arm: str) -> int:
    return 20 * ["base", "rlvr", "rlvr-placebo", "sft", "sft-placebo"].index(arm)


def write_scores(folder: Path, plan: Replicates) -> None:
    """The folder of an experiment of which only scores are left."""
    runs = []
    for lineage, seed in plan.cells:
        for arm in ("base", "rlvr", "sft", "rlvr-placebo", "sft-placebo"):
            name, score = plan.run(arm, lineage, seed), score_of(arm, lineage, seed)
            runs.append({"name": name, "backbone": f"{arm}-{lineage}", "seed": 2 * lineage + seed})
            place = folder / "runs" / name / "evaluation" / "step-000005"
            place.mkdir(parents=True)
            entry = {"task": "w", "type": "Retrieval", "main_score": score, "ndcg_at_10": score}
            record = {"model": name, "step": 5, "tasks": [entry], "failed": [], "settings": {}, "suites": {}}
            (place / "scores.json").write_text(json.dumps(record))
    config = {"kind": "experiment", "name": "e", "runs": runs, "replicates": plan.model_dump(mode="json")}
    (folder / "config.resolved.json").write_text(json.dumps(config))


def test_the_page_answers_what_was_asked_and_draws_each_arm_less_its_placebo(tmp_path: Path) -> None:
    found = experiment(tmp_path, design())
    first = headline(found, None)
    told = dict(
        zip((answer.question.name for answer in answers(found)[0]), replicate_sentences(found), strict=True)
    )
    assert told["rlvr: scores, ndcg_at_10, w"] in first.retrieval
    assert first.representation.startswith(told["rlvr: embedders, cka, layer last"])
    assert "models, data and texts of another kind" in first.unknown
    chart = first.chart
    assert chart is not None
    assert len(chart.panels) == 3  # a measure each
    for panel in chart.panels:
        assert [row.name for row in panel.rows] == ["RLVR", "SFT"]
        assert panel.zero == "no difference"
        assert all(row.interval for row in panel.rows)
    assert chart.panels[0].band == (-0.2, 0.2)
    effect = answers(found)[0][0].effect
    assert effect is not None
    assert chart.panels[0].rows[0].value == effect.test.estimate
    assert "RLVR" in effect_chart(chart)


def test_below_four_lineages_the_page_says_what_differs_and_no_word(tmp_path: Path) -> None:
    first = headline(experiment(tmp_path, design(2)), None)
    assert first.representation.startswith("These checkpoints of RLVR and its placebo differ by")
    assert "open after 2 lineages" in first.unknown.lower()
    assert first.chart is not None
    assert first.chart.panels[0].band is None  # a margin belongs to a test
