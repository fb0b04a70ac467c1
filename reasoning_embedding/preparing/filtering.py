"""Filtering a file of rows: every dropped row counted by reason, the rest written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.data import Table
from reasoning_embedding.errors import InputError
from reasoning_embedding.progress import Report

from .files import RowOutput, corpus_texts, plain_table, row_lines, texts_digest
from .lengths import text_lengths
from .search import Searcher, open_search, scored


@dataclass(frozen=True)
class FilterRule:
    """Which rows stay; every None is a rule that does not apply.

    Parameters
    ----------
    min_length, max_length : int or None
        Bounds of the lengths of a row's query and positives.
    tokenizer : str or None
        Lengths are tokens of this tokenizer; None: characters.
    duplicates : {"exact", "near"} or None
        Rows that repeat an earlier one go.
    decontaminate : tuple of Path
        BEIR-style folders; rows whose query or positive is one of their texts go.
    margin : float or None
        Least lead of the lowest positive over the best negative, in the unit of the scores.
    consistency : int or None
        A positive must be among this many best documents for its query.

    Raises
    ------
    InputError
        If no rule applies, or one cannot be kept by any row.
    """

    min_length: int | None = None
    max_length: int | None = None
    tokenizer: str | None = None
    duplicates: Literal["exact", "near"] | None = None
    decontaminate: tuple[Path, ...] = ()
    margin: float | None = None
    consistency: int | None = None

    def __post_init__(self) -> None:
        rules = (self.duplicates, self.margin, self.consistency)
        if not (self.lengths or self.decontaminate or any(rule is not None for rule in rules)):
            raise InputError(
                "no rule is given, so nothing would change", todo="rembed data filter --help lists them"
            )
        if self.min_length is not None and self.max_length is not None and self.min_length > self.max_length:
            what = f"no text is at least {self.min_length} and at most {self.max_length} long"
            raise InputError(what, where="--min-length, --max-length")
        if self.consistency is not None and self.consistency < 1:
            raise InputError(f"nothing is among the best {self.consistency}", where="--consistency")

    @property
    def lengths(self) -> bool:
        """Whether lengths are bounded."""
        return self.min_length is not None or self.max_length is not None


def filter_file(
    data: config.Data,
    output: Path,
    rule: FilterRule,
    *,
    searcher: Searcher | None = None,
    corpus: Path | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Write the rows of `data` that every rule keeps, in their order and with their scores.

    Parameters
    ----------
    data : config.Data
        The rows.
    output : Path
        ``.jsonl`` or ``.jsonl.gz``; ``<output>.report.json`` beside it counts what was dropped and why.
    rule : FilterRule
        What is dropped; a row that breaks several rules counts for the first, in the order of the fields.
    searcher : Searcher, optional
        Scores rows for the margin, in the place of the scores they have, and documents for consistency.
    corpus : Path, optional
        What positives compete with; absent: the documents of the rows.
    report : callable
        Takes lines of progress.

    Returns
    -------
    dict
        The report: ``rows``, ``kept``, ``dropped`` (reason -> rows), ``skipped`` records and ``settings``.

    Raises
    ------
    InputError
        If `output` exists and was not made by this very command, nothing would be left, scores or a model are missing.
    SetupError
        If the disk is full or a library is missing.

    Notes
    -----
    Vectors of a model, and texts and rows of large data, lie in ``<output>.progress/`` until the end, so that a
    stopped process goes on with them, under other rules too. Without near-duplicates, which hold the word 5-grams of
    every text, memory is some 100 bytes of numbers a text, whatever its length.
    """
    target = RowOutput(output)
    if rule.consistency is not None and searcher is None:
        raise InputError(
            "consistency needs a model that ranks documents", where="--model", todo="name one, or bm25"
        )
    report("reading rows")
    table = plain_table(data, target.progress)
    documents = None if corpus is None else corpus_texts(corpus)
    settings = {
        "rule": {**vars(rule), "decontaminate": [str(path) for path in rule.decontaminate]},
        "model": searcher and searcher.identity(),
        "corpus": documents and {"path": str(corpus), "sha256": texts_digest(documents)},
        "rows": table.fingerprint,
    }
    if (before := target.made_before(settings)) is not None:
        report("done before")
        return before
    if searcher is not None:
        target.claim(settings, ("rule",))
    if rule.margin is not None and searcher is not None:
        table = scored(searcher, table, target.progress / "rows", report)
    kept, dropped = np.ones(len(table), bool), {}
    for reason, mask in _masks(table, rule, searcher, documents, target.progress, report):
        dropped[reason] = int((kept & mask).sum())
        kept &= ~mask
        report(f"{reason}: {dropped[reason]:,} rows dropped, {kept.sum():,} left")
    if not kept.any():
        counts = ", ".join(f"{count:,} x {reason}" for reason, count in dropped.items() if count)
        raise InputError(
            f"every one of {len(table):,} rows is dropped ({counts})",
            where=str(output),
            todo="loosen the rules; nothing was written",
        )
    target.claim(settings, ("rule",))  # killed before its report is written, the file is known for ours
    with target.open() as file:
        for line in row_lines(table.row(row) for row in np.flatnonzero(kept).tolist()):
            file.write(line)
    result = {
        "rows": len(table),
        "kept": int(kept.sum()),
        "dropped": dropped,
        "skipped": table.skipped,
        "settings": settings,
    }
    target.finish(result)
    return result


def _masks(
    table: Table,
    rule: FilterRule,
    searcher: Searcher | None,
    documents: list[str] | None,
    folder: Path,
    report: Report,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the reason and the rows of each rule that applies."""
    from reasoning_embedding.data.quality import filters

    if rule.lengths:
        lengths, unit = text_lengths(table, rule.tokenizer, "characters")
        low, high = rule.min_length, rule.max_length
        yield f"fewer {unit} than allowed", filters.outside_lengths(table, lengths, low, None)
        yield f"more {unit} than allowed", filters.outside_lengths(table, lengths, None, high)
    if rule.duplicates is not None:
        yield "repeats an earlier row", filters.repeated(table, near=False)
    if rule.duplicates == "near":
        yield "nearly repeats an earlier row", filters.repeated(table, near=True)
    for path in rule.decontaminate:
        yield f"in evaluation set {path.name}", filters.contaminated(table, _evaluation_texts(path))
    if rule.margin is not None:
        yield "margin too narrow", filters.narrow_margin(table, rule.margin)
    if rule.consistency is not None and searcher is not None:
        from reasoning_embedding.data.mining.hard_negatives import inconsistent, make_pool

        pool = make_pool(table, documents)
        search = open_search(searcher, pool.queries, pool.documents, pool.minable, folder / "corpus", report)
        yield "positive not among the best", inconsistent(pool, search, rule.consistency)


def _evaluation_texts(folder: Path) -> list[str]:
    from reasoning_embedding.data.beir import read_beir

    data = read_beir(folder)
    return [*data.queries.values(), *data.corpus.values()]
