"""Scoring one task of mteb, whatever its type: its entry in ``scores.json``, and its single scores.

Single scores, one a query or one an experiment of a classification, are what intervals and paired tests are made of.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import mteb
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.cache import ResultCache
from mteb.results.task_result import TaskResult
from mteb.types import PromptType

from reasoning_embedding.checkpoints.scores import METRICS
from reasoning_embedding.errors import ReasoningEmbeddingError, SetupError
from reasoning_embedding.files import explain_disk_errors, write_json

from .asking import Asking
from .encoder import MtebEncoder
from .floors.bm25 import BM25Search
from .floors.tfidf import TfIdf
from .instructions import is_asymmetric
from .tasks.texts import encoded_texts

#: Sub-folder of mteb's own result files.
MTEB_FOLDER = "mteb"
#: Texts in one of mteb's batches, which are put together again before they are encoded.
_BATCH = 1024
#: Sub-folder of an evaluation folder: ``per_query/<task>.json``.
PER_QUERY = "per_query"
#: mteb's names of metrics -> trec_eval's, under which scores of single queries come.
_TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
#: The hook that mteb's retrieval tasks call with the scores of all queries, meant to be overridden.
_HOOK = "task_specific_scores"


def identity(task: AbsTask, asking: Asking | None) -> dict[str, Any]:
    """Return what, beside model and settings, decides a task's score: equal identity, equal score.

    Parameters
    ----------
    task : AbsTask
        Any task of mteb.
    asking : Asking or None
        How the model is asked; None for one that is sent nothing but texts.
    """
    metadata = task.metadata
    sent = {subset: asking.identity(metadata, subset) if asking else ({}, {}) for subset in task.hf_subsets}
    found = {
        "task": metadata.name,
        "type": metadata.type,
        "main_metric": metadata.main_score,
        "fingerprint": metadata.revision,
        "splits": list(task.eval_splits),
        "instructions": {subset: instructions for subset, (instructions, _) in sent.items()},
    }
    prompts = {subset: own for subset, (_, own) in sent.items() if own}
    return {**found, "own_prompts": prompts} if prompts else found


def score_task(
    task: AbsTask, model: MtebEncoder | BM25Search, entry: dict[str, Any], folder: Path | None
) -> dict[str, Any]:
    """Score a task and return its finished entry.

    Parameters
    ----------
    task : AbsTask
        Any task of mteb.
    model : MtebEncoder or BM25Search
        What encodes or searches.
    entry : dict
        The task's :func:`identity`.
    folder : Path or None
        Receives mteb's result file and the scores of single queries; None on ranks that do not write.

    Returns
    -------
    dict
        `entry` with ``main_score``, further metrics, what was sent, and ``seconds``; with ``error`` in the
        place of scores when the task failed, for whatever reason.

    Raises
    ------
    SetupError
        When the folder cannot be written.
    """
    if isinstance(model, MtebEncoder):
        model.sent.clear()
    return outcome({**entry, **_described(task, model)}, lambda: _scores(task, model, entry, folder))


def outcome(entry: dict[str, Any], score: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return an entry with what `score` gives and its seconds, or with its ``error``: one task fails by itself."""
    start = time.perf_counter()
    try:
        found = score()
    except SetupError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a model raises is this task's failure, and recorded
        found = {"error": f"{type(error).__name__}: {error}"}
    return {**entry, **found, "seconds": round(time.perf_counter() - start, 3)}


def _scores(
    task: AbsTask, model: MtebEncoder | BM25Search, entry: dict[str, Any], folder: Path | None
) -> dict[str, Any]:
    """Score a task, and write its single scores into the folder."""
    with explain_disk_errors(folder or Path()), _fitted(model, task), recorded(task) as single:
        # Which tasks to skip is decided before, by more than mteb looks at: so here, always run.
        found = mteb.evaluate(
            model,
            task,
            cache=ResultCache(cache_path=folder / MTEB_FOLDER) if folder else None,
            overwrite_strategy="always",
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"batch_size": _BATCH, "show_progress_bar": False},
        )
    values = _metrics(found, entry["main_metric"])
    if folder:
        rows = _rows(found.task_results[0])
        single = single or (experiments(rows[0], entry["main_metric"]) if len(rows) == 1 else {})
        if single.get("scores"):
            write_json(path_of(folder, entry["task"]), single, summed=True)
    if not isinstance(model, MtebEncoder):
        return values
    sent = model.sent.pop(task.metadata.name, {})
    return {"prompts": {**sent, **({"tasks": model.sent} if model.sent else {})}, **values}


