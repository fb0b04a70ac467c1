"""The statistics of training data, with the lengths and scores that they need."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.data.quality.statistics import statistics
from reasoning_embedding.progress import Report

from .files import plain_table
from .lengths import text_lengths
from .search import Searcher, scored


def describe_data(
    data: config.Data,
    *,
    tokenizer: str | None = None,
    searcher: Searcher | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Return the statistics of a data section.

    Parameters
    ----------
    data : config.Data
        The rows.
    tokenizer : str, optional
        Lengths are its tokens; absent: words.
    searcher : Searcher, optional
        Scores the rows for the estimate of false negatives, in the place of the scores they have.
    report : callable
        Takes lines of progress.

    Raises
    ------
    InputError
        If the rows, the tokenizer or the model cannot be read.
    """
    report("reading rows")
    with TemporaryDirectory(prefix="rembed-") as name:
        folder = Path(name)
        table = plain_table(data, folder)
        report(f"{len(table):,} rows, {len(table.texts):,} distinct texts")
        lengths, unit = text_lengths(table, tokenizer, "words")
        if searcher is not None:
            table = scored(searcher, table, folder, report)
        return statistics(table, lengths, unit)
