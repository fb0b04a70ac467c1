"""Rows kept out of training as a retrieval task: chosen by their content, with nothing of them left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder, read_json, write_json
from reasoning_embedding.progress import Report

from .quality.contamination import near_duplicates
from .quality.shingles import normalise
from .ragged import Ragged
from .table import Table

#: Queries of a task: every time it is scored they are embedded again. Others that are held out are not scored.
QUERIES = 1000
#: Documents that a task has at least, where the data has them: training texts of the source fill it up.
DOCUMENTS = 1000
#: Training texts that are compared with the held-out ones at a time.
_TEXTS = 20_000
#: What a folder of held-out rows was made of.
_RECORD = "holdout.json"


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows of one source as a retrieval task.

    Parameters
    ----------
    source : str
        Its name.
    corpus, queries : dict of str to str
        Id -> text.
    qrels : dict of str to dict of str to int
        Query id -> document id -> 1.
    prompt : str
        What training puts before these queries.
    """

    source: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    prompt: str


def hold_out(table: Table, share: float, report: Report) -> tuple[Table, list[HeldOut]]:
    """Split the rows of a run into those it learns from and those it is scored on.

    Rows that share a query or a positive (after folding case, white space and punctuation) stand or fall together: a
    group is held out when a hash of its content is below `share`, so that the same rows are chosen in any order, on any
    machine and whatever else is trained on. A group larger than the whole hold-out stays in training. Training rows with
    a near twin of a held-out query or positive (Jaccard similarity of word 5-grams of at least .8) are dropped, held-out
    texts among their negatives too; each with its count.

    Parameters
    ----------
    table : Table
        All rows.
    share : float
        About how many of them are held out, in (0, 1).
    report : callable
        Takes a line with the counts.

    Returns
    -------
    table : Table
        The rows to learn from, in their order, with a fingerprint of their own.
    tasks : list of HeldOut
        One a source that has held-out rows.

    Raises
    ------
    InputError
        If no row can be held out, or none is left to learn from.
    """
    fold = _folded(table)
    query, positives = fold[table.query], fold[table.positives.values]
    component = _components(query, positives, table.positives.owners, int(fold.max()) + 1)[query]
    chosen = _chosen(table, component, share)
    held_folds = np.zeros(int(fold.max()) + 1, bool)
    held_folds[query[chosen]] = True
    held_folds[positives[chosen[table.positives.owners]]] = True
    twin = _near_twins(table, fold, held_folds, ~chosen)
    dropped = ~chosen & (twin[table.query] | _any_of(table.positives, twin))
    kept = np.flatnonzero(~chosen & ~dropped)
    if not len(kept):
        raise InputError(
            "no row is left to learn from", where="data.holdout", todo="hold out less, or give more rows"
        )
    left, removed = _rows(table, kept, held_folds[fold], share)
    tasks = [
        _task(table, source, chosen, kept)
        for source in range(len(table.sources))
        if (chosen & (table.source == source)).any()
    ]
    scored = sum(len(task.queries) for task in tasks)
    report(
        f"held out: {chosen.sum():,} of {len(table):,} rows, {scored:,} queries are scored; left out of training: "
        f"{dropped.sum():,} rows with near twins of held-out texts, {removed:,} held-out texts among negatives"
    )
    return left, tasks


