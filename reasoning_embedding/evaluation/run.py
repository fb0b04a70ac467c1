"""Scoring one model on a list of tasks: resumable by task, filed under what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mteb.abstasks.abstask import AbsTask
from mteb.models.model_meta import ModelMeta, ScoringFunction

from reasoning_embedding import config, isolation
from reasoning_embedding.backbones.embedder import default_pack_tokens
from reasoning_embedding.checkpoints.provenance import versions
from reasoning_embedding.checkpoints.scores import FILE, load_scores, mean_scores
from reasoning_embedding.data.mining.bm25 import BM25
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json
from reasoning_embedding.progress import Report

from . import number_sequences
from .embedding_cache import FOLDER as CACHE_FOLDER
from .embedding_cache import CachedEncoder, EmbeddingCache
from .encoder import QUERY_TEMPLATE, MtebEncoder, model_meta
from .floors.bm25 import BM25Search
from .floors.tfidf import TfIdf
from .instructions import Instructions
from .scoring import identity, outcome, score_task
from .sharding import ShardedEncoder, TextEncoder, broadcast_object
from .tasks.loading import load_tasks
from .tasks.suites import suite_members

_OUTCOMES = ("tasks", "failed")
#: Settings that decide a score: with others, old scores are not taken for those of this call.
_DECISIVE = ("max_tokens", "pack_tokens", "query_template", "dtype", "pooling")


def evaluate(
    model: TextEncoder | BM25,
    settings: config.Evaluation,
    folder: Path,
    *,
    model_name: str,
    revision: str,
    step: int | None,
    query_template: str = QUERY_TEMPLATE,
    own_prompts: Mapping[str, str] | None = None,
    report: Report = lambda line: None,
    world: World | None = None,
) -> dict[str, Any]:
    """Score a model on tasks and write ``scores.json`` and mteb's own files.

    A task is skipped when the folder holds its scores for the same model, revision, settings, instructions
    and data; each task is saved as it ends. One that fails is recorded under ``failed``, the others go on,
    and the next call tries it again.

    Parameters
    ----------
    model : TextEncoder or BM25
        An embedder, or a lexical baseline, which is sent no instructions.
    settings : config.Evaluation
        Tasks, instructions, truncation length, tokens of a forward, documents of a chunk, threads. All tasks are
        read and checked before the first is scored; ``scores.json`` holds these and no others, number sequences last.
    folder : Path
        Receives ``scores.json``, ``mteb/results/<model>/<revision>/<task>.json``, ``per_query/<task>.json``
        and ``embeddings/``.
    model_name, revision : str
        What results are filed under; :func:`~reasoning_embedding.checkpoints.scores.revision_of` makes a
        revision that changes with the weights, ``BM25().revision`` is the baseline's.
    step : int or None
        Training step, for the record.
    query_template : str
        Put before a query that has an instruction; the one of training.
    own_prompts : mapping, optional
        Of a model that was not made here: its prompts by name (``query``, ``document``), which stand in the place of
        the tasks' instructions where the settings give none.
    report : callable
        Takes a line of progress.
    world : World, optional
        The job, when all its ranks call together with their copies of the model: each encodes its share of
        the texts, all compute the scores, the main rank alone writes and reports.

    Returns
    -------
    dict
        What :func:`~reasoning_embedding.checkpoints.scores.load_scores` returns; the same on every rank.

    Raises
    ------
    InputError
        When a task is faulty or two share a name; nothing is scored then.
    SetupError
        When the folder cannot be written.
    """
    world = world or World()
    say = report if world.is_main else lambda line: None
    instructions = Instructions(settings.instructions)
    with isolation.same_random_state(), isolation.threads(settings.threads), isolation.quiet_libraries():
        loaded = _load(settings.tasks, instructions)
        scores: dict[str, Any] = {
            "model": model_name,
            "revision": revision,
            "step": step,
            "tasks": [],
            "failed": [],
            "suites": suite_members(settings.tasks),
            "settings": _pinned(model, settings, query_template),
            "versions": versions(),
        }
        known = broadcast_object(_known(folder, scores) if world.is_main else None, world)
        lexical = isinstance(model, BM25 | TfIdf)
        prompts: Mapping[str, str] | None = None
        if lexical:
            prompts = {}
        elif settings.instructions is None:
            prompts = own_prompts  # where the user says nothing, as its authors ask it
        sent = instructions if prompts is None else None
        todo = []
        for task in loaded:
            own = identity(task, sent) if isinstance(task, AbsTask) else number_sequences.identity(task)
            entry = known.get(own["task"], {})
            if all(entry.get(key) == value for key, value in own.items()):
                scores["tasks"].append(entry)
            else:
                todo.append((task, own))
        if skipped := len(scores["tasks"]):
            say(f"{model_name} {revision}: {skipped} of {len(loaded)} tasks scored before")
        cache = EmbeddingCache(folder / CACHE_FOLDER, f"{revision} {scores['settings']}")
        search: MtebEncoder | BM25Search
        if isinstance(model, BM25):
            encoder, search = None, BM25Search(model, _meta(model, scores))
        else:
            encoder = model if lexical or world.size == 1 else ShardedEncoder(model, world)
            # TF-IDF embeds a text according to the task's other texts: its embeddings are not kept.
            keep = settings.cache_embeddings and not lexical
            search = MtebEncoder(
                encoder,
                _meta(model, scores),
                instructions=instructions,
                prompts=prompts,
                corpus_embedder=CachedEncoder(encoder, cache, world) if keep else None,
                max_tokens=settings.max_tokens,
                pack_tokens=settings.pack_tokens,
                chunk_documents=settings.chunk_documents,
                query_template=query_template,
                report=say,
            )
        order = {_name(task): index for index, task in enumerate(loaded)}
        for task, own in todo:
            if isinstance(task, AbsTask):
                entry = score_task(task, search, own, folder if world.is_main else None)
            else:
                entry = _score_sequences(task, encoder, own, settings)
            scores["failed" if "error" in entry else "tasks"].append(entry)
            if world.is_main:
                _save(folder, scores, order)
            say(f"{model_name} {revision}: {_line(entry)}")
        if world.is_main:
            _save(folder, scores, order)
            if todo and cache.size[0]:
                say(f"{model_name} {revision}: kept {cache}")
    return broadcast_object(scores, world)


def _name(task: AbsTask | config.NumberSequencesTask) -> str:
    return task.metadata.name if isinstance(task, AbsTask) else task.name


def _load(
    tasks: Sequence[config.Task], instructions: Instructions
) -> list[AbsTask | config.NumberSequencesTask]:
    """Read all tasks before the first is scored, so that a faulty one costs no time."""
    sequences = [task for task in tasks if isinstance(task, config.NumberSequencesTask)]
    others = [task for task in tasks if not isinstance(task, config.NumberSequencesTask)]
    loaded = [*(load_tasks(others, instructions) if others else []), *sequences]
    names = [_name(task) for task in loaded]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            f"two tasks are named {double!r}", where="evaluation.tasks", todo="give one a 'name'"
        )
    return loaded


def _pinned(model: TextEncoder | BM25, settings: config.Evaluation, query_template: str) -> dict[str, Any]:
    """Return the settings that go into the result."""
    readout = getattr(model, "readout", None)
    tensor = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    pack_tokens = settings.pack_tokens
    if pack_tokens is None and tensor is not None:
        pack_tokens = default_pack_tokens(tensor.device)
    return {
        "max_tokens": settings.max_tokens,
        "pack_tokens": pack_tokens,
        "query_template": query_template,
        "dtype": None if tensor is None else str(tensor.dtype).removeprefix("torch."),
        "pooling": None
        if readout is None
        else {"kind": readout.pooling, "include_prompt": readout.include_prompt},
        "chunk_documents": settings.chunk_documents,
    }


def _known(folder: Path, scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return entries of an earlier call by task, if model, revision and what decides a score are the same."""
    if not (folder / FILE).exists():
        return {}
    old = load_scores(folder)
    same = all(old[key] == scores[key] for key in ("model", "revision")) and all(
        old["settings"].get(key) == scores["settings"][key] for key in _DECISIVE
    )
    return {entry["task"]: entry for entry in old["tasks"]} if same else {}


