"""A run that is scored while it trains: same weights, the best step kept, found again after a stop."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding import config, training
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder
from reasoning_embedding.checkpoints.references import pick_step, resolve
from reasoning_embedding.checkpoints.scores import load_scores, scores_by_step, scores_of_checkpoint
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError, TrainingError
from reasoning_embedding.experiments.runner import read_experiment
from reasoning_embedding.experiments.scoring import chosen_steps
from reasoning_embedding.experiments.stages import find_stage
from reasoning_embedding.files import read_json, write_json
from tests.conftest import REPOSITORY
from tests.factories import read_lines, write_beir

Write = Callable[..., Path]
Rembed = Callable[..., Any]
#: Main scores by step: the best is 4, again reached at 6.
CURVE = {0: 0.1, 2: 0.4, 4: 0.7, 6: 0.7}


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Path:
    """A task of twelve documents and queries of the training rows' kind; the first document is one of theirs."""
    records = read_lines(rows)[:12]
    return write_beir(
        tmp_path_factory.mktemp("leaking") / "tiny",
        {f"d{i}": f"{record['query'][1]} house {i - 1}" for i, record in enumerate(records)}
        | {"d0": records[0]["pos"][0]},
        {f"q{i}": f"where is {record['query'][1]} now" for i, record in enumerate(records)},
        {f"q{i}": {f"d{i}": 1} for i in range(12)},
    )


def _settings(path: Path, *changes: str) -> config.RunConfig:
    return config.load_config(path, changes, expect=config.RunConfig).config


def _evaluation(**other: Any) -> dict[str, Any]:
    return {"evaluation": {"tasks": [{"kind": "world"}], "every": 2, **other}}


def _weights(run: RunFolder, step: int) -> bytes:
    return (run.checkpoint(step) / "model.safetensors").read_bytes()


def _metrics(run: RunFolder) -> dict[int, dict[str, Any]]:
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert len({record["step"] for record in records}) == len(records)
    return {record["step"]: record for record in records}


def _best(run: RunFolder) -> dict[str, Any]:
    return read_json(run.best)


def scored(curve: dict[int, float]) -> training.Score:
    """A score that disturbs whatever it can."""

    def score(embedder: Embedder, step: int, world: World) -> dict[str, float]:
        assert not embedder.training
        embedder.encode(["red cat", "the moon"])
        torch.manual_seed(1)
        np.random.seed(1)
        return {"world": curve[step], "world:recall_at_1": -curve[step], "mean": curve[step]}

    return score


def test_weights_do_not_depend_on_being_scored(write_run: Write, tmp_path: Path) -> None:
    lora = {"lora": {"rank": 2, "dropout": 0.2}}
    plain = training.train(_settings(write_run("plain", **lora)))
    looked = training.train(_settings(write_run("looked", _evaluation(), **lora)), score=scored(CURVE))
    assert _weights(plain, 6) == _weights(looked, 6)
    assert [record["loss"] for record in _metrics(plain).values()] == [
        record["loss"] for step, record in _metrics(looked).items() if step
    ]


def test_the_best_step_is_kept_and_the_earlier_of_equal_ones(write_run: Write, tmp_path: Path) -> None:
    said: list[str] = []
    run = training.train(_settings(write_run(extra=_evaluation())), score=scored(CURVE), report=said.append)
    assert _best(run) == {"step": 4, "score": 0.7, "select": "mean"}
    assert run.steps() == [0, 2, 3, 4, 6]  # 0, 3 and 6 are the schedule's; 2 was the best for a while
    evaluations = {
        step: record["evaluation"] for step, record in _metrics(run).items() if "evaluation" in record
    }
    assert evaluations == {step: {"world": value, "mean": value} for step, value in CURVE.items()}
    assert pick_step(run, "best", "best") == 4
    assert resolve("run:run@best", tmp_path).folder == run.checkpoint(4)
    assert chosen_steps(run, "best") == [4]
    assert "step 4: mean 0.7000, the best so far" in said
    assert "step 6: mean 0.7000" in said


