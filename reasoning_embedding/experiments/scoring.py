"""Scoring models: the steps of runs, the baselines beside them, and the live model of a run while it trains."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder, content_hash, step_name
from reasoning_embedding.checkpoints.references import ResolvedModel, pick_step, step_of
from reasoning_embedding.checkpoints.run_records import read_settings
from reasoning_embedding.checkpoints.scores import (
    FILE,
    live_revision,
    revision_of,
    revisions_of_checkpoint,
    set_aside,
)
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError
from reasoning_embedding.files import atomic_file, explain_disk_errors
from reasoning_embedding.progress import Report

if TYPE_CHECKING:
    from reasoning_embedding.backbones import Embedder
    from reasoning_embedding.checkpoints.models import LibraryEmbedder
    from reasoning_embedding.distributed import World
    from reasoning_embedding.evaluation.asking import ModelPrompts

#: Facts about a task, not scores of it.
_NO_SCORES = {
    "main_score",
    "seconds",
    "queries",
    "documents",
    "unjudged",
    "pairs",
    "train",
    "test",
    "classes",
}


def score_model(
    model: ResolvedModel,
    evaluation: config.Evaluation,
    folder: Path,
    *,
    name: str,
    step: int | None,
    template: str,
    report: Report,
    world: World,
) -> dict[str, Any]:
    """Score a model on tasks; what is scored already is not scored again. All ranks of `world` call together.

    Parameters
    ----------
    model : ResolvedModel
        Any embedder; see :func:`reasoning_embedding.checkpoints.models.open_embedder`.
    evaluation : config.Evaluation
        Tasks and settings.
    folder : Path
        Where its scores lie.
    name : str
        What scores call it.
    step : int or None
        Its step, of a run's.
    template : str
        Of its queries; see :func:`query_template`.
    report : callable
        Takes lines of progress.
    world : World
        Ranks that share the texts.

    Returns
    -------
    dict
        As :func:`reasoning_embedding.checkpoints.scores.load_scores`.

    Raises
    ------
    InputError
        If there is no such model.
    SetupError
        If it is a model of the Hub, which cannot be reached.
    """
    from reasoning_embedding.checkpoints.models import open_embedder
    from reasoning_embedding.evaluation.run import evaluate

    embedder = open_embedder(model, device=world.device, report=report if world.is_main else None)
    known_as = revisions_of_checkpoint(model.folder) if model.run is not None and model.provenance else []
    return evaluate(
        embedder,
        evaluation,
        folder,
        model_name=name,
        revision=revision_of(step, content_hash(model.files)),
        step=step,
        query_template=template,
        own_prompts=_prompts(model, embedder),
        known_as=known_as,
        report=report,
        world=world,
    )


def _prompts(model: ResolvedModel, embedder: Embedder | LibraryEmbedder) -> ModelPrompts | None:
    """The prompts that a model is asked with: its own, else mteb's. A bare language model has none."""
    from reasoning_embedding.evaluation.asking import ModelPrompts, prompts_known_to_mteb

    if not (model.files / "modules.json").is_file():
        return None
    default = embedder.prompts.get(embedder.default_prompt_name or "")
    if model.provenance:
        return ModelPrompts(embedder.prompts, default, made_here=True)
    known = None if any(embedder.prompts.values()) else prompts_known_to_mteb(str(model.path))
    return known or ModelPrompts(embedder.prompts, default)


