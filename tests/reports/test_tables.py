"""Tables, verdicts and sentences: the numbers shown are the numbers of the files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_embedding import hrsa
from reasoning_embedding.reports import summary_table
from reasoning_embedding.reports.charts import thin
from reasoning_embedding.reports.grid import Cell, Grid, TableColumn, to_html, to_markdown, to_text
from reasoning_embedding.reports.hrsa_charts import seed_level
from reasoning_embedding.reports.hrsa_tables import hrsa_table
from reasoning_embedding.reports.labels import metric_label, number, signed
from reasoning_embedding.reports.narrative import findings
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.records import Band, Experiment, Scores, band_place
from reasoning_embedding.reports.tables import gate_table, score_table
from tests.synthetic_experiment import write_experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return read_experiment(write_experiment(tmp_path_factory.mktemp("tables") / "synthetic"))


def row(grid: Grid, name: str) -> list[str]:
    return next([cell.text for cell in cells] for cells in grid.rows if cells[0].text == name)


def test_scores_before_after_and_change(experiment: Experiment) -> None:
    grid = score_table(experiment)
    assert grid.headings()[:4] == [
        "model",
        "world-heldout · step 0",
        "world-heldout · last",
        "world-heldout · change",
    ]
    mean = [(0.031 + 0.012 + 0.05) / 3, (0.981 + 0.41 + 0.301) / 3]
    expected = ["0.031", "0.981", "+0.950", "0.012", "0.410", "+0.398", "0.050", "0.301", "+0.251"]
    expected += [f"{mean[0]:.3f}", f"{mean[1]:.3f}", f"{mean[1] - mean[0]:+.3f}"]
    assert row(grid, "base, seed 0") == ["base, seed 0", *expected]
    assert row(grid, "bm25")[1:4] == ["–", "0.702", "–"]
    best = [cells[0].text for cells in grid.rows if cells[8].mark == "best"]
    assert best == ["bm25"]  # cranfield: 0.349 against 0.301


def test_gates_are_held_against_their_thresholds(experiment: Experiment) -> None:
    rows = {(cells[0].text, cells[1].text): cells for cells in gate_table(experiment).rows}
    assert [cell.mark for cell in rows["base", "direct"][2:]] == ["pass", "pass", "pass"]
    assert [cell.mark for cell in rows["rlvr", "direct"][2:]] == ["miss", "pass", "pass"]  # 0.955 < 0.97
    assert [cell.mark for cell in rows["rlvr", "worked"][2:]] == ["", "", ""]


def test_hrsa_table_leads_with_the_seed_band(experiment: Experiment) -> None:
    grid = hrsa_table(experiment)
    assert grid.rows[0][0].text == "base, seed 1 v base, seed 0 (embedders) (seed band)"
    assert grid.reference_rows == {0}
    headings = grid.headings()
    cka = grid.rows[0][headings.index("Linear CKA")]
    assert (cka.text, cka.note, cka.extra) == ("0.967", "[0.955, 0.976]", "row shuffle 0.310")
    assert "Probe set: world, 192 texts, 1840 rows, all tokens." in grid.caption


def test_a_pair_is_placed_by_its_interval_to_the_band(experiment: Experiment) -> None:
    band = experiment.band
    assert band is not None
    pairs = {pair.name: pair for pair in experiment.pairs}
    same, seeds = pairs["emb-base-rlvr"], pairs["base-emb-seeds"]

    def word(value: float, half: float, metric: str = "cka", floor: Band = band) -> str | None:
        ends = (value - half, value + half)
        return band_place(replace(same, last={metric: value}, intervals={metric: ends}), floor, metric)

    # The band is [0.955, 0.976]: its middle lies inside with a sharp estimate, with a blunt one it does not.
    assert [word(0.9655, half) for half in (0.005, 0.02)] == ["inside", "across"]
    assert [word(value, 0.005) for value in (0.976, 0.99, 0.9, 0.479)] == [
        *("across", "closer", "farther", "farther")
    ]
    # A residual is a distance: smaller is closer.
    ends = {"procrustes_residual": (0.08, 0.12)}
    floor = Band((replace(seeds, last={"procrustes_residual": 0.1}, intervals=ends),))
    assert [word(value, 0.005, "procrustes_residual", floor) for value in (0.01, 0.1, 0.5)] == [
        *("closer", "inside", "farther")
    ]
    assert band_place(same, band, "h_inv") is None  # neither has an interval of it
    assert band_place(replace(same, intervals={}), band, "cka") is None
    assert band_place(seeds, band, "cka") is None
    # Causal language models are not held against embedders, nor pairs on other texts.
    assert band_place(pairs["lm-base-rlvr"], band, "cka") is None
    assert band_place(replace(same, probe=replace(same.probe, hash="other")), band, "cka") is None
    assert band_place(replace(same, probe=replace(same.probe, tokens="mean")), band, "cka") is None
    assert band_place(same, None, "cka") is None


def of_seeds(experiment: Experiment, **ckas: float) -> Experiment:
    """The experiment with a band of several pairs: copies of the pair of seeds, each with a CKA of its own."""
    [seeds] = experiment.band.pairs if experiment.band else []
    more = [replace(seeds, name=name, last=seeds.last | {"cka": cka}) for name, cka in ckas.items()]
    kept = [pair for pair in experiment.pairs if pair is not seeds]
    return replace(experiment, pairs=(*kept, *more), seed_band=tuple(ckas))


def test_several_pairs_of_seeds_make_one_band(experiment: Experiment) -> None:
    values = {"s0": 0.966, "s1": 0.969, "s2": 0.961, "s3": 0.972}
    several = of_seeds(experiment, **values)
    band = several.band
    assert band is not None
    expected = hrsa.seed_band(list(values.values()))
    assert band.ends("cka") == (expected.low, expected.high)
    assert band.value("cka") == pytest.approx(expected.mean)
    assert band.ends("h_inv") is not None  # of values, so no interval of a pair is needed
    assert band.ends("unknown") is None
    grid = hrsa_table(several)
    assert [cells[0].text for cells in grid.rows[:5]] == [
        "seed band",
        *(f"{name} (seed band)" for name in values),
    ]
    assert grid.reference_rows == set(range(5))
    cka = grid.rows[0][grid.headings().index("Linear CKA")]
    assert (cka.text, cka.note) == ("0.967", f"[{expected.low:.3f}, {expected.high:.3f}]")
    assert "from 4 pairs whose members differ in nothing but the seed (s0, s1, s2, s3)" in grid.caption
    # [0.950, 0.984] holds the interval of 0.968 whole, which one pair's [0.955, 0.976] did not.
    same = next(pair for pair in experiment.pairs if pair.name == "emb-base-rlvr")
    assert [band_place(same, held, "cka") for held in (band, experiment.band)] == ["inside", "across"]
    assert all(band_place(pair, band, "cka") is None for pair in band.pairs)
    sentences = "\n".join(sentence for _, found in findings(several) for sentence in found)
    assert "s0, of the seed band: Linear CKA 0.966" in sentences


def test_a_pair_of_another_kind_is_left_out_of_the_band(experiment: Experiment) -> None:
    mixed = replace(experiment, seed_band=("base-emb-seeds", "lm-base-rlvr"))
    assert mixed.band is not None
    assert [pair.name for pair in mixed.band.pairs] == ["base-emb-seeds"]
    text = "\n".join(sentence for _, found in findings(mixed) for sentence in found)
    assert "RLVR v base (language models), not held against the seed band" in text
    assert replace(experiment, seed_band=("gone",)).band is None


def test_a_band_is_drawn_within_what_the_metric_can_be(experiment: Experiment) -> None:
    two = of_seeds(experiment, s0=0.96, s1=0.98)
    assert two.band is not None
    low, high = two.band.ends("cka") or (0, 0)
    assert low < 0.9 < 1 < high  # two values say little
    assert two.band.shown("cka") == (low, 1)
    assert two.band.shown("unknown") is None
    assert seed_level(two, two.trajectories, "cka") == (low, 1)
    elsewhere = [replace(track, probe=replace(track.probe, hash="other")) for track in two.trajectories]
    assert seed_level(two, elsewhere, "cka") is None


def test_sentences_follow_the_numbers(experiment: Experiment) -> None:
    groups = findings(experiment)
    text = "\n".join(sentence for _, sentences in groups for sentence in sentences)
    assert (
        "RLVR v base, seed 0 (embedders): Linear CKA 0.968 [0.956, 0.977] (row shuffle 0.310), across an end of the range "
        "of the pair of seeds (band [0.955, 0.976])"
    ) in text
    assert (
        "SFT v base, seed 0 (embedders): Linear CKA 0.479 [0.467, 0.488] (row shuffle 0.310), less alike than the pair of "
        "seeds (band [0.955, 0.976])"
    ) in text
    assert "SFT v base (language models), not held against the seed band" in text
    assert (
        "base, seed 0: mean nDCG@10 over 3 tasks went from 0.031 at step 0 to 0.564 at step 150; no task fell"
        in text
    )
    assert "ends above BM25 on 2 of 3; it ends above the untrained model on 3 of 3" in text
    # (0.961 + 0.45 + 0.301) - (0.981 + 0.41 + 0.301) = 0.02 over 3 tasks, two seeds 0.03 over 3
    assert (
        "RLVR minus base, seed 0 is +0.007 in mean nDCG@10, no more than the 0.010 between two seeds" in text
    )
    assert "Linear CKA fell, from 0.950 to 0.600 with a low of 0.531 at step 32" in text
    assert any("probe set: world, 192 texts" in title for title, _ in groups)


def test_sentences_the_other_way_round(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "synthetic")
    path = folder / "runs" / "rlvr" / "evaluation" / "step-000150" / "scores.json"
    scores = json.loads(path.read_text())
    scores["tasks"][2] |= {"main_score": 0.01, "ndcg_at_10": 0.01}
    path.write_text(json.dumps(scores))
    pair = folder / "hrsa" / "pairs" / "emb-base-rlvr.json"
    record = json.loads(pair.read_text())
    record["last"]["cka"], record["intervals"]["cka"] = 0.995, [0.99, 0.999]
    record["probe"]["texts"] = 64
    pair.write_text(json.dumps(record))
    track = folder / "hrsa" / "realignment" / "base.json"
    record = json.loads(track.read_text())
    record["series"]["cka"] = [0.5 + index / 20 for index in range(len(record["steps"]))]
    track.write_text(json.dumps(record))
    text = "\n".join(sentence for _, sentences in findings(read_experiment(folder)) for sentence in sentences)
    assert "it fell on cranfield (−0.040)" in text
    assert "RLVR minus base, seed 0 is −0.090 in mean nDCG@10, more than the 0.010 between two seeds" in text
    assert (
        "Linear CKA 0.995 [0.990, 0.999] (row shuffle 0.310), more alike than the pair of seeds (band" in text
    )
    assert "Linear CKA rose, from 0.500 to 0.950;" in text
    assert "Probe set: world, 64 texts" in text  # probe sets differ, so each sentence names its own


def test_one_task_is_told_without_a_mean(experiment: Experiment) -> None:
    def only(scores: Scores) -> Scores:
        return replace(scores, tasks={"cranfield": scores.tasks["cranfield"]})

    runs = tuple(replace(r, scores={step: only(s) for step, s in r.scores.items()}) for r in experiment.runs)
    baselines = {name: only(scores) for name, scores in experiment.baselines.items()}
    first = findings(replace(experiment, runs=runs, baselines=baselines))[0][1][0]
    assert first == (
        "base, seed 0: nDCG@10 on cranfield went from 0.050 at step 0 to 0.301 at step 150; "
        "it ends at or below BM25 (0.349); it ends above the untrained model (0.021)."
    )


def test_a_best_step_before_training_is_told(experiment: Experiment) -> None:
    runs = (replace(experiment.runs[0], best_step=0), replace(experiment.runs[1], best_step=150))
    [warning] = [line for line in findings(replace(experiment, runs=runs))[0][1] if "Warning" in line]
    assert warning.startswith("Warning: the best step of base is 0, the model before training")


def test_no_second_seed_means_no_yardstick(experiment: Experiment) -> None:
    lone = replace(experiment, runs=experiment.runs[:3])
    text = "\n".join(sentence for _, sentences in findings(lone) for sentence in sentences)
    assert "no noise to be held against" in text
    assert "between two seeds" not in text


def test_summary_fits_the_terminal(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    text = summary_table(experiment.folder)
    assert max(map(len, text.splitlines())) <= 100  # a title may run on, tables may not
    for part in ("world-heldout", "+0.950", "0.968 across", "0.479 farther", "0.955 needs 0.97 MISSED"):
        assert part in text


def test_wide_tables_break_between_groups() -> None:
    columns = (
        TableColumn("model"),
        *(TableColumn(label, f"task {task}") for task in range(3) for label in ("step 0", "last")),
    )
    grid = Grid("k", "Title", "", columns, ((Cell("a"), *[Cell("0.123")] * 6),))
    wide, narrow = to_text(grid, 120), to_text(grid, 26)
    assert wide.count("model") == 1
    assert narrow.count("model") == 3
    assert max(map(len, narrow.splitlines())) <= 26


def test_hostile_names_are_text_in_every_form() -> None:
    name = '<script>alert(1)</script> | x\n& "y"'
    grid = Grid(
        "k", name, name, (TableColumn(name), TableColumn(name, name)), ((Cell(name), Cell(name, name, name)),)
    )
    html = to_html(grid)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 9
    table = to_markdown(grid).split("\n\n")[2].splitlines()
    assert len(table) == 3
    assert all(line.replace("\\|", "").count("|") == 3 for line in table)
    assert "<script" not in to_markdown(grid)


def test_numbers_are_written_one_way() -> None:
    assert [number(value) for value in (None, 0.12345, -0.5)] == ["–", "0.123", "−0.500"]
    assert [signed(value) for value in (None, 0.0004, -0.0004, 0.25, -0.25)] == [
        "–",
        "0.000",
        "0.000",
        "+0.250",
        "−0.250",
    ]


def test_metric_directions() -> None:
    assert metric_label("knn_jaccard@50").title == "k-NN overlap (Jaccard, k = 50)"
    assert metric_label("procrustes_residual").higher_is_closer is False
    assert metric_label("cka").higher_is_closer is True
    assert metric_label("never_heard_of") == replace(metric_label("alpha"), title="never_heard_of")


def test_thinning_keeps_ends_means_and_gaps() -> None:
    x = [float(step) for step in range(1, 10_001)]
    new_x, new_y = thin(x, [2 * value for value in x], 100)
    assert len(new_x) == len(new_y) == 100
    assert (new_x[0], new_x[-1]) == (1.0, 10_000.0)
    assert all(y == pytest.approx(2 * x) for x, y in zip(new_x, new_y, strict=True))
    assert sum(new_x[1:-1]) / 98 == pytest.approx(5000.5, rel=1e-3)
    assert thin([1.0, 2.0], [None, 3.0], 100) == ([1.0, 2.0], [None, 3.0])
    assert thin(x[:300], [None] * 300, 100)[1] == [None] * 100
