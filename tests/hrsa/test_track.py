"""Trajectories as tidy parquet: what is measured, against what, and what is not measured twice."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.cli.main import main
from reasoning_embedding.data.miniature_world import MiniatureWorld
from reasoning_embedding.errors import InputError
from reasoning_embedding.experiments.comparisons import (
    against,
    checkpoint,
    follow_runs,
    make_instrument,
    series_of,
    track_series,
    tracking_of,
)
from reasoning_embedding.hrsa.pair import compare
from reasoning_embedding.hrsa.trajectory import SCHEMA, find_trajectories, read_trajectories
from tests.factories import run_config
from tests.hrsa.hrsa_models import qwen3, save


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs ``one`` (steps 0, 2, 10) and ``two`` (0, 10), moving away from their starts, and a probe of 40 lines."""
    root = tmp_path_factory.mktemp("tracks")
    for seed, (run, steps) in enumerate({"one": (0, 2, 10), "two": (0, 10)}.items()):
        model = qwen3(seed, hidden=32, layers=2)
        for step in steps:
            save(model, root / run / "checkpoints" / f"step-{step:06d}")
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
    lines = [question for question, _, _ in MiniatureWorld(0).pairs("train")][:40]
    (root / "probe.txt").write_text("\n".join(lines))
    return root


