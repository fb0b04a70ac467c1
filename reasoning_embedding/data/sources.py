"""The rows of every source of a configuration, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .hub import hub_records
from .mix import mix_records, read_corpus
from .readers import data_files, file_stem, read_records
from .rows import BadRows, Row, rows_of


def read_rows(data: config.Data, bad: BadRows) -> Iterator[Row]:
    """Yield the rows of every source of a configuration, in their order.

    Parameters
    ----------
    data : config.Data
        The sources.
    bad : BadRows
        Takes records that are no rows.

    Raises
    ------
    InputError
        If a source cannot be read, has no usable rows, or holds a bad row where ``bad_rows`` is ``stop``.
    SetupError
        If the Hub cannot be reached.
    """
    for number, source in enumerate(data.sources):
        place, count = f"data.sources[{number}] ({source.kind})", 0
        for row in islice(_source_rows(source, bad), source.limit):
            count += 1
            yield row
        if not count:
            counts = ", ".join(f"{count} x {reason}" for reason, count in bad.counts.items())
            what = "no rows" + (f" left; skipped: {counts}" if counts else "")
            raise InputError(what, where=place, todo=_todo(source))
        if source.expected_rows is not None and source.limit is None and count != source.expected_rows:
            raise InputError(
                f"{count:,} rows, where expected_rows says {source.expected_rows:,}",
                where=place,
                todo="get the data set that the recipe means, or correct expected_rows",
            )


def _todo(source: config.Source) -> str:
    if isinstance(source, config.MixSource) and source.sources is not None:
        return f"check that {source.rows} has rows of {', '.join(source.sources)}"
    return "check that the source holds rows with a query and a positive"


def _source_rows(source: config.Source, bad: BadRows) -> Iterator[Row]:
    if isinstance(source, config.FilesSource):
        for file in data_files(source.path):
            yield from rows_of(
                read_records(file),
                bad,
                source=source.name,
                default_source=file_stem(file),
                instruction=source.instruction,
            )
        return
    if isinstance(source, config.MixSource):
        records = mix_records(source.rows, read_corpus(source.corpus, bad), source.sources)
        default = "mix"
    elif isinstance(source, config.HubSource):
        records, default = hub_records(source), source.dataset
    else:
        records, default = _world_records(source), "world"
    yield from rows_of(
        records, bad, source=source.name, default_source=default, instruction=source.instruction
    )


def _world_records(source: config.WorldSource) -> Iterator[tuple[str, object]]:
    from .miniature_world import MiniatureWorld

    for number, (question, document, _) in enumerate(
        MiniatureWorld(source.seed).pairs(source.split), start=1
    ):
        yield f"world {source.split} pair {number}", {"query": question, "pos": [document]}