def test_another_score_selects_another_step(write_run: Write) -> None:
    path = write_run(extra=_evaluation(select="world:recall_at_1"))
    run = training.train(_settings(path), score=scored(CURVE))
    assert _best(run) == {"step": 0, "score": -0.1, "select": "world:recall_at_1"}
    assert _metrics(run)[2]["evaluation"] == {"world": 0.4, "mean": 0.4, "world:recall_at_1": -0.4}


@pytest.mark.parametrize("lost", [(6,), (3, 4, 6)])
def test_resuming_finds_the_best_step_again(write_run: Write, lost: tuple[int, ...]) -> None:
    settings = _settings(write_run(extra={**_evaluation(), "checkpoints": {"every": 3, "keep_states": 9}}))
    run = training.train(settings, score=scored(CURVE))
    for step in lost:
        shutil.rmtree(run.checkpoint(step))
        shutil.rmtree(run.state(step), ignore_errors=True)
    # What a process leaves that was killed between the best step's scores and its checkpoint.
    run.best.write_text('{"step": 6, "score": 9.0, "select": "mean"}')
    training.train(settings, score=scored(CURVE), resume=True)
    assert _best(run) == {"step": 4, "score": 0.7, "select": "mean"}
    assert set(run.steps()) >= {4, 6}
    assert sorted(_metrics(run)) == list(range(7))


def test_an_unknown_score_stops_before_anything_is_written(write_run: Write) -> None:
    settings = _settings(write_run(extra=_evaluation(select="wrold")))
    with pytest.raises(InputError, match=r"no score is named 'wrold'.*world") as caught:
        training.train(settings, score=scored(CURVE))
    assert "scores here: world, mean" in str(caught.value)
    run = RunFolder(Path(settings.output_dir) / settings.name)
    assert not run.config_json.exists()
    assert run.steps() == []


def test_a_score_that_is_no_number_stops(write_run: Write) -> None:
    with pytest.raises(TrainingError, match=r"step 2: the score 'world' is nan"):
        training.train(_settings(write_run(extra=_evaluation())), score=scored({**CURVE, 2: float("nan")}))


def test_a_step_without_the_selected_score_is_not_the_best(write_run: Write) -> None:
    def score(embedder: Embedder, step: int, world: World) -> dict[str, float]:
        return {"world": CURVE[step]} | ({} if step == 4 else {"mean": CURVE[step]})

    run = training.train(_settings(write_run(extra=_evaluation())), score=score)
    assert _best(run)["step"] == 6


def test_a_scored_run_needs_a_score(write_run: Write) -> None:
    with pytest.raises(InputError, match="scored while it trains"):
        training.train(_settings(write_run(extra=_evaluation())))


def test_best_of_a_run_without_scores(write_run: Write) -> None:
    run = training.train(_settings(write_run()))
    assert not run.best.exists()
    with pytest.raises(InputError, match="not scored while it trained"):
        pick_step(run, "best", "run:run@best")
    run.best.write_text("{}")
    with pytest.raises(InputError, match="does not name a step"):
        pick_step(run, "best", "run:run@best")
    run.best.write_text('{"step": 5}')
    with pytest.raises(InputError, match="names no checkpoint"):
        pick_step(run, "best", "run:run@best")