def write_tasks(folder: Path, tasks: Sequence[HeldOut], fingerprint: str, query_template: str) -> None:
    """Write held-out rows as BEIR-style folders: of one source the folder itself, of several a folder each.

    Parameters
    ----------
    folder : Path
        Replaced unless it holds the tasks of this fingerprint.
    tasks : sequence of HeldOut
        What to write.
    fingerprint : str
        Of the rows that were left to learn from.
    query_template : str
        The data's; an instruction within the prompts of a task is found by it.
    """
    if read_json(folder / _RECORD, default={}).get("fingerprint") == fingerprint:
        return
    before, _, after = query_template.partition("{instruction}")
    with atomic_folder(folder) as temporary:
        names = {}
        for number, task in enumerate(tasks):
            place = temporary if len(tasks) == 1 else temporary / f"{number:03d}"
            place.mkdir(exist_ok=True)
            names[place.relative_to(temporary).as_posix()] = task.source
            for name, texts in (("corpus", task.corpus), ("queries", task.queries)):
                lines = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items())
                (place / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
            grades = "".join(
                f"{asked}\t{found}\t{grade}\n"
                for asked, judged in task.qrels.items()
                for found, grade in judged.items()
            )
            (place / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + grades, encoding="utf-8")
            filled = len(task.prompt) >= len(before) + len(after)
            if task.prompt and filled and task.prompt.startswith(before) and task.prompt.endswith(after):
                instruction = task.prompt[len(before) : len(task.prompt) - len(after)]
                write_json(place / "meta.json", {"instruction": instruction}, exact=True)
        write_json(temporary / _RECORD, {"fingerprint": fingerprint, "sources": names}, exact=True)


def read_names(folder: Path) -> dict[str, str]:
    """Return the task folders within a folder that :func:`write_tasks` wrote, and the source of each.

    Raises
    ------
    InputError
        If it is not there or damaged.
    """
    try:
        return dict(read_json(folder / _RECORD)["sources"])
    except FileNotFoundError as error:
        raise InputError(
            "the run has no rows held out",
            where=str(folder.absolute()),
            todo="train with data.holdout, or name a task with --task",
        ) from error


def _folded(table: Table) -> np.ndarray:
    """Return a number for each text of the table, the same for texts that read the same; (texts,) int64."""
    numbers: dict[bytes, int] = {}
    return np.array(
        [
            numbers.setdefault(blake2b(normalise(text).encode(), digest_size=16).digest(), len(numbers))
            for _, text in table.texts
        ],
        np.int64,
    )


def _components(query: np.ndarray, positives: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """Return the group of each folded text: what a row joins is in one."""
    edges = coo_array((np.ones(len(positives), bool), (query[owners], positives)), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def _number(content: bytes) -> float:
    """A number in [0, 1) that is as good as drawn, the same for the same content."""
    return int.from_bytes(blake2b(content, digest_size=7).digest()) / 2**56


def _chosen(table: Table, component: np.ndarray, share: float) -> np.ndarray:
    """Return which rows are held out, (n,) bool."""
    names: dict[int, str] = {}
    for row, group in enumerate(component.tolist()):
        text = normalise(table.texts[table.query[row]][1])
        if group not in names or text < names[group]:
            names[group] = text
    groups = np.array(list(names))
    drawn = np.array([_number(name.encode()) for name in names.values()])
    sizes = np.bincount(component)
    fits = sizes[groups] <= max(1, share * len(table))
    # Of few rows none may be drawn: the lowest number is.
    wanted = drawn < share
    if not (wanted & fits).any() and fits.any():
        wanted = drawn == drawn[fits].min()
    chosen = np.isin(component, groups[wanted & fits])
    for source in range(len(table.sources)):
        if chosen[table.source == source].all():  # nothing of the source would be learnt
            chosen &= ~np.isin(component, component[table.source == source])
    if not chosen.any():
        raise InputError(
            "no row can be held out: too many share a query or a positive, or there are too few",
            where="data.holdout",
            todo="leave it out, and name tasks of your own in evaluation.tasks",
        )
    return chosen


def _near_twins(table: Table, fold: np.ndarray, held: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return which texts are near twins of held-out ones, (texts,) bool; only queries and positives of `rows` count."""
    used = np.unique(
        np.concatenate([table.query[rows], table.positives.values[rows[table.positives.owners]]])
    )
    _, first = np.unique(fold, return_index=True)
    against = sorted({normalise(table.texts[first[number]][1]) for number in np.flatnonzero(held)})
    twins = np.zeros(len(table.texts), bool)
    for start in range(0, len(used), _TEXTS):
        part = used[start : start + _TEXTS]
        texts = list(dict.fromkeys(normalise(table.texts[text][1]) for text in part))
        near = {texts[index] for index in near_duplicates(against, texts)}
        if near:
            twins[[text for text in part if normalise(table.texts[text][1]) in near]] = True
    return twins


def _any_of(lists: Ragged, marked: np.ndarray) -> np.ndarray:
    """Return which lists hold a marked text, (n,) bool."""
    found = np.zeros(len(lists), bool)
    found[lists.owners[marked[lists.values]]] = True
    return found


def _rows(table: Table, kept: np.ndarray, held: np.ndarray, share: float) -> tuple[Table, int]:
    """Return the table of the rows that are kept, without held-out texts among negatives, and how many these were."""
    places = table.negatives.places(kept)
    stays = ~held[table.negatives.values[places]]
    lengths = np.bincount(table.negatives.owners_within(kept)[stays], minlength=len(kept))
    negatives = Ragged.from_lengths(table.negatives.values[places[stays]], lengths)
    scores = table.negative_scores
    digest = hashlib.sha256(f"{table.fingerprint} {share!r} {len(kept)}".encode())
    for values in (kept, negatives.values):
        digest.update(np.ascontiguousarray(values, "<i8").data)
    left = replace(
        table,
        query=table.query[kept],
        positives=table.positives.take(kept),
        negatives=negatives,
        source=table.source[kept],
        fingerprint=digest.hexdigest(),
        positive_scores=None
        if table.positive_scores is None
        else table.positive_scores[table.positives.places(kept)],
        negative_scores=None if scores is None else scores[places[stays]],
    )
    return left, int((~stays).sum())


def _task(table: Table, source: int, chosen: np.ndarray, kept: np.ndarray) -> HeldOut:
    """Return the task of a source: its queries, their documents, and others of the source to find them among."""

    def text(index: int) -> str:
        return table.texts[index][1]

    def name(index: int) -> str:
        return blake2b(normalise(text(index)).encode(), digest_size=8).hexdigest()

    def drawn(index: int) -> float:
        return _number(text(index).encode())

    rows = np.flatnonzero(chosen & (table.source == source)).tolist()
    rows.sort(key=lambda row: (drawn(int(table.query[row])), row))
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    corpus: dict[str, str] = {}
    for row in rows:
        asked = name(int(table.query[row]))
        if asked not in queries and len(queries) == QUERIES:
            continue  # another row of a query that is there is taken
        queries.setdefault(asked, text(int(table.query[row])))
        for document in table.positives[row].tolist():
            corpus.setdefault(name(document), text(document))
            qrels.setdefault(asked, {})[name(document)] = 1
        for document in table.negatives[row].tolist():
            corpus.setdefault(name(document), text(document))
    if len(corpus) < DOCUMENTS:
        own = kept[table.source[kept] == source]
        others = np.unique(table.positives.values[table.positives.places(own)]).tolist()
        for document in sorted(others, key=lambda index: (drawn(index), index)):
            if len(corpus) >= DOCUMENTS:
                break
            corpus.setdefault(name(document), text(document))
    return HeldOut(table.sources[source], corpus, queries, qrels, table.texts[table.query[rows[0]]][0])