def _meta(model: TextEncoder | BM25, scores: dict[str, Any]) -> ModelMeta:
    name, revision = scores["model"], scores["revision"]
    if isinstance(model, BM25):
        return model_meta(name, revision, model_type=["sparse"], use_instructions=False)
    parameters = sum(p.numel() for p in model.parameters()) if isinstance(model, torch.nn.Module) else None
    return model_meta(
        name,
        revision,
        n_parameters=parameters,
        embed_dim=model.dimension,
        max_tokens=scores["settings"]["max_tokens"],
        similarity_fn_name=ScoringFunction.COSINE,
        framework=["PyTorch", "Sentence Transformers"],
        use_instructions=True,
    )


def _score_sequences(
    task: config.NumberSequencesTask,
    model: TextEncoder | None,
    entry: dict[str, Any],
    settings: config.Evaluation,
) -> dict[str, Any]:
    def score() -> dict[str, Any]:
        if model is None:
            raise InputError("BM25 ranks documents; it has no embeddings to cluster")
        found = number_sequences.score(
            model, task, max_tokens=settings.max_tokens, pack_tokens=settings.pack_tokens
        )
        return {"instruction": "", "prompt": "", **found}

    return outcome(entry, score)


def _line(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"{entry['task']} FAILED: {entry['error']}"
    metric = {"ndcg_at_10": "nDCG@10"}.get(entry.get("main_metric", ""), entry.get("main_metric", "score"))
    return f"{entry['task']} {metric} {entry['main_score']:.4f} in {entry['seconds']:.1f} s"


def _save(folder: Path, scores: dict[str, Any], order: dict[str, int]) -> None:
    """Write the scores with the tasks in their configured order."""
    for key in _OUTCOMES:
        scores[key].sort(key=lambda entry: order[entry["task"]])
    scores["means"] = mean_scores(scores["tasks"], scores["failed"])
    scores["means"]["suites"] = {
        suite: mean_scores(
            *([entry for entry in scores[key] if entry["task"] in members] for key in _OUTCOMES)
        )
        for suite, members in scores["suites"].items()
    }
    write_json(folder / FILE, scores, summed=True)
