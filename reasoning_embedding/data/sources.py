"""The rows of every source of a configuration: files, a mix with its corpus, a data set of the Hub, the miniature world.

A source is an iterator of records, each with the place where it stands; :func:`.rows.rows_of` makes rows of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.config.functions import check_call, explain_own_code, load_function
from reasoning_embedding.errors import InputError, SetupError

from .readers import data_files, file_stem, read_records
from .rows import BELOW_SCORE, BadRows, Names, Record, Row, RowProblem, check_text, rows_of


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
        names = Names(None if source.columns is None else source.columns.named(), source.min_score)
        before = bad.counts[BELOW_SCORE]
        for row in islice(_rows(source, bad, names), source.limit):
            count += 1
            yield row
        _note_names(names, bad, place)
        if below := bad.counts[BELOW_SCORE] - before:
            bad.notes[f"{place}: {below:,} pairs scored below {source.min_score:g} are left out"] = None
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


def _rows(source: config.Source, bad: BadRows, names: Names) -> Iterator[Row]:
    for name, records in _records(source, bad, names):
        yield from rows_of(
            records,
            bad,
            source=source.name,
            default_source=name,
            instruction=source.instruction,
            # A mix has put its texts under our own names.
            names=None if isinstance(source, config.MixSource) else names,
        )


def _note_names(names: Names, bad: BadRows, place: str) -> None:
    """Say which of the accepted names were read, and refuse columns that no record had."""
    if names.columns is not None:
        wanted = [
            name
            for named in names.columns.values()
            for name in ([named] if isinstance(named, str) else named)
        ]
        if missing := [name for name in wanted if name not in names.seen]:
            raise InputError(
                f"no record has a column {missing[0]!r}", where=place, todo="correct columns of this source"
            )
    if names.read:
        parts = {part: sorted(name for other, name in names.read if other == part) for part, _ in names.read}
        said = "; ".join(
            f"{part} from {' and '.join(parts[part])}" for part in ("query", "positives") if part in parts
        )
        bad.notes[f"{place}: {said}"] = None


def _records(source: config.Source, bad: BadRows, names: Names) -> Iterator[tuple[str, Iterable[Record]]]:
    """Yield the records of a source, a file at a time where it has files; and the name for rows that name no source."""
    if isinstance(source, config.FilesSource):
        for file in data_files(source.path):
            yield file_stem(file), read_records(file)
    elif isinstance(source, config.MixSource):
        yield "mix", _mix_records(source, read_corpus(source.corpus, bad), names)
    elif isinstance(source, config.HubSource):
        yield source.dataset, _hub_records(source)
    elif isinstance(source, config.FunctionSource):
        yield source.function.rpartition(":")[2], _function_records(source)
    else:
        yield "world", _world_records(source)


def read_corpus(path: str | Path, bad: BadRows) -> dict[str, str]:
    """Texts of a corpus by id.

    Parameters
    ----------
    path : str or Path
        A file or folder of ``{"_id": id, "text": text}`` (``id`` for ``_id``; a ``title`` goes before the
        text, as in BEIR).
    bad : BadRows
        Takes entries without an id or text, and ids that stand for two texts.

    Raises
    ------
    InputError
        If a file cannot be read, or at the first bad entry where the policy is to stop.
    """
    corpus: dict[str, str] = {}
    for file in data_files(path):
        for where, record in read_records(file):
            try:
                key, text = _entry(record)
                if corpus.setdefault(key, text) != text:
                    raise RowProblem(
                        "a corpus id stands for two texts", "give each text its own id", repr(key)
                    )
            except RowProblem as problem:
                bad.add(where, problem)
    return corpus


def _mix_records(source: config.MixSource, corpus: Mapping[str, str], names: Names) -> Iterator[Record]:
    """Yield records ``{"query": text, "pos": [ids], "neg": [ids], "source": name, ...}`` with texts for the ids."""
    for file in data_files(source.rows):
        for where, record in read_records(file):
            if not isinstance(record, dict):
                yield where, record
                continue
            if names.columns is not None:
                try:
                    record = dict(names.renamed(record))
                except RowProblem as problem:
                    yield where, problem
                    continue
            if source.sources is None or record.get("source") in source.sources:
                yield where, _resolved(record, corpus)


def _hub_records(source: config.HubSource) -> Iterator[Record]:
    import datasets
    from datasets.exceptions import DatasetsError

    where = f"{source.dataset}[{source.split}]"
    try:
        rows = datasets.load_dataset(
            source.dataset,
            name=source.config,
            split=source.split,
            revision=source.revision,
            data_files=source.files,
            streaming=source.streaming,
        )
        # Streamed, what cannot be had shows only here.
        for number, record in enumerate(rows, start=1):
            yield f"{where} row {number}", record
    # ConnectionError is an OSError and DatasetNotFoundError a FileNotFoundError: the order matters.
    except ConnectionError as error:
        todo = "check the network, or download the data set and use kind: files"
        raise SetupError(f"cannot reach the Hub ({_first_line(error)})", where=where, todo=todo) from error
    except (DatasetsError, ValueError, OSError) as error:
        todo = "check dataset, config, files, split and revision (and `hf auth login` if it is gated)"
        raise InputError(
            f"cannot load the data set ({_first_line(error)})", where=where, todo=todo
        ) from error


def _function_records(source: config.FunctionSource) -> Iterator[Record]:
    place = f"data.sources ({source.function})"
    function = load_function(source.function, where=place, sha256=source.sha256)
    check_call(function, 0, source.options, where=place)
    with explain_own_code(place):
        for number, record in enumerate(function(**source.options), start=1):
            yield f"{source.function} row {number}", record


def _world_records(source: config.WorldSource) -> Iterator[Record]:
    from .miniature_world import MiniatureWorld

    pairs = [
        pair
        for pair in MiniatureWorld(source.seed).pairs(source.split)
        if source.relations is None or pair[2] in source.relations
    ]
    for number, (question, document, _) in enumerate(pairs, start=1):
        yield f"world {source.split} pair {number}", {"query": question, "pos": [document]}


def _entry(record: object) -> tuple[str, str]:
    if isinstance(record, RowProblem):
        raise record
    if not isinstance(record, dict):
        raise RowProblem("corpus entry is not a JSON object", 'write {"_id": id, "text": text}')
    key = record.get("_id", record.get("id"))
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise RowProblem("corpus entry without an id", 'write {"_id": id, "text": text}')
    title = record.get("title")
    text = check_text(record.get("text"), "corpus text")
    return str(key), f"{check_text(title, 'title')} {text}" if title else text


def _resolved(record: dict[str, Any], corpus: Mapping[str, str]) -> object:
    try:
        texts = {role: _lookup(record.get(role), corpus, role) for role in ("pos", "neg")}
    except RowProblem as problem:
        return problem
    return record | texts


def _lookup(ids: object, corpus: Mapping[str, str], role: str) -> list[str]:
    if ids is None:
        return []
    if not isinstance(ids, list):
        raise RowProblem(f"{role} is not a list of corpus ids", f'write "{role}": [ids]')
    # A list in the place of an id could be too deep to be written out.
    if odd := [key for key in ids if isinstance(key, bool) or not isinstance(key, str | int)]:
        todo = "write ids as texts or whole numbers"
        raise RowProblem("an id is not in the corpus", todo, f"{role} holds a {type(odd[0]).__name__}")
    texts = [corpus.get(str(key)) for key in ids]
    if missing := [key for key, text in zip(ids, texts, strict=True) if text is None]:
        raise RowProblem(
            "an id is not in the corpus", "add its text to the corpus", f"{role} {str(missing[0])!r}"
        )
    return [text for text in texts if text is not None]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