def test_the_command_line_scores_and_compares(
    write_run: Write, rembed: Rembed, tmp_path: Path, leaking: Path
) -> None:
    section = {
        "evaluation": {"tasks": [{"kind": "beir", "path": str(leaking)}], "every": 3, "select": "tiny"}
    }
    said = rembed("train", write_run(extra=section)).output
    assert (
        "contamination of tiny: 0 exact and 0 near of 12 queries; 1 exact and 0 near of 12 documents" in said
    )
    run = RunFolder(tmp_path / "runs" / "run")
    found = json.loads(run.contamination.read_text())["tasks"]["tiny"]["documents"]
    assert found["examples"][0]["training"]["source"] == "rows"
    scores = {step: record["evaluation"] for step, record in _metrics(run).items() if "evaluation" in record}
    assert sorted(scores) == [0, 3, 6]
    assert all(0 < score["tiny"] <= 1 and score["mean"] == score["tiny"] for score in scores.values())
    best = _best(run)
    assert best["score"] == max(score["tiny"] for score in scores.values())
    shown = rembed("runs", "show", run.path).output
    assert re.search(rf"^ +3 +{scores[3]['tiny']:.4f}( +best)?$", shown, re.MULTILINE)
    rembed("report", run.path)
    page = (run.path / "report" / "index.html").read_text()
    assert "was not evaluated" not in page
    assert "no checkpoint was evaluated" not in page

    refused = rembed("train", write_run("other", section), "evaluation.select=tiny:ndcg_at_1o", code=2).output
    assert "no score is named 'tiny:ndcg_at_1o'" in refused
    assert "tiny:ndcg_at_10" in refused
    absent = rembed("train", write_run("other", section), "evaluation.tasks.0.path=absent", code=2).output
    assert "absent" in absent
    assert not RunFolder(tmp_path / "runs" / "other").steps()


def test_a_score_taken_in_training_and_the_same_taken_afterwards_are_one(
    write_run: Write, rembed: Rembed, tmp_path: Path, leaking: Path
) -> None:
    """The run asks with one instruction; its tasks bring another, which nobody asks with."""
    write_json(leaking / "meta.json", {"instruction": "something else"})
    section = {"tasks": [{"kind": "beir", "path": str(leaking)}], "every": 3}
    rembed("train", write_run(extra={"evaluation": section}))
    run = RunFolder(tmp_path / "runs" / "run")
    logged = {step: record["evaluation"]["tiny"] for step, record in _metrics(run).items() if step % 3 == 0}
    taken = {step: found["tasks"] for step, found in scores_by_step(run).items()}
    assert {step: entry["main_score"] for step, [entry] in taken.items()} == pytest.approx(logged, abs=1e-9)
    assert {entry["prompt"] for [entry] in taken.values()} == {"Instruct: find the answer\nQuery: "}

    # By name of the run, its own tasks and settings: nothing is computed again, nothing stands twice.
    said = rembed("evaluate", run.path, "--steps", "all").output
    assert said.count("1 of 1 tasks scored before") == 3
    assert {step: found["tasks"] for step, found in scores_by_step(run).items()} == taken
    best = rembed("evaluate", run.path, "--steps", "best").output
    assert f"step-{_best(run)['step']:06d}  tiny  nDCG@10 {_best(run)['score']:.4f}" in best
    # Computed anew elsewhere, it is the same number.
    rembed("evaluate", f"{run.path}@3", "-t", leaking, "-o", tmp_path / "again")
    again = load_scores(tmp_path / "again")
    [[entry], [new]] = taken[3], again["tasks"]
    assert {k: v for k, v in new.items() if k != "seconds"} == {
        k: v for k, v in entry.items() if k != "seconds"
    }
    assert scores_of_checkpoint(run, run.checkpoint(3)) is not None
    # Of other settings: the old scores are set aside, and come back when they are asked for.
    rembed("evaluate", f"{run.path}@3", "--max-tokens", "8")
    assert scores_by_step(run)[3]["settings"]["max_tokens"] == 8
    assert "1 of 1 tasks scored before" in rembed("evaluate", f"{run.path}@3").output
    assert scores_by_step(run)[3]["tasks"] == taken[3]
    # Another task joins those that are there.
    other = write_beir(tmp_path / "other")
    rembed("evaluate", f"{run.path}@3", "-t", other)
    assert [entry["task"] for entry in scores_by_step(run)[3]["tasks"]] == ["other", "tiny"]
    # Of changed weights nothing is taken over.
    with (run.checkpoint(0) / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert scores_of_checkpoint(run, run.checkpoint(0)) is None


def test_training_on_a_listed_set_is_refused_unless_forced(
    write_run: Write, rembed: Rembed, tmp_path: Path, rows: Path
) -> None:
    listed = tmp_path / "banking77.jsonl"
    shutil.copy(rows, listed)
    words = ["train", write_run(), f"data.sources.0.path={listed}", "training.steps=1"]
    refused = rembed(*words, code=2).output
    assert "Banking77" in refused
    assert "force_contaminated" in refused
    assert not RunFolder(tmp_path / "runs" / "run").steps()
    rembed(*words, "data.force_contaminated=true")


def work(folder: Path, name: str, report: Callable[[str], None]) -> None:
    """Do a stage in this process."""
    experiment = ExperimentFolder(folder)
    find_stage(read_experiment(experiment), name).work(experiment, report)


def test_an_experiment_compares_its_data_and_scores_its_runs(
    tmp_path: Path, rows: Path, tiny_backbone: Path, leaking: Path
) -> None:
    folder = tmp_path / "pair"
    settings = config.ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "pair",
            "output_dir": str(tmp_path),
            "recipe": {
                "data": {"sources": [{"kind": "files", "path": str(rows)}], "query_max_tokens": 32},
                "training": {"batch_size": 8, "steps": 2, "precision": "fp32", "threads": 1},
                "logging": {"tensorboard": False},
                "evaluation": {"tasks": [{"kind": "world"}], "every": 2},
            },
            "runs": [{"name": "one", "backbone": {"kind": "pretrained", "path": str(tiny_backbone)}}],
            "evaluation": {"tasks": [{"kind": "beir", "path": str(leaking)}]},
        }
    )
    write_json(folder / "config.resolved.json", settings.model_dump(mode="json"))
    said: list[str] = []
    work(folder, "contamination", said.append)
    assert [line.split(":")[0] for line in said] == [
        "contamination of tiny",
        "contamination of world-heldout",
    ]
    assert json.loads((folder / "contamination.json").read_text())["tasks"]["tiny"]["documents"]["exact"] == 1
    work(folder, "train-one", said.append)
    run = RunFolder(folder / "runs" / "one")
    assert sorted(_metrics(run)[2]["evaluation"]) == ["mean", "world-heldout"]
    assert resolve("run:one@best", folder).folder == run.checkpoint(_best(run)["step"])


