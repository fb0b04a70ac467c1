"""Reading of experiment and run folders: what is there, what is missing, what is damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_embedding.errors import InputError
from reasoning_embedding.reports.charts import score_curves
from reasoning_embedding.reports.hrsa_tables import hrsa_details, spectrum_table, transfer_table
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.records import Run
from tests.synthetic_experiment import PAIRS, RUNS, TASKS, write_experiment


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "synthetic")


def test_reads_everything_in_the_order_of_the_configuration(experiment: Path) -> None:
    found = read_experiment(experiment)
    assert [run.name for run in found.runs] == list(RUNS)
    assert [(run.backbone, run.seed) for run in found.runs] == list(RUNS.values())
    assert [pair.name for pair in found.pairs] == list(PAIRS)
    assert [stage.name for stage in found.backbones] == ["base", "sft", "rlvr"]
    assert found.tasks == TASKS
    assert set(found.baselines) == {"bm25", "untrained"}
    assert found.band is not None
    assert found.band.name == "base-emb-seeds"
    first, last = found.runs[0].first, found.runs[0].last
    assert first is not None and first.tasks["world-heldout"]["ndcg_at_10"] == 0.031  # noqa: PT018
    assert last is not None and (last.step, last.tasks["world-heldout"]["ndcg_at_10"]) == (150, 0.981)  # noqa: PT018
    assert len(found.runs[0].metrics) == 150
    assert found.missing == ()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("runs/sft", "run 'sft'"),
        ("runs/sft/evaluation", "run 'sft': no checkpoint was evaluated"),
        ("runs/sft/evaluation/step-000000", "run 'sft': step 0 was not evaluated"),
        ("runs/sft/evaluation/step-000150", "run 'sft': any step after 0 was not evaluated"),
        ("runs/sft/metrics.jsonl", "sft: no training log"),
        ("evaluation/bm25", "baseline 'bm25'"),
        ("lineage/rlvr", "stage 'rlvr'"),
        ("lineage/rlvr/gates.json", "stage 'rlvr': its quality was not measured"),
        ("hrsa/pairs/emb-base-sft.json", "analysed pair 'emb-base-sft'"),
        ("hrsa/realignment/sft.json", "track 'sft'"),
        ("config.resolved.json", "config.resolved.json"),
    ],
)
def test_a_missing_part_is_said_and_nothing_else_is_lost(experiment: Path, part: str, said: str) -> None:
    path = experiment / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = read_experiment(experiment)
    assert any(said in sentence for sentence in found.missing), found.missing
    assert "base" in {run.name for run in found.runs}
    assert found.pairs[0].name == "base-emb-seeds"


def test_a_single_run_folder_is_a_report_of_one_run(experiment: Path) -> None:
    run = experiment / "runs" / "base"
    config = {
        "kind": "run",
        "name": "base",
        "seed": 3,
        "backbone": {"kind": "pretrained", "path": "Qwen/Qwen3-0.6B"},
    }
    (run / "config.resolved.json").write_text(json.dumps(config))
    found = read_experiment(run)
    assert [(r.name, r.seed, r.backbone) for r in found.runs] == [("base", 3, "Qwen/Qwen3-0.6B")]
    assert found.pairs == ()


def test_a_log_cut_short_by_a_kill_and_resumed_reads_on(experiment: Path) -> None:
    log = experiment / "runs" / "base" / "metrics.jsonl"
    with log.open("a") as file:
        file.write(json.dumps({"step": 150, "loss": 7.0}) + '\n{"step": 151, "lo')
    found = read_experiment(experiment)
    assert found.runs[0].metrics[-1] == {"step": 150, "loss": 7.0}
    assert len(found.runs[0].metrics) == 150
    assert any("cut short" in sentence for sentence in found.missing)


@pytest.mark.parametrize(
    ("file", "content", "where"),
    [
        ("evaluation/bm25/scores.json", '{"tasks": [\n{"task": ', "scores.json:2"),
        ("evaluation/bm25/scores.json", "[]", "scores.json"),
        ("evaluation/bm25/scores.json", '{"tasks": [{"main_score": 0.5}]}', "scores.json"),
        ("runs/base/metrics.jsonl", '{"step": 1}\nrubbish\n{"step": 2}\n', "metrics.jsonl:2"),
        ("hrsa/pairs/emb-base-sft.json", '{"name": "emb-base-sft"}', "emb-base-sft.json"),
    ],
)
def test_a_damaged_file_is_an_error_with_an_address(
    experiment: Path, file: str, content: str, where: str
) -> None:
    (experiment / file).write_text(content)
    with pytest.raises(InputError) as error:
        read_experiment(experiment)
    assert where in str(error.value)


def test_models_of_different_widths_and_lost_values(experiment: Path) -> None:
    path = experiment / "hrsa" / "pairs" / "emb-base-sft.json"
    record = json.loads(path.read_text())
    record["heatmaps"]["dimension_correlation"] = None
    record["last"]["h_inv"] = record["probe_transfer"] = None
    record["intervals"] = {"cka": [0.4, 0.5]}
    record["spectrum"]["a"] = {"features": "last", "n": 12, "alpha": None, "alpha_range": None}
    path.write_text(json.dumps(record))
    pair = next(pair for pair in read_experiment(experiment).pairs if pair.name == "emb-base-sft")
    assert set(pair.heatmaps) == {"cka", "knn_jaccard@10"}
    assert pair.last["h_inv"] is None
    found = read_experiment(experiment)
    rows = {(cells[0].text, cells[1].text): cells for cells in spectrum_table(found).rows}
    assert [cell.text for cell in rows["run:base@last", "last token"][2:]] == ["12", "–", "–", "–"]
    assert len(transfer_table(found).rows) == len(PAIRS) - 1
    assert "–" in [cell.text for cells in hrsa_details(found).rows for cell in cells[1:]]


def test_every_evaluated_step_is_a_point(experiment: Path) -> None:
    assert score_curves(read_experiment(experiment)) is None  # two points are in the table
    folder = experiment / "runs" / "base" / "evaluation"
    shutil.copytree(folder / "step-000000", folder / "step-000064")
    chart = score_curves(read_experiment(experiment))
    assert chart is not None
    line = chart.panels[0].lines[0]
    assert (line.name, line.x, line.y) == ("base, seed 0", [0.0, 64.0, 150.0], [0.031, 0.031, 0.981])


def test_scores_taken_while_training_stand_in_for_those_of_checkpoints(experiment: Path) -> None:
    run = experiment / "runs" / "sft"
    shutil.rmtree(run / "evaluation")
    lines = [
        {"step": step, "loss": 1.0, "evaluation": {"cosqa_dev": step / 200, "mean": 9.0}} for step in (0, 150)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_experiment(experiment)
    sft = next(run for run in found.runs if run.name == "sft")
    assert {step: scores.tasks for step, scores in sft.scores.items()} == {
        step: {"cosqa_dev": {"main_score": step / 200, "ndcg_at_10": step / 200}} for step in (0, 150)
    }
    assert any(
        "run 'sft': no checkpoint was evaluated; the scores are those" in said for said in found.missing
    )


def test_failed_tasks_are_named(experiment: Path) -> None:
    scores = {"model": "bm25", "tasks": [], "failed": [{"task": "cranfield", "error": "no corpus"}]}
    (experiment / "evaluation" / "bm25" / "scores.json").write_text(json.dumps(scores))
    assert "bm25: task 'cranfield' failed: no corpus" in read_experiment(experiment).missing


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_anything_is_refused(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "empty"
    if make:
        folder.mkdir()
    with pytest.raises(InputError):
        read_experiment(folder)


def test_runs_of_one_backbone_share_a_colour_and_no_two_runs_look_alike(experiment: Path) -> None:
    runs = [("a", "base"), ("b", "sft"), ("a1", "base"), ("alone", None), ("b1", "sft")]
    found = replace(
        read_experiment(experiment), runs=tuple(Run(name, backbone, 0, (), {}) for name, backbone in runs)
    )
    assert found.looks == {"a": (0, 0), "b": (1, 0), "a1": (0, 1), "alone": (2, 0), "b1": (1, 1)}
