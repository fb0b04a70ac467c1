"""What a paper takes from an experiment: the numbers of the files, tests against seeds, figures in two forms."""

from __future__ import annotations

import csv
import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from reasoning_embedding.cli.main import main
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.trajectory import SCHEMA
from reasoning_embedding.reports.hrsa_charts import explorer
from reasoning_embedding.reports.labels import metric_label
from reasoning_embedding.reports.pages.paper import build_paper
from reasoning_embedding.reports.paper.appendix import appendix
from reasoning_embedding.reports.paper.backbones import (
    backbone_pairs,
    change,
    role_of,
    training_pairs,
    wilson,
)
from reasoning_embedding.reports.paper.tables import paper_tables
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.records import AnalysedModel, AnalysedPair, Experiment, Run
from reasoning_embedding.reports.resources import published
from tests.synthetic_experiment import write_experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("paper") / "synthetic")


@pytest.fixture(scope="module")
def experiment(folder: Path) -> Experiment:
    return read_experiment(folder)


@pytest.fixture(scope="module")
def paper(folder: Path) -> Path:
    said: list[str] = []
    files = build_paper(folder, said.append)
    assert files[0].name == "appendix.html"
    assert said == ["paper: 5 figures, 6 tables"]
    return folder / "paper"


def words(experiment: Experiment) -> str:
    return "\n".join(sentence for _, sentences in appendix(experiment) for sentence in sentences)


def test_pairs_of_backbones_before_and_after(experiment: Experiment) -> None:
    found = {pair.name: pair for pair in backbone_pairs(experiment)}
    assert list(found) == ["base → rlvr (RLVR)", "base → sft (SFT)"]
    rlvr = found["base → rlvr (RLVR)"]
    assert rlvr.before is not None
    assert rlvr.after is not None
    assert (rlvr.before.name, rlvr.after.name) == ("lm-base-rlvr", "emb-base-rlvr")
    assert experiment.band is not None
    assert role_of(experiment, experiment.band.pairs[0]) == "seeds"


@pytest.mark.parametrize(
    ("a", "b", "role"),
    [
        ("lineage:base", "run:base@last", "training"),
        ("run:base@first", "run:base@150", "training"),
        ("run:base@first", "run:sft@0", "before"),
        ("lineage:base", "run:sft@last", "other"),
        ("run:base@last", "run:base-seed1@last", "seeds"),
    ],
)
def test_roles(experiment: Experiment, a: str, b: str, role: str) -> None:
    pair = replace(experiment.pairs[0], a=AnalysedModel(a, ""), b=AnalysedModel(b, ""))
    assert role_of(experiment, pair) == role
    assert bool(training_pairs(replace(experiment, pairs=(pair,)))) == (role == "training")


def test_tables_hold_the_users_numbers_beside_published_ones(experiment: Experiment) -> None:
    tables = {table.key: table for table in paper_tables(experiment)}
    assert list(tables) == ["h-inv", "knn", "levels", "probes"]
    ours = experiment.pairs[1].last["h_inv"]  # lm-base-rlvr
    row = tables["h-inv"].rows[0]
    assert (row[0].text, row[1].text) == ("base → rlvr (RLVR)", f"{ours:.3f}")
    record = published("hrsa")
    theirs = [row for row in tables["h-inv"].rows if row[0].note]
    assert [(float(r[1].text), float(r[2].text)) for r in theirs] == [
        (row["before"], row["after"]) for row in record["h_inv"]
    ]
    assert record["source"] in theirs[0][0].note
    knn = tables["knn"].rows
    assert [cell.text for cell in knn[-1][1:]] == ["0.455", "0.451", "0.484", "0.474", "0.577", "0.531"]
    after = knn[1][4]  # SFT, k = 10, after training
    pair = next(pair for pair in experiment.pairs if pair.name == "emb-base-sft")
    low, high = pair.intervals["knn_jaccard@10"]
    assert after.note == f"[{low:.3f}, {high:.3f}]"
    assert (after.extra, after.mark) == ("row shuffle 0.032", "farther")


def test_every_file_of_a_paper(paper: Path) -> None:
    names = {path.name for path in paper.iterdir()}
    figures = {name.removesuffix(".png") for name in names if name.endswith(".png")}
    assert figures == {
        *("heatmaps-base-rlvr", "heatmaps-base-sft", "probes", "dynamics-own_step_0", "spectra"),
    }
    for name in figures:
        width, _ = struct.unpack(">II", (paper / f"{name}.png").read_bytes()[16:24])
        assert width in (975, 2025)  # a column or a page at 300 dots an inch
        document = (paper / f"{name}.pdf").read_bytes()
        assert document.startswith(b"%PDF")
        assert b"/Type3" not in document  # fonts are embedded as fonts
        assert b"/FontFile2" in document
    for key in ("h-inv", "knn", "levels", "probes", "spectrum", "hrsa-details"):
        assert {f"table-{key}{suffix}" for suffix in (".md", ".tex", ".csv")} <= names
    page = (paper / "appendix.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|@import|url\(", page)
    assert page.count("<img ") == len(figures)