@contextlib.contextmanager
def _fitted(model: MtebEncoder | BM25Search, task: AbsTask) -> Generator[None]:
    """Let a TF-IDF model count the task's texts first, and an int8 code find their range, where texts have no sides."""
    counts = isinstance(model, MtebEncoder) and isinstance(model.embedder, TfIdf)
    ranges = isinstance(model, MtebEncoder) and model.compression.quantize == "int8"
    if not isinstance(model, MtebEncoder) or not (counts or (ranges and not is_asymmetric(task.metadata))):
        yield
        return
    loaded = task.data_loaded
    if not loaded:
        task.load_data()
    if isinstance(task, AbsTaskRetrieval):
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    if isinstance(model.embedder, TfIdf):
        model.embedder.fit(encoded_texts(task))
    else:
        subset = next(iter(task.hf_subsets), "default")
        model.calibrate(list(encoded_texts(task)), task.metadata, subset)
    try:
        yield
    finally:
        if not loaded:
            task.unload_data()


def _described(task: AbsTask, model: MtebEncoder | BM25Search) -> dict[str, Any]:
    """Return what a reader wants to see of a task: the query instruction, and numbers of texts where known."""
    described: dict[str, str] = {"instruction": "", "prompt": ""}
    if isinstance(model, MtebEncoder) and model.asking is not None:
        subset = next(iter(task.hf_subsets), "default")
        side = PromptType.query if is_asymmetric(task.metadata) else None
        described["instruction"] = model.asking.instruction(task.metadata, subset, side)
        described["prompt"] = model.asking.prompt(task.metadata, subset, side)
    return {**described, **getattr(task, "sizes", {})}  # local tasks know their sizes before they run


def _rows(result: TaskResult) -> list[dict[str, Any]]:
    """Scores of every split and subset."""
    return [dict(row) for rows in result.scores.values() for row in rows]


def _metrics(found: Any, main_metric: str) -> dict[str, float]:
    """Return the main score as mteb has it, and metrics as means over splits and subsets."""
    if not found.task_results:
        raise ReasoningEmbeddingError("; ".join(error.exception for error in found.exceptions or []))
    result = found.task_results[0]
    main = float(result.get_score())
    if not math.isfinite(main):
        raise ReasoningEmbeddingError(f"its score is {main}: the embeddings do not tell the texts apart")
    rows = _rows(result)
    names = list(rows[0])
    if METRICS[0] in names:
        # Retrieval has some 150 metrics, most of them one at another cut-off; mteb's own file keeps them all.
        # Its "accuracy" is recall_at_1 under another name.
        others = [name for name in names if "_at_" not in name and name != "accuracy"]
        names = [*METRICS, main_metric, *others]
    values = {"main_score": main}
    for name in dict.fromkeys(names):
        column = [float(row[name]) for row in rows if isinstance(row.get(name), float | int)]
        if len(column) == len(rows) and all(map(math.isfinite, column)):
            values.setdefault(name, sum(column) / len(column))
    return values


def path_of(folder: Path, task: str) -> Path:
    """Return the file of a task's single scores."""
    return folder / PER_QUERY / f"{task}.json"


def query_metric(main_score: str) -> tuple[str, str]:
    """Return the metric of single queries under mteb's and trec_eval's name: the main one where it has one."""
    match = re.fullmatch(r"(\w+?)_at_(\d+)", main_score)
    if match is None or match[1] not in _TREC:
        return "ndcg_at_10", "ndcg_cut_10"
    return main_score, f"{_TREC[match[1]]}_{match[2]}"


@contextlib.contextmanager
def recorded(task: AbsTask) -> Generator[dict[str, Any]]:
    """Collect the scores of single queries while mteb scores a retrieval task.

    Yields
    ------
    dict
        Filled as subsets are scored: ``metric`` and ``scores``, query id -> value. Where a task has several
        splits or subsets, ids are ``split/subset/id``. Empty for tasks of other types.

    Notes
    -----
    The values are those whose mean mteb reports, rounded by it to five digits: same ranking, same ties, same
    exclusion of a query's own document.
    """
    record: dict[str, Any] = {}
    if not isinstance(task, AbsTaskRetrieval):
        yield record
        return
    name, trec = query_metric(task.metadata.main_score)
    record.update(metric=name, scores={})
    several = len(task.eval_splits) * len(task.hf_subsets) > 1
    original = getattr(task, _HOOK)

    def hook(scores: Mapping[str, Mapping[str, float]], *args: Any, **kwargs: Any) -> dict[str, float]:
        prefix = f"{kwargs['hf_split']}/{kwargs['hf_subset']}/" if several else ""
        record["scores"].update({f"{prefix}{query}": values[trec] for query, values in scores.items()})
        return original(scores, *args, **kwargs)

    setattr(task, _HOOK, hook)
    try:
        yield record
    finally:
        delattr(task, _HOOK)


def experiments(found: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return the scores of a classification's experiments, whose mean is its main score; empty without any."""
    rows = found.get("scores_per_experiment") or []
    if not rows or any(metric not in row for row in rows):
        return {}
    return {"metric": metric, "scores": {str(index): float(row[metric]) for index, row in enumerate(rows)}}