def evaluate_runs(
    experiment: config.ExperimentConfig,
    evaluation: config.Evaluation,
    folder: ExperimentFolder,
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
    template = experiment.recipe.data.query_template
    failed: list[str] = []
    for run_entry in experiment.runs:
        run = folder.run(run_entry.name)
        for step in chosen_steps(run, evaluation.steps):
            scores = score_model(
                step_of(run, str(step), f"{run_entry.name}@{step}"),
                evaluation,
                run.evaluation / step_name(step),
                name=f"{experiment.name}-{run_entry.name}",
                step=step,
                template=template,
                report=report,
                world=world,
            )
            failed += failures(scores, scores["model"])
    for baseline in dict.fromkeys(evaluation.baselines):
        _score_baseline(baseline, experiment, evaluation, folder, report, world)
    if failed:
        raise tasks_failed(failed)


def failures(scores: dict[str, Any], name: str) -> list[str]:
    """Return a line a task that failed for a model: its name, the task and why."""
    return [f"{name}: {entry['task']}: {entry['error']}" for entry in scores["failed"]]


def tasks_failed(failed: list[str]) -> ReasoningEmbeddingError:
    """Return the error that lists the :func:`failures` of all models."""
    return ReasoningEmbeddingError("\n".join(["tasks failed", *failed]), todo="repair them and run again")


def query_template(run: RunFolder) -> str:
    """Return the template that a run's queries were trained with, or the default where no configuration is kept."""
    from reasoning_embedding.evaluation.asking import QUERY_TEMPLATE

    resolved = read_settings(run)
    return resolved.get("data", {}).get("query_template") or QUERY_TEMPLATE


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


def _score_baseline(
    baseline: str,
    experiment: config.ExperimentConfig,
    evaluation: config.Evaluation,
    folder: ExperimentFolder,
    report: Report,
    world: World,
) -> None:
    from reasoning_embedding.evaluation.asking import ModelPrompts
    from reasoning_embedding.evaluation.run import evaluate

    model: Any
    own_prompts = None
    if baseline == "bm25":
        from reasoning_embedding.data.mining.bm25 import BM25

        model = BM25()
        name, revision = baseline, model.revision
    elif baseline == "tfidf":
        from reasoning_embedding.evaluation.floors.tfidf import TfIdf

        model = TfIdf()
        name, revision = baseline, model.revision
    else:
        checkpoint = folder.run(experiment.runs[0].name).checkpoint(0)
        model = _untrained_copy(checkpoint).to(world.device)
        own_prompts = ModelPrompts(model.prompts, made_here=True)
        name, revision = f"{experiment.name}-{baseline}", f"seed-0-{content_hash(checkpoint)[:12]}"
    evaluate(
        model,
        evaluation,
        folder.baseline(baseline),
        model_name=name,
        revision=revision,
        step=None,
        query_template=experiment.recipe.data.query_template,
        own_prompts=own_prompts,
        report=report,
        world=world,
    )


def _untrained_copy(checkpoint: Path) -> Embedder:
    """Return an embedder of a checkpoint's architecture, tokenizer and pooling, with random weights."""
    import torch
    from transformers import AutoModel

    from reasoning_embedding.backbones import make_heads
    from reasoning_embedding.checkpoints.embedder import load_embedder

    embedder = load_embedder(checkpoint)
    implementation = embedder.model.config._attn_implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        embedder.model = AutoModel.from_config(embedder.model.config, attn_implementation=implementation)
        embedder.heads = make_heads(embedder.readout.heads, embedder.model.config.hidden_size)
    return embedder


def tasks_of_run(run: RunFolder, tasks: Sequence[config.Task | config.HoldoutTask]) -> list[config.Task]:
    """Return the tasks a run is scored on, with the folders of its held-out rows in the place of their name.

    Raises
    ------
    InputError
        If rows were to be held out, and the run's folder has none.
    """
    from reasoning_embedding.data.holdout import read_names

    found: list[config.Task] = []
    for task in tasks:
        if not isinstance(task, config.HoldoutTask):
            found.append(task)
            continue
        sources = read_names(run.holdout)
        for place, source in sources.items():
            plain = re.sub(r"[^A-Za-z0-9._-]+", "-", source)[:80]
            if plain != source:
                plain = f"{plain}-{place}"  # two sources may read the same by now
            name = task.name if len(sources) == 1 else f"{task.name}-{plain}"
            found.append(config.BeirTask(kind="beir", path=str(run.holdout / place), name=name))
    return found


class TrainingScore:
    """Scores a run's live model on its own tasks, and leaves the scores where those of its checkpoints lie.

    Parameters
    ----------
    settings : config.RunConfig
        The run; it has an ``evaluation`` section.
    section : config.TrainingEvaluation
        That section.
    report : callable
        Takes a line for a task that fails.

    Notes
    -----
    No embedding is kept between two calls: the weights have changed. Step 0 is scored before the run has a folder, so
    that a faulty task leaves nothing behind; its scores wait until the folder is there.
    """

    def __init__(
        self, settings: config.RunConfig, section: config.TrainingEvaluation, report: Report
    ) -> None:
        data = settings.data
        self._settings, self._report = settings, report
        self._run = RunFolder.of(settings)
        self._tasks = section.tasks
        self._how: dict[str, Any] = {
            "max_tokens": section.max_tokens or max(data.query_max_tokens, data.document_max_tokens),
            "pack_tokens": section.pack_tokens,
            "cache_embeddings": False,
        }
        self._waiting: dict[int, tempfile.TemporaryDirectory[str]] = {}

    def __call__(self, embedder: Embedder, step: int, world: World) -> dict[str, float]:
        """Score the model at a step: ``TASK`` its main score, ``TASK:METRIC`` others, ``mean`` over the tasks.

        Raises
        ------
        ReasoningEmbeddingError
            If a task fails before training; later a failed task is reported, and left out.
        """
        from reasoning_embedding.evaluation.asking import ModelPrompts
        from reasoning_embedding.evaluation.run import evaluate

        self.store()
        folder = tempfile.TemporaryDirectory(prefix="reasoning-embedding-")
        found = evaluate(
            embedder,
            config.Evaluation(tasks=tasks_of_run(self._run, self._tasks), **self._how),
            Path(folder.name),
            model_name=self._settings.name,
            revision=live_revision(step),
            step=step,
            query_template=self._settings.data.query_template,
            own_prompts=ModelPrompts(embedder.prompts, made_here=True),
            world=world,
        )
        failed = [f"{entry['task']}: {entry['error']}" for entry in found["failed"]]
        if failed and step == 0:
            raise ReasoningEmbeddingError("\n".join(["tasks failed before training", *failed]))
        for line in failed if world.is_main else ():
            self._report(f"step {step}: evaluation failed, {line}")
        if world.is_main:
            self._waiting[step] = folder
        else:
            folder.cleanup()
        if step > 0:
            self.store()
        return _main_and_other_scores(found)

    def store(self) -> None:
        """Bring the scores that wait into the run's folder, once there is one."""
        if not self._run.config_json.is_file():
            return
        for step in list(self._waiting):
            target = self._run.evaluation / step_name(step)
            with self._waiting.pop(step) as folder:
                _bring(Path(folder), target)


def _bring(folder: Path, target: Path) -> None:
    """Copy scores into their place; scores of other weights that lie there are set aside."""
    if (target / FILE).is_file():
        set_aside(target)
    with explain_disk_errors(target):
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FILE))
        with atomic_file(target / FILE) as temporary:
            shutil.copyfile(folder / FILE, temporary)


def training_score(settings: config.RunConfig, report: Report) -> TrainingScore | None:
    """Return what scores a run's live model on its own tasks, or None where it has none."""
    section = settings.evaluation
    return None if section is None else TrainingScore(settings, section, report)


def _main_and_other_scores(found: dict) -> dict[str, float]:
    """Main scores by task, their mean where no task failed, and other metrics that are numbers as ``TASK:METRIC``."""
    entries = found["tasks"]
    scores = {entry["task"]: float(entry["main_score"]) for entry in entries}
    if not found["failed"]:
        scores["mean"] = sum(scores.values()) / len(scores)
    for entry in entries:
        scores |= {
            f"{entry['task']}:{metric}": float(value)
            for metric, value in entry.items()
            if metric not in _NO_SCORES and isinstance(value, int | float) and math.isfinite(value)
        }
    return scores
