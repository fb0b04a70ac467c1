"""A whole experiment on given backbones, and the verbs on what it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder
from reasoning_embedding.config import Evaluation, ExperimentConfig, load_config, resolved_json
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import ReasoningEmbeddingError
from reasoning_embedding.experiments import scoring
from reasoning_embedding.experiments.records import StageRecords
from reasoning_embedding.experiments.runner import read_experiment as read_experiment_settings
from reasoning_embedding.experiments.stages import plan_stages
from reasoning_embedding.files import write_json
from reasoning_embedding.hrsa.trajectory import read_trajectories
from reasoning_embedding.reports.reading import read_experiment
from tests.damage import damaged_files, is_refused, reading, same_or_refused

Rembed = Callable[..., Any]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, rows: Path, tiny_backbone: Path, beir: Path) -> Path:
    """The YAML of an experiment of two seeds."""
    folder = tmp_path_factory.mktemp("experiment")
    probe = folder / "probe.jsonl"
    words = [
        "red cat dog",
        "blue fish",
        "the king",
        "moon",
        "old house",
        "star sea road",
        "queen bird",
        "fox tree",
    ]
    probe.write_text("".join(json.dumps({"text": f"{a} and {b}"}) + "\n" for a in words for b in words))
    backbone = {"kind": "pretrained", "path": str(tiny_backbone)}
    settings = {
        "kind": "experiment",
        "name": "pair",
        "output_dir": str(folder),
        "jobs": 2,
        "recipe": {
            "data": {"sources": [{"kind": "files", "path": str(rows)}], "query_max_tokens": 32},
            "training": {
                "batch_size": 8,
                "steps": 4,
                "learning_rate": 1e-3,
                "precision": "fp32",
                "threads": 1,
            },
            "checkpoints": {"every": 2, "log_spaced": False},
            "logging": {"tensorboard": False},
        },
        "runs": [
            {"name": "one", "backbone": backbone, "seed": 0},
            {"name": "two", "backbone": backbone, "seed": 1},
        ],
        "evaluation": {"tasks": [{"kind": "beir", "path": str(beir)}], "baselines": ["bm25", "untrained"]},
        "analysis": {
            "probe": {"kind": "text", "path": str(probe)},
            "pairs": [{"name": "seeds", "a": "run:one@last", "b": "run:two@last"}],
            "realignment": [{"name": "drift", "run": "one", "against": "first"}],
            "seed_band": "seeds",
            "max_rows": 200,
            "k": [5, 10],
        },
    }
    path = folder / "experiment.yaml"
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def finished(experiment: Path) -> ExperimentFolder:
    """The experiment with every stage done, in this process; no test changes it."""
    settings = load_config(experiment, expect=ExperimentConfig).config
    folder, stages = ExperimentFolder.of(settings), plan_stages(settings)
    records = StageRecords(folder, stages)
    for stage in stages:
        stage.work(folder, lambda _: None)
        records.finish(stage.name, 1.0)
    return folder


def test_an_experiment_runs_once_and_every_verb_reads_it(
    experiment: Path, finished: ExperimentFolder, beir: Path, rembed: Rembed, tmp_path: Path
) -> None:
    again = rembed("experiment", experiment)
    for stage in ("contamination", "train-one", "train-two", "evaluate", "analyze", "track"):
        assert f"[{stage}] done before" in again.output
    one, two = finished.run("one"), finished.run("two")
    for place in (
        one.evaluation / "step-000004",
        two.evaluation / "step-000000",
        finished.baseline("bm25"),
    ):
        scores = json.loads((place / "scores.json").read_text())
        assert not scores["failed"]
        assert 0 <= scores["tasks"][0]["ndcg_at_10"] <= 1
    assert json.loads((finished.baseline("bm25") / "scores.json").read_text())["tasks"][0]["main_score"] == 1
    pair = json.loads(finished.pair("seeds").read_text())
    assert 0 < pair["last"]["cka"] <= 1
    [drift] = read_trajectories(finished.track)
    assert (drift.name, drift.run, drift.against) == ("drift", "one", "run:one@first")
    assert drift.steps == (0, 2, 4)
    assert drift.series["cka"][0] == pytest.approx(1)
    assert "seeds" in finished.page.read_text()

    scored = rembed("evaluate", one.path, "--task", beir, "--steps", "2", "--output", tmp_path / "scores")
    assert "step-000002  tiny  nDCG@10" in scored.output
    compared = rembed(
        "analyze", one.checkpoint(0), one.checkpoint(4), "--probe", experiment.parent / "probe.jsonl",
        "--output", tmp_path / "pair.json",
    )  # fmt: skip
    assert "cka " in compared.output
    assert json.loads((tmp_path / "pair.json").read_text())["a"]["path"].endswith("step-000000")

    (tmp_path / "texts.txt").write_text("red cat\nblue dog\n")
    rembed("embed", one.checkpoint(4), tmp_path / "texts.txt", "-o", tmp_path / "vectors.npy")
    assert np.load(tmp_path / "vectors.npy").shape == (2, 32)
    assert "report: " in rembed("report", finished.path).output
    assert "one" in rembed("runs", "ls", finished.path).output


def test_a_byte_of_any_file(experiment: Path, finished: ExperimentFolder) -> None:
    """Readers of an experiment give the same or refuse, and running it again does what was damaged anew."""
    settings = load_config(experiment, expect=ExperimentConfig).config
    write_json(finished.config_json, resolved_json(settings), summed=True)

    def numbers() -> dict[str, Any]:
        return {
            "settings": reading(lambda: read_experiment_settings(finished)),
            "page": reading(lambda: repr(read_experiment(finished.path))),
        }

    def all_done() -> bool:
        stages = plan_stages(settings)
        records = StageRecords(finished, stages)
        return all(reading(lambda name=stage.name: records.is_done(name)) is True for stage in stages)

    wanted, seen = numbers(), 0
    assert not any(map(is_refused, wanted.values()))
    assert all_done()
    results = (finished.track, finished.contamination, *finished.pairs.glob("*.json"))
    for file in damaged_files(finished.path):
        found = numbers()
        assert same_or_refused(found, wanted), file
        seen += found != wanted
        # What an experiment made is done again; a run's own records are repaired by resuming it.
        if file in results or file.name == "scores.json" or file.name == "model.safetensors":
            last = file.parent.name in ("step-000004", *finished.baseline_names()) or file in results
            assert not (last and all_done()), f"{file} was not missed"
    assert seen > 10


def test_a_stage_that_fails_says_why(
    experiment: Path, rembed: Rembed, tmp_path: Path, tiny_tokenizer: Path
) -> None:
    shutil.copytree(tiny_tokenizer, tmp_path / "other")
    (tmp_path / "other" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    words = [experiment, f"output_dir={tmp_path}", "evaluation=null", "analysis=null", "jobs=1"]
    result = rembed("experiment", *words, f"runs.1.backbone.path={tmp_path / 'other'}", code=2)
    assert "the input contract is broken: 'one' and 'two' have different chat templates" in result.output
    assert "train-one.log" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "pair" / "runs").exists()


def test_a_run_of_an_experiment_whose_backbone_is_absent(
    experiment: Path, rembed: Rembed, tmp_path: Path
) -> None:
    words = [experiment, f"output_dir={tmp_path}", "--run", "one", "analysis=null"]
    assert "no such folder" in rembed("train", *words, "runs.0.backbone.path=./absent", code=2).output


def test_other_settings_set_the_old_run_aside(
    experiment: Path, finished: ExperimentFolder, rembed: Rembed, tmp_path: Path
) -> None:
    folder = ExperimentFolder(tmp_path / "pair")
    shutil.copytree(finished.path, folder.path)

    def last(run: Path) -> bytes:
        return (RunFolder(run).checkpoint(4) / "model.safetensors").read_bytes()

    old = last(folder.run("two").path)
    words = [experiment, f"output_dir={tmp_path}", "evaluation=null", "analysis=null", "runs.1.seed=5"]
    said = rembed("experiment", *words).output
    assert "[train-one] done before" in said
    assert "[train-two] done in" in said
    assert last(folder.path / "set-aside" / "runs" / "two.1") == old
    assert last(folder.run("two").path) != old


def test_a_task_that_fails_for_a_run_fails_the_evaluation(
    experiment: Path, finished: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_config(experiment, expect=ExperimentConfig).config
    evaluation = Evaluation.model_validate({"tasks": [{"kind": "world"}], "steps": [0]})

    def score(*_: Any, name: str, **__: Any) -> dict[str, Any]:
        return {"model": name, "failed": [{"task": "t", "error": "e"}]}

    monkeypatch.setattr(scoring, "score_model", score)
    with pytest.raises(
        ReasoningEmbeddingError, match="pair-one: t: e\npair-two: t: e\n  -> repair them and run again"
    ):
        scoring.evaluate_runs(settings, evaluation, finished, lambda _: None, World())


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no text"), (b"cat\n\ndog\n", ":2: text is empty"), (b"\xff\xfe", "not UTF-8")],
)
def test_texts_that_cannot_be_embedded(
    finished: ExperimentFolder, rembed: Rembed, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "texts.txt").write_bytes(content)
    model = finished.run("one").checkpoint(4)
    output = rembed("embed", model, tmp_path / "texts.txt", "-o", tmp_path / "v.npy", code=2).output
    assert said in output


def test_words_that_cannot_be_read(rembed: Rembed, tmp_path: Path, beir: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for words, said in (
        (
            ("evaluate", tmp_path / "run", "--task", beir, "--steps", "first,last"),
            "cannot read 'first,last' as steps",
        ),
        (("analyze", "./absent", "./other", "--probe", "absent.jsonl"), "'./absent' names no model"),
        (("analyze", "./absent", "./other", "--tokens", "some"), "no token rule 'some'"),
        (("report", tmp_path / "absent"), "no such folder"),
    ):
        assert said in rembed(*words, code=2).output
