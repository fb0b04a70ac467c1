"""A whole experiment on given backbones, and the verbs on what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding.checkpoints import RunFolder

Rembed = Callable[..., Any]


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five documents, three queries."""
    folder = tmp_path_factory.mktemp("beir") / "tiny"
    folder.mkdir()
    documents = ["red cat dog", "blue fish river", "king of the city", "new moon and sun", "old stone house"]
    queries = {"q0": ("red dog", "d0"), "q1": ("fish in river", "d1"), "q2": ("the city king", "d2")}
    lines = [json.dumps({"_id": f"d{i}", "title": "", "text": text}) for i, text in enumerate(documents)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    (folder / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": name, "text": text}) for name, (text, _) in queries.items())
    )
    rows = "".join(f"{name}\t{document}\t1\n" for name, (_, document) in queries.items())
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


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


def test_an_experiment_runs_once_and_every_verb_reads_it(
    experiment: Path, beir: Path, rembed: Rembed, tmp_path: Path
) -> None:
    first = rembed("experiment", experiment)
    folder = experiment.parent / "pair"
    assert "[train-two] done in" in first.output
    for name in ("runs/one/evaluation/step-000004", "runs/two/evaluation/step-000000", "evaluation/bm25"):
        scores = json.loads((folder / name / "scores.json").read_text())
        assert not scores["failed"]
        assert 0 <= scores["tasks"][0]["ndcg_at_10"] <= 1
    assert (
        json.loads((folder / "evaluation" / "bm25" / "scores.json").read_text())["tasks"][0]["main_score"]
        == 1
    )
    pair = json.loads((folder / "hrsa" / "pairs" / "seeds.json").read_text())
    assert 0 < pair["last"]["cka"] <= 1
    drift = json.loads((folder / "hrsa" / "realignment" / "drift.json").read_text())
    assert drift["steps"] == [0, 2, 4]
    assert drift["series"]["cka"][0] == pytest.approx(1)
    page = (folder / "report" / "index.html").read_text()
    assert "seeds" in page

    second = rembed("experiment", experiment)
    for stage in ("train-one", "train-two", "evaluate", "analyze", "track"):
        assert f"[{stage}] done before" in second.output

    run = RunFolder(folder / "runs" / "one")
    again = rembed("evaluate", run.path, "--task", beir, "--steps", "2", "--output", tmp_path / "scores")
    assert "step-000002  tiny  nDCG@10" in again.output
    compared = rembed(
        "analyze", run.checkpoint(0), run.checkpoint(4), "--probe", experiment.parent / "probe.jsonl",
        "--output", tmp_path / "pair.json",
    )  # fmt: skip
    assert "cka " in compared.output
    assert json.loads((tmp_path / "pair.json").read_text())["a"]["path"].endswith("step-000000")

    (tmp_path / "texts.txt").write_text("red cat\nblue dog\n")
    rembed("embed", run.checkpoint(4), tmp_path / "texts.txt", "-o", tmp_path / "vectors.npy")
    assert np.load(tmp_path / "vectors.npy").shape == (2, 32)
    assert "report: " in rembed("report", folder).output
    assert "one" in rembed("runs", "ls", folder).output


def test_a_stage_that_fails_says_why(experiment: Path, rembed: Rembed, tmp_path: Path) -> None:
    result = rembed(
        "experiment", experiment, f"output_dir={tmp_path}", "runs.0.backbone.path=./absent", code=2
    )
    assert "no such folder" in result.output
    assert "Traceback" not in result.output


def test_other_settings_set_the_old_run_aside(experiment: Path, rembed: Rembed, tmp_path: Path) -> None:
    words = [experiment, f"output_dir={tmp_path}", "evaluation=null", "analysis=null", "jobs=2"]
    rembed("experiment", *words)
    old = (
        tmp_path / "pair" / "runs" / "two" / "checkpoints" / "step-000004" / "model.safetensors"
    ).read_bytes()
    again = rembed("experiment", *words, "runs.1.seed=5")
    assert "[train-one] done before" in again.output
    kept = tmp_path / "pair" / "set-aside" / "runs" / "two.1"
    assert (kept / "checkpoints" / "step-000004" / "model.safetensors").read_bytes() == old
    new = (
        tmp_path / "pair" / "runs" / "two" / "checkpoints" / "step-000004" / "model.safetensors"
    ).read_bytes()
    assert new != old


def test_a_task_that_fails_fails_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Path
) -> None:
    from reasoning_embedding.config import ExperimentConfig, load_config
    from reasoning_embedding.distributed import World
    from reasoning_embedding.errors import ReasoningEmbeddingError
    from reasoning_embedding.evaluation import run as engine
    from reasoning_embedding.experiments import evaluations

    settings = load_config(experiment, [f"output_dir={tmp_path}"]).config
    assert isinstance(settings, ExperimentConfig)
    assert settings.evaluation is not None
    checkpoint = RunFolder(tmp_path / "pair" / "runs" / "one").checkpoint(0)
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    RunFolder(tmp_path / "pair" / "runs" / "two").checkpoint(0).mkdir(parents=True)
    (RunFolder(tmp_path / "pair" / "runs" / "two").checkpoint(0) / "config.json").write_text("{}")
    monkeypatch.setattr(evaluations, "load_embedder", lambda _: torch.nn.Identity())
    monkeypatch.setattr(evaluations, "_baseline", lambda *_: (None, "bm25", "r"))
    monkeypatch.setattr(
        engine,
        "evaluate",
        lambda *_, model_name, **__: {"model": model_name, "failed": [{"task": "t", "error": "e"}]},
    )
    with pytest.raises(ReasoningEmbeddingError, match="pair-one: t: e\npair-two: t: e"):
        evaluations.evaluate_runs(settings, settings.evaluation, tmp_path / "pair", lambda _: None, World())


def test_backbones_with_other_inputs_are_refused(
    experiment: Path, rembed: Rembed, tmp_path: Path, tiny_backbone: Path
) -> None:
    import shutil

    from tokenizers.processors import TemplateProcessing

    from tests.factories import build_tiny_tokenizer

    ending = tmp_path / "ending"
    shutil.copytree(tiny_backbone, ending)
    tokenizer = build_tiny_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(ending)
    result = rembed(
        "experiment", experiment, f"output_dir={tmp_path}", f"runs.1.backbone.path={ending}", code=2
    )
    assert "'one' and 'two' differ in token_hash, ends_with" in result.output
    assert not (tmp_path / "pair" / "runs").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no text"), (b"cat\n\ndog\n", ":2: this line is empty"), (b"\xff\xfe", "not UTF-8")],
)
def test_texts_that_cannot_be_embedded(rembed: Rembed, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "texts.txt").write_bytes(content)
    output = rembed("embed", tmp_path, tmp_path / "texts.txt", "-o", tmp_path / "v.npy", code=2).output
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
