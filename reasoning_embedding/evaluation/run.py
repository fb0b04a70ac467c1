"""Scoring one model on a list of tasks: resumable by task, filed under what it is."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
import torch
from mteb.cache import ResultCache
from mteb.models.model_meta import ScoringFunction

from reasoning_embedding import config
from reasoning_embedding.checkpoints.atomic import explain_disk_errors, write_json
from reasoning_embedding.checkpoints.provenance import versions
from reasoning_embedding.errors import SetupError

from .baselines import BM25, BM25Search
from .encoder import QUERY_TEMPLATE, MtebEncoder, TextEncoder, model_meta
from .scores import FILE, METRICS, load_scores
from .tasks import SPLIT, LocalRetrieval, load_tasks

#: Sub-folder of mteb's own result files.
MTEB_FOLDER = "mteb"


def evaluate(
    model: TextEncoder | BM25,
    tasks: Sequence[config.Task],
    folder: Path,
    *,
    model_name: str,
    revision: str,
    step: int | None,
    settings: config.Evaluation,
    query_template: str = QUERY_TEMPLATE,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Score a model on tasks and write ``scores.json`` and mteb's own files.

    A task is skipped when the folder holds its scores for the same model, revision, settings and data; each
    task is saved as it ends. One that fails is recorded under ``failed``, the others go on, and the next
    call tries it again.

    Parameters
    ----------
    model : TextEncoder or BM25
        An embedder, or the lexical baseline.
    tasks : sequence of config.Task
        All are read and checked before the first is scored. ``scores.json`` holds these and no others.
    folder : Path
        Receives ``scores.json`` and ``mteb/results/<model>/<revision>/<task>.json``.
    model_name, revision : str
        What results are filed under; :func:`~reasoning_embedding.evaluation.scores.revision_of` makes a
        revision that changes with the weights, ``BM25().revision`` is the baseline's.
    step : int or None
        Training step, for the record.
    settings : config.Evaluation
        Truncation length, tokens of a forward, threads.
    query_template : str
        Put before a query that has an instruction; the one of training.
    report : callable
        Takes a line of progress.

    Returns
    -------
    dict
        What :func:`~reasoning_embedding.evaluation.scores.load_scores` returns.

    Raises
    ------
    InputError
        When a task's folder is faulty or two tasks share a name; nothing is scored then.
    SetupError
        When the folder cannot be written.
    """
    with _same_random_state(), _threads(settings.threads), _quiet():
        loaded = load_tasks(tasks)
        scores = {
            "model": model_name,
            "revision": revision,
            "step": step,
            "tasks": [],
            "failed": [],
            "settings": {
                "max_tokens": settings.max_tokens,
                "pack_tokens": settings.pack_tokens,
                "query_template": query_template,
            },
            "versions": versions(),
        }
        known = _known(folder, scores)
        todo = []
        for task in loaded:
            entry = known.get(task.metadata.name)
            if entry and entry["fingerprint"] == task.data.fingerprint:
                scores["tasks"].append(entry)
            else:
                todo.append(task)
        if skipped := len(scores["tasks"]):
            report(f"{model_name} {revision}: {skipped} of {len(loaded)} tasks scored before")
        search = _for_mteb(model, model_name, revision, settings, query_template, report)
        for task in todo:
            line = _score(task, search, folder, scores, query_template)
            _save(folder, scores, loaded)
            report(f"{model_name} {revision}: {line}")
        _save(folder, scores, loaded)
    return scores


def _known(folder: Path, scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return entries of an earlier call by task, if model, revision and what decides a score are the same."""
    if not (folder / FILE).exists():
        return {}
    old = load_scores(folder)
    decisive = ("max_tokens", "query_template")
    same = all(old[key] == scores[key] for key in ("model", "revision")) and all(
        old["settings"].get(key) == scores["settings"][key] for key in decisive
    )
    return {entry["task"]: entry for entry in old["tasks"]} if same else {}


def _for_mteb(
    model: TextEncoder | BM25,
    model_name: str,
    revision: str,
    settings: config.Evaluation,
    query_template: str,
    report: Callable[[str], None],
) -> MtebEncoder | BM25Search:
    if isinstance(model, BM25):
        return BM25Search(
            model, model_meta(model_name, revision, model_type=["sparse"], use_instructions=False)
        )
    parameters = sum(p.numel() for p in model.parameters()) if isinstance(model, torch.nn.Module) else None
    meta = model_meta(
        model_name,
        revision,
        n_parameters=parameters,
        embed_dim=model.dimension,
        max_tokens=settings.max_tokens,
        similarity_fn_name=ScoringFunction.COSINE,
        framework=["PyTorch", "Sentence Transformers"],
        use_instructions=True,
    )
    return MtebEncoder(
        model,
        meta,
        max_tokens=settings.max_tokens,
        pack_tokens=settings.pack_tokens,
        query_template=query_template,
        report=report,
    )


def _score(
    task: LocalRetrieval,
    model: MtebEncoder | BM25Search,
    folder: Path,
    scores: dict[str, Any],
    query_template: str,
) -> str:
    """Score one task into `scores`; return a line on how it went."""
    name, data = task.metadata.name, task.data
    instruction = "" if isinstance(model, BM25Search) else data.instruction or ""
    entry: dict[str, Any] = {
        "task": name,
        "instruction": instruction,
        "prompt": query_template.replace("{instruction}", instruction) if instruction else "",
        "queries": len(data.queries),
        "documents": len(data.corpus),
        "unjudged": data.unjudged,
        "fingerprint": data.fingerprint,
    }
    start = time.perf_counter()
    try:
        with explain_disk_errors(folder):
            # Which tasks to skip is decided above, by more than mteb looks at: so here, always run.
            result = mteb.evaluate(
                model,
                task,
                cache=ResultCache(cache_path=folder / MTEB_FOLDER),
                overwrite_strategy="always",
                co2_tracker=False,
                show_progress_bar=False,
                encode_kwargs={"batch_size": 1024, "show_progress_bar": False},
            )
    except SetupError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a model raises is this task's failure, and recorded
        seconds = round(time.perf_counter() - start, 3)
        failure = f"{type(error).__name__}: {error}"
        scores["failed"].append({**entry, "error": failure, "seconds": seconds})
        return f"{name} FAILED: {failure}"
    seconds = round(time.perf_counter() - start, 3)
    found = result.task_results[0].scores[SPLIT][0]
    values = {metric: float(found[metric]) for metric in METRICS}
    scores["tasks"].append({**entry, "main_score": values[METRICS[0]], **values, "seconds": seconds})
    return f"{name} nDCG@10 {values[METRICS[0]]:.4f} in {seconds:.1f} s"


def _save(folder: Path, scores: dict[str, Any], loaded: list[LocalRetrieval]) -> None:
    """Write the scores with the tasks in their configured order."""
    order = {task.metadata.name: index for index, task in enumerate(loaded)}
    for key in ("tasks", "failed"):
        scores[key].sort(key=lambda entry: order[entry["task"]])
    write_json(folder / FILE, scores)


@contextlib.contextmanager
def _same_random_state() -> Generator[None]:
    """Undo what mteb does to every global random state: constructing a task seeds them all.

    Without this, evaluating amid a training run would change the run.
    """
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def _threads(count: int | None) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the bars of the datasets library off the screen; `report` tells the progress."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
