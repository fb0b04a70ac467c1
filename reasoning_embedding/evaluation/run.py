"""Scoring one model on a list of tasks: resumable by task, filed under what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models.model_meta import ModelMeta, ScoringFunction

from reasoning_embedding import config, isolation
from reasoning_embedding.backbones import Readout
from reasoning_embedding.backbones.compression import Compression
from reasoning_embedding.backbones.embedder import NO_LIMIT, default_pack_tokens
from reasoning_embedding.checkpoints.provenance import versions
from reasoning_embedding.checkpoints.scores import (
    FILE,
    load_all_scores,
    mean_scores,
    same_settings,
    set_aside,
)
from reasoning_embedding.data.mining.bm25 import BM25
from reasoning_embedding.distributed import World, broadcast_object
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json
from reasoning_embedding.progress import Report

from . import number_sequences
from .asking import QUERY_TEMPLATE, Asking, ModelPrompts
from .embedding_cache import FOLDER as CACHE_FOLDER
from .embedding_cache import CachedEncoder, EmbeddingCache
from .encoder import MtebEncoder, model_meta
from .floors.bm25 import BM25Search
from .floors.tfidf import TfIdf
from .instructions import Instructions
from .scoring import identity, outcome, score_task
from .sharding import ShardedEncoder, TextEncoder
from .tasks.loading import load_tasks, task_name
from .tasks.suites import suite_members

_OUTCOMES = ("tasks", "failed")


def folder_of(folder: Path, settings: config.Evaluation) -> Path:
    """Return where in a folder of scores those of these settings lie: compressed vectors have a place of their own."""
    name = Compression(settings.truncate, settings.quantize).name
    return folder / name if name else folder


def evaluate(
    model: TextEncoder | BM25,
    settings: config.Evaluation,
    folder: Path,
    *,
    model_name: str,
    revision: str,
    step: int | None,
    query_template: str = QUERY_TEMPLATE,
    own_prompts: ModelPrompts | None = None,
    known_as: Sequence[str] = (),
    report: Report = lambda line: None,
    world: World | None = None,
) -> dict[str, Any]:
    """Score a model on tasks and write ``scores.json`` and mteb's own files.

    A task is skipped when the folder holds its scores for the same revision, settings, prompts and data; each task is
    saved as it ends. One that fails is recorded under ``failed``, the others go on, and the next call tries it again.
    Tasks that an earlier call scored in the same way stay; scores of other settings or weights are set aside.

    Parameters
    ----------
    model : TextEncoder or BM25
        An embedder, or a lexical baseline, which is sent no instructions.
    settings : config.Evaluation
        Tasks, prompts, limit, what is kept of vectors, tokens of a forward, documents of a chunk, threads. All tasks
        are read and checked before the first is scored.
    folder : Path
        Its :func:`folder_of` receives ``scores.json``, ``mteb/results/<model>/<revision>/<task>.json``,
        ``per_query/<task>.json`` and ``embeddings/``.
    model_name, revision : str
        What results are filed under; :func:`~reasoning_embedding.checkpoints.scores.revision_of` makes a
        revision that changes with the weights, ``BM25().revision`` is the baseline's.
    step : int or None
        Training step, for the record.
    query_template : str
        Put before a query that has an instruction; the one of training.
    own_prompts : ModelPrompts, optional
        The model's prompts, which stand in the place of the tasks' instructions where the settings give none.
    known_as : sequence of str
        Further revisions under which scores of these weights may lie: that of the live model they were saved from.
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
    folder = folder_of(folder, settings)
    compression = Compression(settings.truncate, settings.quantize)
    if not isinstance(model, BM25):
        compression.dimension(model.dimension)
    say = report if world.is_main else lambda line: None
    said: dict[str, str] = {
        task_name(task): words
        for task in settings.tasks
        if isinstance(words := getattr(task, "instruction", None), str)
    }
    instructions = Instructions(settings.instructions)
    lexical = isinstance(model, BM25 | TfIdf)
    if settings.prompts is not None:
        own_prompts = ModelPrompts(settings.prompts, source="given")
    asking = None if lexical else Asking(instructions.and_of_tasks(said), own_prompts, query_template)
    with isolation.same_random_state(), isolation.threads(settings.threads), isolation.quiet_libraries():
        loaded = _load(settings.tasks, instructions)
        scores: dict[str, Any] = {
            "model": model_name,
            "revision": revision,
            "step": step,
            "tasks": [],
            "failed": [],
            "suites": suite_members(settings.tasks),
            "settings": _pinned(model, settings, asking),
            "versions": versions(),
        }
        earlier = _earlier(folder, scores, known_as, say) if world.is_main else {}
        earlier = broadcast_object(earlier, world)
        todo = []
        for task in loaded:
            own = identity(task, asking) if isinstance(task, AbsTask) else number_sequences.identity(task)
            entry = earlier.get(own["task"], {})
            # Entries of older versions have no prompts of the model; neither has one that is sent none.
            if all(entry.get(key) == own.get(key) for key in (*own, "own_prompts")):
                scores["tasks"].append(entry)
            else:
                todo.append((task, own))
        if skipped := len(scores["tasks"]):
            say(f"{model_name} {revision}: {skipped} of {len(loaded)} tasks scored before")
        asked = {_name(task) for task in loaded}
        scores["tasks"] += [entry for name, entry in earlier.items() if name not in asked]
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
                asking=asking,
                corpus_embedder=CachedEncoder(encoder, cache, world) if keep else None,
                max_tokens=scores["settings"]["max_tokens"],
                compression=compression,
                pack_tokens=settings.pack_tokens,
                chunk_documents=settings.chunk_documents,
                report=say,
            )
        order = {_name(task): index for index, task in enumerate(loaded)}
        order = {name: len(order) + index for index, name in enumerate(earlier)} | order
        for task, own in todo:
            if isinstance(task, AbsTask):
                entry = score_task(task, search, own, folder if world.is_main else None)
            else:
                entry = _score_sequences(task, encoder, own, scores["settings"], compression)
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


