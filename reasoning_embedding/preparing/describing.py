"""The statistics of training data: a JSON file, a page and the lines of a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.data.quality.statistics import statistics
from reasoning_embedding.files import atomic_write, write_json
from reasoning_embedding.reports.pages.data import data_page

from .files import plain_table
from .lengths import text_lengths
from .search import Report, Searcher, scored


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


def write_statistics(found: dict[str, Any], title: str, folder: Path) -> list[Path]:
    """Write ``statistics.json`` and ``index.html`` into a folder, and return their paths.

    Raises
    ------
    SetupError
        If the folder cannot be written.
    """
    files = [folder / "statistics.json", folder / "index.html"]
    write_json(files[0], found)
    atomic_write(files[1], data_page(found, title))
    return files


def statistics_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table for the terminal."""
    yield f"{'rows':52s} {found['rows']:>12,}"
    yield f"{'distinct texts':52s} {found['texts']:>12,}"
    for reason, count in found["skipped"].items():
        yield f"{'skipped: ' + reason:52.52s} {count:>12,}"
    for name, count in found["sources"].items():
        yield f"{'source ' + name:52.52s} {count:>12,}"
    header = "".join(f"{name:>9s}" for name in ("mean", "p5", "median", "p95", "max"))
    yield f"{'':24s}{header}"
    for name, values in {**found["lengths"], **found["counts"]}.items():
        label = name if name in found["counts"] else f"{found['unit']} of a {name}"
        yield f"{label:24s}" + "".join(
            f"{values[key]:>9,.1f}" for key in ("mean", "p5", "median", "p95", "max")
        )
    for name, count in found["duplicates"].items():
        yield f"{name:52s} {count:>12,}"
    for name, suspect in found["suspects"].items():
        yield f"{'suspect: ' + name:64s} {suspect['rows']:>12,}"
    if (scores := found["scores"]) is not None:
        share = scores["false_negatives"]
        yield f"{'negatives above 95 % of their positive':52s} {share:>12.2%} of {scores['negatives']:,}"
