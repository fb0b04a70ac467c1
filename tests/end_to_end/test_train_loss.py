"""Training with more than plain InfoNCE: logged, resumed bitwise, and refused where it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.state import read_record
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
