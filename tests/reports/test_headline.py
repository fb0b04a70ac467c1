"""What a page says first: three sentences that follow the numbers, and the figure behind them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_embedding.reports.comparison import compare_backbones
from reasoning_embedding.reports.headline import few_rows, headline
from reasoning_embedding.reports.hrsa_tables import level_table, reference_levels
from reasoning_embedding.reports.names import model_title, pair_title, run_title
from reasoning_embedding.reports.pages.experiment import build_experiment
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.records import Experiment, LevelValues, spread_out
from reasoning_embedding.reports.svg import effect_chart, effect_text
from tests.synthetic_experiment import write_experiment

VERDICTS = r"equivalent|significant|improves|proves|no effect"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("headline") / "synthetic")


@pytest.fixture(scope="module")
def experiment(folder: Path) -> Experiment:
    return read_experiment(folder)


def test_one_lineage_gives_differences_and_no_verdict(folder: Path, experiment: Experiment) -> None:
    first = headline(experiment, compare_backbones(folder))
    assert first.retrieval.startswith(
        "Training: mean nDCG@10 over 3 tasks rose from 0.031 to 0.564–0.574 in all 4 runs. "
        "After it these checkpoints differ on these tasks, in points of 100: SFT and base by −0.17; RLVR and base by +0.17"
    )
    assert "RLVR v base, seed 0 (embedders) 0.968 [0.956, 0.977]" in first.representation
    assert first.representation.endswith(
        "No placebo was grown, so how much of that any training would do is not known."
    )
    assert first.unknown.startswith(
        "Nothing here is about RLVR or SFT as a kind of training: each was grown once"
    )
    for _, text in first.sentences:
        assert not re.search(VERDICTS, text)


def test_the_sentences_follow_the_numbers(experiment: Experiment) -> None:
    fallen = tuple(
        replace(
            run,
            scores={
                step: replace(found, tasks=_at(found.tasks, 0.6 - step / 1000))
                for step, found in run.scores.items()
            },
        )
        for run in experiment.runs
    )
    assert (
        "fell from 0.600 to 0.450 in all 4 runs" in headline(replace(experiment, runs=fallen), None).retrieval
    )
    mixed = (fallen[0], *experiment.runs[1:])
    assert "changed from" in headline(replace(experiment, runs=mixed), None).retrieval
    nothing = replace(experiment, runs=(), pairs=(), trajectories=(), backbones=())
    assert headline(nothing, None).retrieval.startswith("Not known")
    assert headline(nothing, None).representation.startswith("Not known")
    assert headline(nothing, None).chart is None


def _at(tasks: dict[str, dict[str, float]], value: float) -> dict[str, dict[str, float]]:
    return {task: {**found, "ndcg_at_10": value} for task, found in tasks.items()}


def test_a_run_alone_speaks_of_its_steps(folder: Path) -> None:
    run = read_experiment(folder / "runs" / "rlvr")
    first = headline(run, None)
    assert "rose from 0.031 to" in first.retrieval
    tracked = replace(run, trajectories=read_experiment(folder).trajectories[:1])
    assert "at step 0" in headline(tracked, None).representation


def test_the_figure_shows_values_intervals_and_what_they_are_held_against(
    folder: Path, experiment: Experiment
) -> None:
    chart = headline(experiment, compare_backbones(folder)).chart
    assert chart is not None
    scores, cka, near = chart.panels
    assert [row.name for row in scores.rows] == ["SFT v base", "RLVR v base"]
    assert (scores.zero, scores.signed, cka.signed) == ("no difference", True, False)
    pair = next(pair for pair in experiment.pairs if pair.name == "emb-base-sft")
    [row] = [row for row in cka.rows if row.name.startswith("SFT")]
    assert (row.value, row.interval) == (pair.last["cka"], pair.intervals["cka"])
    assert row.levels == {"row shuffle": 0.31}
    assert [row.look for row in scores.rows] == [row.look for row in cka.rows]  # a model keeps its colour
    drawn = effect_chart(chart)
    for letter in "ABC":
        assert f'<b class="letter">{letter}</b>' in drawn
    assert effect_text(row, cka) == "0.479 [0.467, 0.488]"
    assert effect_text(row, cka) in drawn
    assert near.rows


def test_names_are_those_a_reader_knows(experiment: Experiment) -> None:
    assert [run_title(experiment, run.name) for run in experiment.runs] == [
        "base, seed 0",
        "SFT",
        "RLVR",
        "base, seed 1",
    ]
    assert model_title(experiment, "run:rlvr@first") == "RLVR, step 0"
    assert model_title(experiment, "owner/model@main") == "owner/model@main"
    names = {pair.name: pair_title(experiment, pair) for pair in experiment.pairs}
    assert names["lm-base-rlvr"] == "RLVR v base (language models)"
    twice = replace(experiment, pairs=(*experiment.pairs, replace(experiment.pairs[1], name="again")))
    assert pair_title(twice, twice.pairs[-1]) == "again"  # two pairs of one title keep their names


def test_reference_levels_and_few_rows_are_said(experiment: Experiment) -> None:
    level = LevelValues("fresh", {"cka": 0.4, "cka_debiased": 0.2}, {})
    pair = replace(
        experiment.pairs[3],
        levels={"random_initialisation": level},
        effective_rows=(900.0, 12.0, 900.0, 900.0, 900.0, 900.0),
        rows=1840,
    )
    assert reference_levels(pair, "cka") == {"row shuffle": 0.31, "fresh weights": 0.4}
    found = replace(experiment, pairs=(*experiment.pairs[:3], pair, *experiment.pairs[4:]))
    table = level_table(found)
    assert "fresh weights" in table.headings()
    assert "without any training" in table.caption
    assert few_rows(found) == ["RLVR v base, seed 0 (embedders): layer 1 (12 of 1,840)"]
    assert "attention sinks" in headline(found, None).unknown
    assert not few_rows(experiment)


def test_the_page_opens_with_the_answer_and_folds_the_rest(tmp_path: Path, no_drawing: None) -> None:
    folder = write_experiment(tmp_path / "synthetic")
    page = build_experiment(folder, lambda _: None).read_text(encoding="utf-8")
    body = page[page.index("<main>") :]
    order = [
        body.index(text)
        for text in ("Did retrieval change?", 'id="chart-answer"', 'id="table-scores"', "<details>")
    ]
    assert order == sorted(order)
    assert body.index('id="chart-training"') > body.index("<summary>Training curves")
    assert (folder / "report" / "figures" / "answer.png").exists()
    assert "Did retrieval change?" in (folder / "report" / "table.md").read_text()


def test_places_are_spread_out_with_both_ends() -> None:
    assert spread_out(5, 9) == [0, 1, 2, 3, 4]
    places = spread_out(2000, 120)
    assert (len(places), places[0], places[-1]) == (120, 0, 1999)


@pytest.mark.slow
def test_a_page_stays_small_whatever_the_run(tmp_path: Path, no_drawing: None) -> None:
    """100,000 logged steps, and 2,000 checkpoints scored and compared."""
    folder = write_experiment(tmp_path / "long", steps=150)
    run = folder / "runs" / "base"
    line = '{{"step": {0}, "loss": {1}, "accuracy": 0.5, "grad_norm": 1.25, "learning_rate": 0.0001}}\n'
    (run / "metrics.jsonl").write_text("".join(line.format(step, 3 / step) for step in range(1, 100_001)))
    scores = json.loads((run / "evaluation" / "step-000150" / "scores.json").read_text())
    for step in range(50, 100_001, 50):
        place = run / "evaluation" / f"step-{step:06d}"
        place.mkdir(exist_ok=True)
        (place / "scores.json").write_text(json.dumps(scores | {"step": step}))
    path = folder / "hrsa" / "realignment" / "base.json"
    track = json.loads(path.read_text())
    steps = len(track["steps"])
    for key in ("series", "series_mean", "intervals", "series_layers"):
        track[key] = {
            name: [values[i % steps] for i in range(2000)] for name, values in track.get(key, {}).items()
        }
    track["steps"] = list(range(0, 100_000, 50))
    path.write_text(json.dumps(track))
    page = build_experiment(folder, lambda _: None)
    assert page.stat().st_size < 2_000_000
