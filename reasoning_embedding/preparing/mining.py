"""Mining hard negatives for a file of rows: resumable at any moment, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.data.mining.hard_negatives import (
    CandidatePool,
    MiningRule,
    check_pool,
    make_pool,
    mine,
)
from reasoning_embedding.errors import InputError
from reasoning_embedding.progress import Countdown, Report

from .files import (
    RowOutput,
    corpus_texts,
    is_whole_part,
    part_file,
    plain_table,
    row_lines,
    texts_digest,
)
from .search import Searcher, open_search

#: Rows written between two moments at which a stopped job can go on.
ROWS = 1024


def mine_file(
    data: config.Data,
    output: Path,
    searcher: Searcher,
    rule: MiningRule,
    *,
    corpus: Path | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Write the rows of `data` with mined negatives and the scores of positives and negatives.

    Parameters
    ----------
    data : config.Data
        The rows; their own negatives are part of what is mined from, not of the result.
    output : Path
        ``.jsonl`` or ``.jsonl.gz``; ``<output>.report.json`` beside it counts what was done.
    searcher : Searcher
        Who scores.
    rule : MiningRule
        What becomes a negative.
    corpus : Path, optional
        What is mined from, ``{"_id": id, "text": text}`` a line; absent: the documents of the rows.
    report : callable
        Takes lines of progress.

    Returns
    -------
    dict
        The report: counts, mean scores and settings.

    Raises
    ------
    InputError
        If `output` exists and was not made by this very command, the corpus is too small, no row finds a negative, or
        what an earlier process left was made with other settings.
    SetupError
        If the disk is full or a library is missing.

    Notes
    -----
    Vectors, finished rows, and texts and rows of large data lie in ``<output>.progress/`` until the end; a process killed
    at any moment goes on from there when the same command is given again. Memory is some 100 bytes of numbers a text,
    whatever its length, and with BM25 its index.
    """
    target = RowOutput(output)
    folder = target.progress
    report("reading rows")
    pool = make_pool(plain_table(data, folder), None if corpus is None else corpus_texts(corpus))
    check_pool(pool, rule)
    report(f"{len(pool.table):,} rows, {pool.minable:,} distinct documents to mine from")
    settings = {
        "model": searcher.identity(),
        "rule": vars(rule),
        "rows": pool.table.fingerprint,
        "corpus": {
            "path": corpus and str(corpus),
            "texts": pool.minable,
            "sha256": texts_digest(pool.documents),
        },
    }
    if (before := target.made_before(settings)) is not None:
        report("done before")
        return before
    # Vectors do not depend on the rule: without rows yet, another rule may go on with them.
    started = any(folder.glob("rows-*.jsonl"))
    target.claim(settings, () if started else ("rule",))
    search = open_search(searcher, pool.queries, pool.documents, pool.minable, folder, report)
    shards = []
    countdown = Countdown(report, "rows mined", done=_finished(folder, pool))
    for start in range(0, len(pool.table), ROWS):
        shards.append(shard := folder / f"rows-{start:010d}.jsonl")
        rows = range(start, min(start + ROWS, len(pool.table)))
        if not is_whole_part(shard, report):
            with part_file(shard) as temporary:
                temporary.write_bytes(b"".join(row_lines(mine(pool, search, rule, rows))))
            countdown(rows.stop, len(pool.table))
    result = {**_summary(shards), "skipped": pool.table.skipped, "settings": settings}
    if not result["negatives"]:
        for shard in shards:
            shard.unlink()
        raise InputError(
            f"none of {result['rows']:,} rows has a negative within the margins and ranks",
            where=str(output),
            todo="loosen them; nothing was written",
        )
    with target.open() as file:
        for shard in shards:
            with shard.open("rb") as part:
                shutil.copyfileobj(part, file)
    del search  # its vectors are mapped from the folder
    target.finish(result)
    return result


def _finished(folder: Path, pool: CandidatePool) -> int:
    """Rows that an earlier process wrote."""
    starts = (int(shard.stem.partition("-")[2]) for shard in folder.glob("rows-*.jsonl"))
    return sum(min(ROWS, len(pool.table) - start) for start in starts)


def _summary(shards: list[Path]) -> dict[str, Any]:
    rows = short = negatives = positives = 0
    sums = {"pos_scores": 0.0, "neg_scores": 0.0}
    for shard in shards:
        with shard.open("rb") as file:
            for line in file:
                row = json.loads(line)
                rows, short = rows + 1, short + (not row["neg"])
                negatives, positives = negatives + len(row["neg"]), positives + len(row["pos"])
                for name in sums:
                    sums[name] += sum(row.get(name, ()))
    return {
        "rows": rows,
        "negatives": negatives,
        "rows_without_negatives": short,
        "mean_positive_score": sums["pos_scores"] / max(positives, 1),
        "mean_negative_score": sums["neg_scores"] / max(negatives, 1),
    }
