"""Training with more than plain InfoNCE: logged, resumed bitwise, and refused where it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.random_model import save_random_model
from reasoning_embedding import config
from reasoning_embedding.backbones.load import load_tokenizer
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.state import read_record
from reasoning_embedding.files import hash_file, read_json, write_json
from tests.factories import read_lines, write_lines

Write = Callable[..., Path]
Rembed = Callable[..., Any]

LOSS: dict[str, Any] = {
    "temperature": 0.05,
    "learn_temperature": {"learning_rate_factor": 5.0},
    "directions": ["query_document", "query_query", "document_document"],
    "mask_same_text": True,
    "false_negatives": {"margin": 0.1},
    "matryoshka": [16],
    "distillation": {"weight": 0.3},
    "uniformity": {"weight": 0.1},
    "sigreg": {"weight": 0.02, "directions": 16},
    "anchor": {"weight": 1.0},
}


@pytest.fixture
def scored(rows: Path, tmp_path: Path) -> Path:
    """The rows with a teacher's scores."""
    records = read_lines(rows)
    path = tmp_path / "scored.jsonl"
    for record in records:
        record |= {"pos_scores": [3.0], "neg_scores": [0.5, -0.5]}
    write_lines(path, records)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """A teacher of half the student's width."""
    folder = tmp_path_factory.mktemp("teacher") / "step-000000"
    shape = config.Architecture(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
    )
    save_random_model(folder, shape, load_tokenizer(str(tiny_tokenizer)), max_tokens=64)
    return folder


def _metrics(run: RunFolder) -> list[dict[str, Any]]:
    return read_lines(run.metrics)