def test_csv_reads_as_numbers(paper: Path, experiment: Experiment) -> None:
    rows = list(csv.DictReader((paper / "table-levels.csv").open(encoding="utf-8")))
    row = next(r for r in rows if r["pair"] == "base → sft (SFT)" and r["metric"] == "Linear CKA")
    assert (float(row["before CL"]), float(row["after CL"]), float(row["change"])) == (0.761, 0.479, -0.282)
    assert row["after CL (mark)"] == "farther"


def test_latex_is_whole(paper: Path) -> None:
    text = (paper / "table-h-inv.tex").read_text(encoding="utf-8")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert "→" not in text
    assert r"\rightarrow" in text


def test_sentences_come_from_the_numbers_whichever_way(experiment: Experiment) -> None:
    text = words(experiment)
    assert "Geometry, after less before: Debiased CKA moved (no interval): " in text
    assert "; Linear CKA fell: −0.282 [−0.297, −0.267]" in text
    assert (
        "0.479 [0.467, 0.488] (row shuffle 0.310), less alike than the pair of seeds (band [0.955, 0.976]"
        in text
    )
    assert "base → sft (SFT), Linear CKA: from 0.761 to 0.479" in text
    assert "so contrastive training made the two less alike here" in text
    assert "a linear probe fitted on A, read on A 0.990" in text
    assert not re.search(r"\bnull\b", text)
    turned = tuple(
        replace(
            pair,
            last=pair.last | {"cka": 1 - (pair.last["cka"] or 0)},
            intervals=pair.intervals | {"cka": tuple(1 - end for end in reversed(pair.intervals["cka"]))},
        )
        for pair in experiment.pairs
    )
    other = words(replace(experiment, pairs=turned))
    assert "Linear CKA rose: +0.282 [+0.267, +0.297]" in other
    assert "so contrastive training made the two more alike here" in other
    alone = words(replace(experiment, seed_band=()))
    assert "No two seeds were compared" in alone
    assert "TOST" not in alone


def test_a_track_tells_a_low_only_beyond_the_ends_intervals(experiment: Experiment) -> None:
    assert "least alike at step 32" in words(experiment)
    wide = tuple(
        replace(track, intervals={m: [(0.0, 1.0)] * len(track.steps) for m in track.series})
        for track in experiment.trajectories
    )
    assert "least alike" not in words(replace(experiment, trajectories=wide))


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (13, 65), (64, 65), (20, 20), (65, 65)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    theirs = binomtest(hits, n).proportion_ci(method="wilson")
    low, high = wilson(hits / n, n)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert low <= hits / n <= high  # exactly, or error bars would have a negative length


def test_a_difference_of_two_estimates_has_the_interval_of_their_difference() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 0.01, 200_000), rng.normal(0.6, 0.03, 200_000)
    ends = [tuple(np.quantile(values, [0.025, 0.975])) for values in (x, y)]
    found = change(0.5, ends[0], 0.6, ends[1])
    assert found is not None
    assert found.bounds == pytest.approx(tuple(np.quantile(y - x, [0.025, 0.975])), abs=1e-3)
    assert found.word == "rose"
    unknown = change(0.5, None, 0.6, ends[1])
    assert unknown is not None
    assert unknown.bounds is None


def write_track(path: Path, folder: Path) -> dict:
    """A track file with the numbers of the realignment record ``rlvr``."""
    record = json.loads((folder / "hrsa" / "realignment" / "rlvr.json").read_text())
    rows = []
    for s, step in enumerate(record["steps"]):
        for metric, by_step in record["series_layers"].items():
            for label, value in zip(record["layers"], by_step[s], strict=True):
                last = label == record["layers"][-1]
                low, high = (record["intervals"][metric][s] if last else None) or (None, None)
                rows.append({"layer": label, "metric": metric, "value": value, "low": low, "high": high})
                rows[-1] |= {"against": "first", "step": step, "chance": record["chance"][metric]}
        for metric in ("rankme_sigma", "alpha"):
            value = record["spectrum"][metric][s]
            rows.append(
                {"layer": "final norm", "metric": metric, "value": value, "step": step, "against": None}
            )
    common = {"run": "rlvr", "n": 1840, "probe": "other", "definition": "as defined"}
    for row in rows:
        row |= common | {"tokens": "all" if row["against"] else "mean"}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    return record


