"""Scores below a task's: one a query, or one an experiment, for intervals and paired tests."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval

#: Sub-folder of an evaluation folder: ``per_query/<task>.json``.
FOLDER = "per_query"
_DEFAULT = "ndcg_at_10"
#: mteb's names of metrics -> trec_eval's, under which scores of single queries come.
_TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
#: The hook that mteb's retrieval tasks call with the scores of all queries, meant to be overridden.
_HOOK = "task_specific_scores"


def path_of(folder: Path, task: str) -> Path:
    """Return the file of a task's single scores."""
    return folder / FOLDER / f"{task}.json"


def query_metric(main_score: str) -> tuple[str, str]:
    """Return the metric of single queries under mteb's and trec_eval's name: the main one where it has one."""
    match = re.fullmatch(r"(\w+?)_at_(\d+)", main_score)
    if match is None or match[1] not in _TREC:
        main_score, match = _DEFAULT, re.fullmatch(r"(\w+?)_at_(\d+)", _DEFAULT)
    assert match is not None
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