def test_rows_that_name_a_listed_set_are_refused(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "red cat", "pos": ["red cat dog"], "source": "rarb_arc"}\n' * 9)
    assert "RAR-b" in rembed("train", write_run(), f"data.sources.0.path={path}", code=2).output


def test_what_an_adapted_embedder_gained_and_forgot_is_one_table(
    write_run: Write, rembed: Rembed, tmp_path: Path, leaking: Path
) -> None:
    section = {"tasks": [{"kind": "beir", "path": str(leaking)}], "every": 6}
    rembed("train", write_run(extra={"evaluation": section}, learning_rate=1e-2))
    run = RunFolder(tmp_path / "runs" / "run")
    general = write_beir(tmp_path / "general")
    words = ["evaluate", f"{run.path}@first", f"{run.path}@last", "--compare", "-t", leaking, "-t", general]
    said = rembed(*words, "-o", tmp_path / "out").output
    assert said.count("1 of 2 tasks scored before") == 2, "those that the run took itself"
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [task["task"] for task in record["tasks"]] == ["tiny", "general", "mean over tasks"]
    scores = scores_by_step(run)
    for task in record["tasks"][:2]:
        found = [
            next(entry["main_score"] for entry in scores[step]["tasks"] if entry["task"] == task["task"])
            for step in (0, 6)
        ]
        assert [task["a"], task["b"]] == found
    assert record["tasks"][0]["a"] != record["tasks"][0]["b"]
    assert "where is" in (tmp_path / "out" / "comparison.csv").read_text(), "the texts of the queries"
    again = rembed("evaluate", f"{run.path}@first", "--compare", code=2).output
    assert "1 models" in again
    same = rembed("evaluate", f"{run.path}@last", f"{run.path}@6", "--compare", "-t", general, code=2).output
    assert "are one model" in same

    rembed("evaluate", f"{run.path}@last", "-t", leaking, "--truncate", "8")
    rembed("evaluate", f"{run.path}@last", "-t", leaking, "--truncate", "8", "--quantize", "binary")
    said = " ".join(rembed("report", run.path).output.split())
    for kept in ("32 entries, float32 128", "8 entries, float32 32", "8 entries, binary 1"):
        assert kept in said
    page = (run.path / "report" / "index.html").read_text()
    assert "How the models were asked" in page
    assert "bidirectional, mean" in page
    assert [entry["task"] for entry in scores_by_step(run)[6]["tasks"]] == ["tiny", "general"], "none is lost"

    # The way back toward the start, scored on both tasks: the file of the documentation, with another run and tasks.
    example = (REPOSITORY / "configs" / "merges" / "toward-start.yaml").read_text()
    path = tmp_path / "toward-start.yaml"
    path.write_text(example.replace("runs/quickstart/runs/base", str(run.path)))
    tasks = json.dumps([{"kind": "beir", "path": str(task)} for task in (leaking, general)])
    changes = [f"evaluation.tasks={tasks}", f"output_dir={tmp_path / 'merges'}"]
    rembed("merge", path, *changes, "path.t=[0.0, 1.0]", "path.beside=[]")
    points = json.loads((tmp_path / "merges" / "toward-start" / "merge.json").read_text())["points"]
    ends = {point["name"]: point["scores"] for point in points if point["name"] in ("slerp-0", "slerp-1")}
    for task in record["tasks"][:2]:
        for end, side in (("slerp-0", "a"), ("slerp-1", "b")):
            assert ends[end][task["task"]]["main_score"] == pytest.approx(task[side], abs=1e-5)