@pytest.fixture
def runs(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs")


def settings(runs, **changes) -> config.Tracking:
    probe = {"kind": "text", "path": str(runs / "probe.txt")}
    return config.Tracking.model_validate({"probe": probe, "k": [5], **changes})


def tracked(runs, said=None, run="one", **changes) -> list[dict]:
    [series] = series_of([str(runs / run)])
    report = (lambda line: None) if said is None else said.append
    return pq.read_table(track_series(series, settings(runs, **changes), report)).to_pylist()


def values(rows: list[dict], metric: str, layer: str = "final norm", **where) -> list[float]:
    found = [row for row in rows if row["metric"] == metric and row["layer"] == layer]
    return [row["value"] for row in found if all(row[key] == value for key, value in where.items())]


@pytest.fixture
def said() -> list[str]:
    """Lines of progress; a step that is measured is named in one, with its reference."""
    return []


def measured(said: list[str]) -> int:
    return sum(" against " in line for line in said)


def test_rows_are_tidy_and_agree_with_a_pair(runs):
    rows = tracked(runs, against=["first", "run:two"])
    assert list(rows[0]) == SCHEMA.names
    first = values(rows, "cka", against="first")
    assert first[0] == pytest.approx(1, abs=1e-6)
    assert first[0] > first[1] > first[2]
    assert {row["step"] for row in rows if row["against"] == "run:two"} == {0, 10}
    sibling = [row for row in rows if row["against"] == "run:two"]
    assert all(row["against_step"] == row["step"] for row in sibling)
    models = [checkpoint(resolve(f"{runs / run}@10"), run) for run in ("one", "two")]
    pair = compare("pair", *models, make_instrument(settings(runs), None, lambda line: None))
    for metric in ("cka", "h_inv", "knn_jaccard@5", "dimension_correlation"):
        assert values(rows, metric, against="run:two", step=10) == pytest.approx(
            [pair["last"][metric]], abs=1e-6
        )
    [row] = [
        row for row in sibling if row["metric"] == "cka" and row["layer"] == "final norm" and row["step"]
    ]
    assert [row["low"], row["high"]] == pair["intervals"]["cka"]
    assert row["low"] < row["value"] < row["high"]
    assert row["chance"] == pytest.approx(pair["chance"]["cka"], abs=1e-6)
    assert (row["n"], row["tokens"]) == (pair["probe"]["rows"], "all")
    assert row["probe"] == pair["probe"]["hash"]
    assert {row["layer"] for row in sibling} == set(pair["layers"])
    own = [row for row in rows if row["against"] is None]
    assert {row["tokens"] for row in own} == {"last", "mean"}
    assert values(own, "rankme_sigma", step=10, tokens="mean") == pytest.approx(
        [pair["spectrum_mean"]["a"]["rankme_sigma"]], abs=1e-4
    )
    assert all(row["definition"] for row in rows)


def test_a_measured_step_stays_and_a_changed_checkpoint_is_measured_again(runs, said):
    before = tracked(runs, said)
    assert measured(said) == 3
    assert tracked(runs, said) == before
    assert measured(said) == 3
    shutil.rmtree(runs / "one" / "checkpoints" / "step-000002")
    save(qwen3(7, hidden=32, layers=2), runs / "one" / "checkpoints" / "step-000002")
    after = tracked(runs, said)
    assert measured(said) == 4
    assert len(after) == len(before)
    assert values(after, "cka", step=2, against="first") != values(before, "cka", step=2, against="first")
    assert values(after, "cka", step=10, against="first") == values(before, "cka", step=10, against="first")
    tracked(runs, said, max_tokens=6)  # other settings: everything anew, and in the place of the old rows
    assert measured(said) == 7


def test_an_experiment_keeps_one_table_of_its_trajectories(runs):
    folder = runs.parent

    def follow(other: str) -> None:
        trajectories = [
            {"name": "drift", "run": "one", "against": "first"},
            {"name": "other", "run": "one", "against": other},
        ]
        measuring = settings(runs).model_dump(include={"probe", "k"})
        analysis = config.Analysis.model_validate({**measuring, "realignment": trajectories})
        follow_runs(analysis, ExperimentFolder(folder), lambda line: None)

    follow("run:two@last")
    found = {one.name: one for one in find_trajectories(folder)}
    assert list(found) == ["drift", "other"]
    drift, other = found.values()
    assert (drift.run, drift.against, drift.steps) == ("one", "run:one@first", (0, 2, 10))
    assert (other.run, other.against, other.steps) == ("one", "run:two@last", (0, 2, 10))
    assert drift.spectrum == other.spectrum
    assert str(drift.probe).startswith("text, 40 texts")
    [alone] = read_trajectories(track_series(series_of([str(runs / "one")])[0], settings(runs), print))
    assert (alone.series, alone.intervals, alone.spectrum) == (drift.series, drift.intervals, drift.spectrum)

    shutil.rmtree(
        runs / "one" / "checkpoints" / "step-000002"
    )  # a run that was trained anew, with other steps
    follow("run:two@first")
    drift, other = find_trajectories(folder)
    assert drift.steps == other.steps == (0, 10)
    assert other.against == "run:two@first"


def test_tables_and_records_of_older_versions_are_read(runs):
    """Tables without names and descriptions, and a JSON file a trajectory; the table comes first."""
    tracked(runs)
    path = runs / "one" / "hrsa" / "track.parquet"
    [now] = read_trajectories(path)
    newer = ["trajectory", "no_interval", "probe_kind", "probe_texts", "probe_rows", "warnings"]
    pq.write_table(pq.read_table(path).drop_columns(newer), path)
    [before] = read_trajectories(path)
    assert (before.name, before.steps) == (now.name, now.steps) == ("one v first", (0, 2, 10))
    assert (before.series, before.intervals, before.chance) == (now.series, now.intervals, now.chance)
    said: list[str] = []
    tracked(runs, said)  # and nothing of it is measured again
    assert measured(said) == 0

    record = {
        "name": "drift",
        "run": "one",
        "against": {"reference": "run:one@first"},
        "steps": [0, 2],
        "probe": {"kind": "text", "texts": 40, "rows": 300, "tokens": "all", "hash": now.probe.hash},
        "series": {"cka": [1.0, 0.5], "h_inv": [None, 0.2]},
        "spectrum": {"features": "mean", "alpha": [1.2, 1.3]},
        "intervals": {"cka": [None, [0.4, 0.6]]},
    }
    older = runs / "one" / "hrsa" / "realignment" / "drift.json"
    older.parent.mkdir()
    older.write_text(json.dumps(record))
    [read] = read_trajectories(older)
    assert (read.name, read.run, read.against, read.steps) == ("drift", "one", "run:one@first", (0, 2))
    assert (read.series["cka"], read.series["h_inv"]) == ([1.0, 0.5], [None, 0.2])
    assert (read.intervals["cka"], read.spectrum, read.features) == (
        [None, (0.4, 0.6)],
        {"alpha": [1.2, 1.3]},
        "mean",
    )
    assert [one.name for one in find_trajectories(runs / "one")] == ["one v first"]
    path.unlink()
    assert find_trajectories(runs / "one") == [read]
    older.write_text(json.dumps({key: value for key, value in record.items() if key != "probe"}))
    with pytest.raises(InputError, match="lacks probe"):
        find_trajectories(runs / "one")


def test_all_intervals_of_a_step_are_those_of_a_pair(runs, said):
    def ends(rows, metric):
        return [
            [row["low"], row["high"]]
            for row in rows
            if (row["metric"], row["layer"], row["step"]) == (metric, "final norm", 10)
        ]

    quick = tracked(runs, said, steps=[10], bootstrap=9)
    assert ends(quick, "h_inv") == ends(quick, "cknna@5") == [[None, None]]
    tracked(runs, said, steps=[10], bootstrap=8)  # moves no quick interval: nothing is measured again
    assert measured(said) == 1
    every = tracked(runs, said, steps=[10], bootstrap=9, intervals="all")
    models = [checkpoint(resolve(f"{runs / 'one'}@{step}"), "one") for step in (0, 10)]
    pair = compare("pair", *models, make_instrument(settings(runs, bootstrap=9), None, lambda line: None))
    for metric in ("cka", "h_inv", "cka_rbf", "cknna@5"):
        assert ends(every, metric) == [pair["intervals"][metric]]
    tracked(runs, said, steps=[10], bootstrap=8, intervals="all")
    assert measured(said) == 3


def test_an_interrupted_track_keeps_its_steps(runs):
    (runs / "one" / "checkpoints" / "step-000010" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError):
        tracked(runs)
    kept = pq.read_table(runs / "one" / "hrsa" / "track.parquet").to_pylist()
    assert {row["step"] for row in kept} == {0, 2}


@pytest.mark.parametrize(
    ("steps", "expected"), [("saved", {0, 2, 10}), ([2], {2}), ({"every": 5}, {0, 10})], ids=str
)
def test_chosen_steps(runs, steps, expected):
    [series] = series_of([str(runs / "one")])
    assert set(series.chosen(settings(runs, steps=steps).steps).models) == expected


def test_plain_folders_and_revisions_are_one_series(runs):
    folders = [str(runs / "one" / "checkpoints" / f"step-{step:06d}") for step in (10, 0)]
    [series] = series_of(folders)
    assert list(series.models) == [0, 10]
    [hub] = series_of([f"owner/olmo@step{step}-tokens5B" for step in (1000, 2000)])
    assert list(hub.models) == [0, 1]  # the last number is the same: their order counts
    [steps] = series_of([f"{runs / 'one'}@{step}" for step in ("last", 0)])
    assert list(steps.models) == [0, 10]
    [pythia] = series_of(["owner/pythia@step512", "owner/pythia@step8"])
    assert (pythia.name, list(pythia.models)) == ("owner/pythia", [8, 512])
    model = checkpoint(resolve("owner/pythia@step8"), "m")
    assert (model.path, model.revision, model.content) == ("owner/pythia", "step8", "owner/pythia@step8")
    assert checkpoint(resolve("owner/pythia"), "m").content is None


def test_references(runs):
    [series] = series_of([str(runs / "one")])
    assert against("first", series).at(10)[0] == 0
    assert against("run:two@last", series).at(2)[0] == 10
    assert against(str(runs / "two"), series).at(2) is None
    assert against(f"run:{runs / 'two'}", series).at(10)[0] == 10
    assert against(f"{runs / 'two'}@0", series).at(2)[0] == 0
    assert against(str(runs / "two" / "checkpoints" / "step-000000"), series).at(2)[0] is None
    for wrong in ("run:three", "run:two@7", "lineage:none", "./nothing"):
        with pytest.raises(InputError):
            against(wrong, series)


def test_a_run_is_measured_by_its_own_section_after_its_last_step(runs):
    section = {"probe": {"kind": "text", "path": str(runs / "probe.txt")}, "k": [5], "steps": [0, 10]}
    run = run_config(name="one", hrsa={**section, "against": "first"})
    measure = tracking_of(run, lambda line: None)
    measure(RunFolder(runs / "one"))
    rows = pq.read_table(runs / "one" / "hrsa" / "track.parquet").to_pylist()
    assert {row["step"] for row in rows} == {0, 10}
    assert tracking_of(run.model_copy(update={"hrsa": None}), lambda line: None) is None
    for change in ({"against": "./absent"}, {"probe": {"kind": "text", "path": "absent.txt"}}):
        wrong = config.Tracking.model_validate({**section, **change})
        with pytest.raises(InputError):
            tracking_of(run.model_copy(update={"hrsa": wrong}), lambda line: None)


def test_the_verb(runs, capsys, tmp_path, monkeypatch):
    (runs / "one" / "config.resolved.json").write_text(
        json.dumps({"hrsa": settings(runs, steps=[0]).model_dump(mode="json")})
    )
    with pytest.raises(SystemExit) as caught:
        main(["track", str(runs / "one"), "--against", "run:two"])
    assert not caught.value.code
    assert "track: " in capsys.readouterr().out
    rows = pq.read_table(runs / "one" / "hrsa" / "track.parquet").to_pylist()
    assert {(row["step"], row["against"]) for row in rows} == {(0, "run:two"), (0, None)}
    assert not [row for row in rows if row["metric"] == "knn_jaccard@50"]  # the run's own k
    for words in (
        ["track", str(runs / "none")],
        ["track", str(runs / "one"), "--steps", "some"],
        ["track", str(runs / "one"), "--steps", "3"],
        ["track", str(runs / "one"), "--tokens", "some"],
        ["track", str(runs / "one"), str(runs / "two"), "--output", str(tmp_path / "t.parquet")],
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
    (runs / "two" / "hrsa").mkdir()
    (runs / "two" / "hrsa" / "track.parquet").write_text("no parquet")
    with pytest.raises(SystemExit) as caught:
        main(["track", str(runs / "two"), "--probe", str(runs / "probe.txt")])
    assert caught.value.code == 2
    assert "no track" in capsys.readouterr().err
