"""Scoring the checkpoints of an experiment's runs, and the baselines they stand beside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.checkpoints import RunFolder, content_hash, step_name
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.checkpoints.references import pick_step
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError

Report = Callable[[str], None]


def evaluate_runs(
    experiment: config.ExperimentConfig,
    evaluation: config.Evaluation,
    folder: Path,
    report: Report,
    world: World,
) -> None:
    """Score the chosen checkpoints of every run, and the baselines; all ranks of `world` call together.

    Raises
    ------
    ReasoningEmbeddingError
        If a task failed for a run; the others are scored, and the next call tries the failed ones again. A
        baseline may fail: BM25 has no similarity of two sentences.
    """
    from reasoning_embedding.checkpoints.scores import revision_of
    from reasoning_embedding.evaluation.run import evaluate

    template = experiment.recipe.data.query_template
    failed: list[str] = []
    for run_entry in experiment.runs:
        run = RunFolder(folder / "runs" / run_entry.name)
        for step in chosen_steps(run, evaluation.steps):
            checkpoint = run.checkpoint(step)
            scores = evaluate(
                load_embedder(checkpoint).to(world.device),
                evaluation.tasks,
                run.evaluation / step_name(step),
                model_name=f"{experiment.name}-{run_entry.name}",
                revision=revision_of(step, content_hash(checkpoint)),
                step=step,
                settings=evaluation,
                query_template=template,
                report=report,
                world=world,
            )
            failed += _failures(scores)
    first = RunFolder(folder / "runs" / experiment.runs[0].name)
    for baseline in dict.fromkeys(evaluation.baselines):
        model, name, revision = _baseline(baseline, experiment.name, first.checkpoint(0))
        model = model.to(world.device) if isinstance(model, Embedder) else model
        evaluate(
            model,
            evaluation.tasks,
            folder / "evaluation" / baseline,
            model_name=name,
            revision=revision,
            step=None,
            settings=evaluation,
            query_template=template,
            report=report,
            world=world,
        )
    if failed:
        raise ReasoningEmbeddingError("\n".join(["tasks failed", *failed]), todo="mend them and run again")


def _failures(scores: dict[str, Any]) -> list[str]:
    return [f"{scores['model']}: {entry['task']}: {entry['error']}" for entry in scores["failed"]]


def _baseline(baseline: str, experiment: str, checkpoint: Path) -> tuple[Any, str, str]:
    """Return a baseline, the name and the revision that its scores are filed under."""
    if baseline == "bm25":
        from reasoning_embedding.data.mining.bm25 import BM25

        return BM25(), baseline, BM25().revision
    if baseline == "tfidf":
        from reasoning_embedding.evaluation.floors.tfidf import TfIdf

        return TfIdf(), baseline, TfIdf().revision
    revision = f"seed-0-{content_hash(checkpoint)[:12]}"
    return untrained_twin(checkpoint), f"{experiment}-{baseline}", revision


def query_template(run: RunFolder) -> str | None:
    """Return the template that a run's queries were trained with, or None where no configuration is kept."""
    try:
        resolved = json.loads(run.config_json.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return resolved.get("data", {}).get("query_template")


def chosen_steps(run: RunFolder, steps: str | list[int]) -> list[int]:
    """Checkpoints of a run that ``ends``, ``all``, ``best`` or a list of steps names.

    Raises
    ------
    InputError
        If the run has no checkpoint, not one of those listed, or was not scored while it trained.
    """
    there = run.steps()
    if not there:
        raise InputError("this run has no checkpoint", where=str(run.path), todo="train it first")
    if steps == "all":
        return there
    if steps == "best":
        return [pick_step(run, "best", f"{run.path.name}@best")]
    if steps == "ends":
        return sorted({there[0], there[-1]})
    missing = [step for step in steps if step not in there]
    if missing:
        raise InputError(
            f"no checkpoint of steps {missing}", where=str(run.path), todo=f"steps there: {there}"
        )
    return [int(step) for step in steps]


def untrained_twin(checkpoint: Path) -> Embedder:
    """Return an embedder of a checkpoint's architecture, tokenizer and pooling, with random weights."""
    from transformers import AutoModel

    embedder = load_embedder(checkpoint)
    implementation = embedder.model.config._attn_implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        embedder.model = AutoModel.from_config(embedder.model.config, attn_implementation=implementation)
    return embedder