def test_a_run_with_every_term_is_logged_and_resumes_bitwise(
    write_run: Write, rembed: Rembed, tmp_path: Path, scored: Path
) -> None:
    source = f"data.sources.0.path={scored}"
    for name in ("whole", "cut"):
        rembed("train", write_run(name, {"loss": LOSS}), source)
    whole, cut = (RunFolder(tmp_path / "runs" / name) for name in ("whole", "cut"))
    for folder in (cut.checkpoint(6), cut.state(6)):
        shutil.rmtree(folder)
    rembed("train", write_run("cut", {"loss": LOSS}), source, "--resume")

    names = {"infonce", "infonce_16", "distillation", "uniformity", "sigreg", "anchor", "temperature"}
    expected, found = _metrics(whole), _metrics(cut)
    assert names < expected[0].keys()
    assert expected[0]["anchor"] == pytest.approx(0, abs=1e-5)  # before its first step it is its own anchor
    assert expected[-1]["anchor"] > 1e-4
    assert expected[0]["temperature"] == pytest.approx(0.05)
    assert expected[-1]["temperature"] != expected[0]["temperature"]
    for name in ("loss", *names):
        assert [record[name] for record in found] == [record[name] for record in expected]
    assert read_record(cut.state(6))["loss"] == read_record(whole.state(6))["loss"]
    weights = [load_file(run.checkpoint(6) / "model.safetensors") for run in (whole, cut)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_distillation_without_scores_is_refused_before_training(
    write_run: Write, rembed: Rembed, tmp_path: Path
) -> None:
    result = rembed("train", write_run(extra={"loss": {"distillation": {}}}), code=2)
    assert "40 of 40 rows have none" in result.output
    assert "pos_scores" in result.output
    assert not RunFolder(tmp_path / "runs" / "run").steps()


def test_a_teachers_vectors_are_learnt(
    write_run: Write, rembed: Rembed, rows: Path, tmp_path: Path, checkpoint: Path
) -> None:
    """From ``data score --vectors`` to a student that has the teacher's similarities, and what is refused on the way."""
    score = (
        "data",
        "score",
        checkpoint,
        rows,
        "-o",
        tmp_path / "scored.jsonl",
        "--vectors",
        tmp_path / "teacher",
    )
    rembed(*score)
    learning = {"loss": {"teacher_vectors": {"folder": str(tmp_path / "teacher"), "weight": 5.0}}}
    run = RunFolder(tmp_path / "runs" / "whole")
    said = rembed("train", write_run("whole", learning, steps=12)).output
    assert f"learning from vectors of {checkpoint}, 16 dimensions" in " ".join(said.split())
    measured = [record["teacher_vectors"] for record in _metrics(run)]
    rembed("train", write_run("control", learning, steps=12), "loss.teacher_vectors.weight=1e-9")
    control = _metrics(RunFolder(tmp_path / "runs" / "control"))[-1]["teacher_vectors"]
    assert measured[-1] < 0.8 * min(measured[0], control)
    # Killed and taken up, by a folder that lies elsewhere.
    cut = RunFolder(tmp_path / "runs" / "cut")
    shutil.copytree(run.path, cut.path)
    for folder in (cut.state(12), cut.checkpoint(12)):
        shutil.rmtree(folder)
    moved = shutil.copytree(tmp_path / "teacher", tmp_path / "moved")
    learning["loss"]["teacher_vectors"]["folder"] = str(moved)
    again = write_run("cut", learning, steps=12)
    rembed("train", again, "--resume")
    assert [record["teacher_vectors"] for record in _metrics(cut)] == measured
    # Another teacher's vectors of the same texts.
    prompted = (
        *score[:5],
        tmp_path / "other.jsonl",
        "--vectors",
        tmp_path / "other",
        "--query-prompt",
        "find ",
    )
    rembed(*prompted)
    shutil.rmtree(cut.state(12))
    other = f"loss.teacher_vectors.folder={tmp_path / 'other'}"
    output = rembed("train", again, "--resume", other, code=2).output
    assert "the teacher's vectors are not those that the run there was trained on" in " ".join(output.split())


def test_a_teachers_vectors_that_cannot_be_learnt_are_refused_before_training(
    write_run: Write, rembed: Rembed, rows: Path, tmp_path: Path, checkpoint: Path
) -> None:
    folder = tmp_path / "teacher"
    rembed("data", "score", checkpoint, rows, "-o", tmp_path / "scored.jsonl", "--vectors", folder)
    settings = write_run(extra={"loss": {"teacher_vectors": {"folder": str(folder)}}})

    def refused(*words: object) -> str:
        outputs = [
            " ".join(rembed(*verb, settings, *words, code=2).output.split())
            for verb in (["train"], ["config", "check", "--data"])
        ]
        assert not RunFolder(tmp_path / "runs" / "run").steps()
        return outputs[0]

    assert "no teacher's vectors lie here" in refused("loss.teacher_vectors.folder=absent")
    more = write_lines(
        tmp_path / "more.jsonl", [*read_lines(rows), {"query": "new", "pos": ["newer"], "neg": []}]
    )
    said = refused(f"data.sources.0.path={more}", "data.negatives=0")
    assert "2 of" in said
    assert "texts have no vector, the first is 'new'" in said
    vectors = np.load(folder / "vectors.npy")
    vectors[0, 0] = np.nan
    np.save(folder / "vectors.npy", vectors)
    assert "are damaged: their sums are others" in refused()
    record = read_json(folder / "teacher.json")
    record["sums"]["vectors.npy"] = hash_file(folder / "vectors.npy")
    write_json(folder / "teacher.json", record, summed=True)
    assert "has length nan, not 1" in refused()


def test_widths_beyond_the_model_are_refused_before_training(
    write_run: Write, rembed: Rembed, tmp_path: Path
) -> None:
    result = rembed("train", write_run(extra={"loss": {"matryoshka": [16, 4096]}}), code=2)
    assert "width 4096" in result.output
    assert not RunFolder(tmp_path / "runs" / "run").steps()


@pytest.mark.parametrize(("debiased", "code"), [(True, 2), (False, 0)])
def test_batches_too_small_for_a_debiased_anchor_are_refused_before_training(
    write_run: Write, rembed: Rembed, tmp_path: Path, debiased: bool, code: int
) -> None:
    loss = {"anchor": {"weight": 1.0, "debiased": debiased}}
    one_query = ("training.batch_size=1", "training.steps=1", "data.negatives=0")
    result = rembed("train", write_run(extra={"loss": loss}), *one_query, code=code)
    assert bool(RunFolder(tmp_path / "runs" / "run").steps()) is not debiased
    if debiased:
        said = " ".join(result.output.split())
        assert "loss.anchor.debiased: the batch of step 1 has 2 distinct texts" in said
        assert "debiased CKA is defined from 4 on" in said
        assert "raise training.batch_size, or set loss.anchor.debiased: false" in said