def test_held_out_rows_are_scored_while_training_and_after(
    tmp_path: Path, write_run: Write, rembed: Rembed, rows: Path
) -> None:
    data = {"sources": [{"kind": "files", "path": str(rows)}], "negatives": 2, "holdout": 0.2}
    extra = {"data": {**data, "query_max_tokens": 32, "document_max_tokens": 32}}
    path = write_run(extra=extra)
    output = rembed("train", path, "evaluation.every=3").output
    run = RunFolder.of(_settings(path))
    assert re.search(r"held out: \d+ of 40 rows", output)
    scores = {step: record["evaluation"] for step, record in _metrics(run).items() if "evaluation" in record}
    assert sorted(scores) == [0, 3, 6]
    assert all(set(each) == {"holdout", "mean"} for each in scores.values())
    queries = {json.loads(line)["text"] for line in (run.holdout / "queries.jsonl").read_text().splitlines()}
    assert queries
    assert queries < {record["query"][1] for record in read_lines(rows)}

    # Stopped after step 3 and gone on, and scored again afterwards: the same.
    whole = _weights(run, 6)
    for folder in (run.checkpoint(6), run.state(6)):
        shutil.rmtree(folder)
    shutil.rmtree(run.holdout)
    rembed("train", path, "evaluation.every=3", "--resume")
    assert _weights(run, 6) == whole
    assert _metrics(run)[6]["evaluation"] == scores[6]
    assert "holdout" in rembed("evaluate", f"{run.path}@6").output
    [entry] = load_scores(run.evaluation / "step-000006")["tasks"]
    assert entry["task"] == "holdout"
    assert entry["main_score"] == pytest.approx(scores[6]["holdout"])
    assert "data.holdout" in rembed("train", path, "data.holdout=0.3", "--resume", code=2).output
    assert "holdout" in rembed("runs", "show", run.path).output

    # Without it the rows are learnt: another model.
    del extra["data"]["holdout"]
    rembed("train", write_run("all", extra=extra))
    assert _weights(RunFolder(tmp_path / "runs" / "all"), 6) != whole