@pytest.mark.usefixtures("no_drawing")
def test_a_track_file_reads_as_the_record_of_the_same_numbers(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "synthetic")
    before = read_experiment(folder).trajectories
    record = write_track(folder / "runs" / "rlvr" / "hrsa" / "track.parquet", folder)
    found = read_experiment(folder).trajectories
    assert len(found) == len(before) + 1
    track = found[-1]
    assert (track.run, track.against, track.features) == ("rlvr", "run:rlvr@first", "mean")
    assert track.layers == tuple(record["layers"])
    assert track.series_layers == record["series_layers"]
    assert track.series["cka"] == [row[-1] for row in record["series_layers"]["cka"]]
    assert track.intervals["cka"] == [tuple(ends) for ends in record["intervals"]["cka"]]
    assert track.spectrum["alpha"] == record["spectrum"]["alpha"]
    alone = tmp_path / "alone"
    write_track(alone / "hrsa" / "track.parquet", folder)
    files = {path.name for path in build_paper(alone, lambda _: None)}
    assert {"spectra.pdf", "dynamics-own_step_0.pdf", "appendix.md"} <= files


def test_what_is_no_track_is_named(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "synthetic")
    path = folder / "runs" / "sft" / "hrsa" / "track.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="no track"):
        read_experiment(folder)


def test_nothing_analysed_is_said(tmp_path: Path) -> None:
    (tmp_path / "hrsa").mkdir()
    with pytest.raises(InputError, match="nothing was analysed"):
        build_paper(tmp_path, lambda _: None)


@pytest.mark.parametrize("options", [("--paper", "--table"), ("--paper", "--base", "sft")])
def test_options_that_do_not_go_together(folder: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(folder), *options])
    assert stopped.value.code == 2


def test_the_explorer_shows_the_files_numbers(experiment: Experiment, folder: Path) -> None:
    data = explorer(experiment)
    assert data is not None
    json.dumps(data, allow_nan=False)
    sources = {source["name"]: source for source in data["sources"]}
    record = json.loads((folder / "hrsa" / "pairs" / "emb-base-sft.json").read_text())
    cka = sources["SFT v base, seed 0 (embedders)"]["metrics"]["cka"]
    assert cka["values"] == [record["diagonal"]["cka"]]
    assert cka["ends"] == [tuple(record["intervals"]["cka"])]
    assert (cka["place"], cka["band"]) == ("farther", (0.955, 0.976))
    assert sources["SFT v base (language models)"]["metrics"]["cka"]["band"] is None  # another kind of model
    assert sources["SFT v base (language models)"]["metrics"]["cka"]["place"] is None
    track = json.loads((folder / "hrsa" / "realignment" / "rlvr.json").read_text())
    assert sources["rlvr"]["metrics"]["cka"]["values"] == track["series_layers"]["cka"]
    assert sources["rlvr"]["steps"] == track["steps"]
    assert data["metrics"]["cka"] == {"title": "Linear CKA", "definition": "Linear CKA of centred rows."}
    assert math.isclose(cka["chance"], 0.31)


@pytest.mark.parametrize(
    ("metric", "closer"),
    [
        ("permutation_match", True),
        ("cka_rbf", True),
        ("procrustes_distance", False),
        ("gulp", False),
        ("cknna@10", True),
    ],
)
def test_every_metric_has_a_name_and_a_direction(metric: str, closer: bool) -> None:
    label = metric_label(metric)
    assert label.title != metric
    assert label.higher_is_closer is closer


def test_with_readouts_every_pair_of_backbones_is_one_of_one_readout(experiment: Experiment) -> None:
    """Two readouts of one backbone are no pair of seeds, and backbones are held against each other within a readout."""
    runs = tuple(
        Run(f"{backbone}-{readout}", backbone, 0, (), {}, readout=readout)
        for backbone in ("base", "rlvr")
        for readout in ("mean", "last")
    )

    def pair(name: str, a: str, b: str) -> AnalysedPair:
        return replace(experiment.pairs[0], name=name, a=AnalysedModel(a, ""), b=AnalysedModel(b, ""))

    pairs = (
        pair("lm", "lineage:base", "lineage:rlvr"),
        pair("mean", "run:base-mean@last", "run:rlvr-mean@last"),
        pair("last", "run:base-last@last", "run:rlvr-last@last"),
        pair("readouts", "run:base-mean@last", "run:base-last@last"),
        pair("both", "run:base-mean@last", "run:rlvr-last@last"),
    )
    found = replace(experiment, runs=runs, pairs=pairs)
    assert [role_of(found, one) for one in pairs] == ["before", "after", "after", "readouts", "other"]
    assert [
        (one.name, one.before.name if one.before else None, one.after.name if one.after else None)
        for one in backbone_pairs(found)
    ] == [("base → rlvr (RLVR), mean", "lm", "mean"), ("base → rlvr (RLVR), last", "lm", "last")]
    assert [found.sides(one) for one in pairs] == [
        "", "base v rlvr, mean, seed 0", "base v rlvr, last, seed 0", "base, mean v last, seed 0",
        "base v rlvr, mean v last, seed 0",
    ]  # fmt: skip
