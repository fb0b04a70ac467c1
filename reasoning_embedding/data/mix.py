"""A mix: rows that name their texts by id, and the corpus that holds the texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .readers import data_files, read_records
from .rows import BadRows, Record, RowProblem, check_text


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


def mix_records(
    rows: str | Path, corpus: Mapping[str, str], sources: list[str] | None = None
) -> Iterator[Record]:
    """Records of a mix with the texts in the place of their ids.

    Parameters
    ----------
    rows : str or Path
        A file or folder of ``{"query": text, "pos": [ids], "neg": [ids], "source": name, "instruction": text}``.
    corpus : mapping of str to str
        Texts by id.
    sources : list of str, optional
        Keep only rows of these sources.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    for file in data_files(rows):
        for where, record in read_records(file):
            if not isinstance(record, dict):
                yield where, record
            elif sources is None or record.get("source") in sources:
                yield where, _resolved(record, corpus)


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
    texts = [corpus.get(str(key)) for key in ids]
    if missing := [key for key, text in zip(ids, texts, strict=True) if text is None]:
        raise RowProblem(
            "an id is not in the corpus", "add its text to the corpus", f"{role} {str(missing[0])!r}"
        )
    return [text for text in texts if text is not None]