def _pinned(model: TextEncoder | BM25, settings: config.Evaluation, asking: Asking | None) -> dict[str, Any]:
    """Return the settings that go into the result: how texts were asked, cut and embedded, and what was kept."""
    tensor = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    pack_tokens = settings.pack_tokens
    if pack_tokens is None and tensor is not None:
        pack_tokens = default_pack_tokens(tensor.device)
    readout = getattr(model, "readout", None)
    compression = Compression(settings.truncate, settings.quantize)
    whole = None if isinstance(model, BM25) else model.dimension
    return {
        "max_tokens": settings.max_tokens or _own_limit(model),
        "pack_tokens": pack_tokens,
        "query_template": asking.template if asking else QUERY_TEMPLATE,
        "prompts_from": _source(asking),
        "dtype": None if tensor is None else str(tensor.dtype).removeprefix("torch."),
        "readout": json.loads(json.dumps(asdict(readout) if isinstance(readout, Readout) else readout)),
        "truncate": settings.truncate,
        "quantize": settings.quantize,
        "dimension": None if whole is None else compression.dimension(whole),
        "bytes_per_vector": None if whole is None else compression.bytes(whole),
        "chunk_documents": settings.chunk_documents,
    }


def _own_limit(model: TextEncoder | BM25) -> int | None:
    """The model's own limit of tokens; None where it has none."""
    limit = getattr(model, "max_tokens", None)
    return None if limit is None or limit >= NO_LIMIT else limit


def _source(asking: Asking | None) -> str:
    """Where prompts come from, in words."""
    if asking is None:
        return "none"
    if asking.own is None or (asking.own.falls_back and not asking.own.prompts):
        return "the tasks' instructions"
    return f"{asking.own.source}{', else the task instructions' if asking.own.falls_back else ''}"


def _earlier(
    folder: Path, scores: dict[str, Any], known_as: Sequence[str], say: Report
) -> dict[str, dict[str, Any]]:
    """Return entries of earlier calls by task, of the same weights and settings; other scores are set aside."""
    revisions = {scores["revision"], *known_as}
    entries: dict[str, dict[str, Any]] = {}
    for path, old in load_all_scores(folder).items():
        if old["revision"] in revisions and same_settings(old["settings"] or {}, scores["settings"]):
            entries = {entry["task"]: entry for entry in old["tasks"]} | entries
            scores["suites"] = {**(old.get("suites") or {}), **scores["suites"]}
            if not (folder / FILE).exists():
                path.replace(folder / FILE)
        elif path.name == FILE:
            set_aside(folder)
            say(f"{scores['model']}: scores of other settings or weights were set aside in {folder}")
    return entries


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
    settings: dict[str, Any],
    compression: Compression,
) -> dict[str, Any]:
    def score() -> dict[str, Any]:
        if model is None:
            raise InputError("BM25 ranks documents; it has no embeddings to cluster")
        found = number_sequences.score(
            model,
            task,
            max_tokens=settings["max_tokens"],
            compression=compression,
            pack_tokens=settings["pack_tokens"],
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


def query_texts(settings: config.Evaluation) -> dict[str, dict[str, str]]:
    """Return task -> query id -> text, of tasks whose queries have scores of their own; ids as in ``per_query/``."""
    found: dict[str, dict[str, str]] = {}
    with isolation.quiet_libraries():
        for task in _load(settings.tasks, Instructions()):
            if isinstance(task, AbsTaskRetrieval):
                found[task.metadata.name] = dict(_queries(task))
    return found


def _queries(task: AbsTaskRetrieval) -> Iterator[tuple[str, str]]:
    if not task.data_loaded:
        task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    several = len(task.eval_splits) * len(task.hf_subsets) > 1
    for split in task.eval_splits:
        for subset in task.hf_subsets:
            for row in task.dataset[subset][split]["queries"]:
                yield f"{split}/{subset}/{row['id']}" if several else row["id"], str(row["text"])
