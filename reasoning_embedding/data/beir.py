"""Reading a local BEIR-style folder, with the place of every fault."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError

from .lines import read_text_lines

#: Characters of a grade: gains of 2 to a larger one would not be finite.
_LONGEST_GRADE = 4
_LAYOUT = "a BEIR-style folder holds corpus.jsonl, queries.jsonl (.gz too) and qrels.tsv"


@dataclass(frozen=True)
class RetrievalData:
    """A corpus, queries and their judgements.

    Parameters
    ----------
    corpus : dict of str to str
        Document id -> text; a title, where there is one, stands before the text.
    queries : dict of str to str
        Query id -> text, without instruction; every query has a document of positive grade.
    qrels : dict of str to dict of str to int
        Query id -> document id -> grade, a whole number from 0.
    instruction : str or None
        What queries are asked with; documents never get one.
    unjudged : int
        Queries left out because no document of theirs has a positive grade.
    """

    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    instruction: str | None = None
    unjudged: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 over texts, judgements and instruction: equal data, equal fingerprint."""
        record = [self.corpus, self.queries, self.qrels, self.instruction]
        return hashlib.sha256(json.dumps(record, ensure_ascii=False).encode()).hexdigest()


def read_beir(folder: Path, *, instruction: str | None = None) -> RetrievalData:
    """Read ``corpus.jsonl``, ``queries.jsonl`` (``.gz`` too), ``qrels.tsv`` and, where present, ``meta.json``.

    Parameters
    ----------
    folder : Path
        The folder; judgements may also lie at ``qrels/test.tsv``, as in the original BEIR archives.
    instruction : str, optional
        Replaces the one of ``meta.json``; an empty string means none.

    Raises
    ------
    InputError
        For a missing file, broken JSON, a missing or empty field, an id that occurs twice, a judgement of
        an unknown query or document, or judgements without a positive grade; with file and line.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), todo=_LAYOUT)
    corpus_file, queries_file = find_file(folder, "corpus.jsonl"), find_file(folder, "queries.jsonl")
    qrels_file = find_file(folder, "qrels.tsv", "qrels/test.tsv")
    corpus = _read_texts(corpus_file)
    queries = _read_texts(queries_file)
    if empty := next((name for name, text in queries.items() if not text), None):
        raise InputError(f"query {empty!r} has no text", where=str(queries_file), todo="remove or fill it")
    qrels = _read_qrels(qrels_file, corpus, queries)
    judged = {query: text for query, text in queries.items() if any(qrels.get(query, {}).values())}
    if not judged:
        raise InputError(
            "no query has a document of positive grade",
            where=str(qrels_file),
            todo="give lines 'query-id <tab> corpus-id <tab> score' with scores above 0",
        )
    if instruction is None:
        instruction = _read_instruction(folder / "meta.json")
    return RetrievalData(
        corpus=corpus,
        queries=judged,
        qrels={query: qrels[query] for query in judged},
        instruction=instruction or None,
        unjudged=len(queries) - len(judged),
    )


def find_file(folder: Path, *names: str) -> Path:
    """Return the first of the named files, or of the same with ``.gz``, that a folder holds.

    Raises
    ------
    InputError
        When it holds none.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(f"the folder has no {names[0]}", where=str(folder), todo=_LAYOUT)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (``file:line``, line) of every line that is not blank."""
    for number, line in read_text_lines(path):
        if line.strip():
            yield f"{path}:{number}", line.rstrip("\r\n")


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (``file:line``, object) of a JSONL file (``.gz`` too), blank lines left out.

    Raises
    ------
    InputError
        With the line that is no JSON object, or that cannot be read.
    """
    for where, line in _lines(path):
        yield where, _json(line, where)


def _read_texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    places: dict[str, str] = {}
    for where, row in read_objects(path):
        name, text, title = row.get("_id"), row.get("text"), row.get("title") or ""
        if not isinstance(name, str) or not name:
            raise InputError(
                "'_id' is missing or not a string", where=where, todo='write {"_id": "d1", "text": "..."}'
            )
        if not isinstance(text, str) or not isinstance(title, str):
            raise InputError(f"'text' or 'title' of {name!r} is missing or not a string", where=where)
        _check_unicode(name, "'_id'", where)
        _check_unicode(title + text, f"text of {name!r}", where)
        if name in texts:
            raise InputError(
                f"id {name!r} occurs twice",
                where=where,
                todo=f"it was first used at {places[name]}; ids are unique",
            )
        texts[name] = f"{title} {text}".strip()
        places[name] = where
    if not texts:
        raise InputError("the file is empty", where=str(path), todo="write one JSON object a line")
    return texts


def _check_unicode(text: str, what: str, where: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} is not valid Unicode: a lone surrogate at character {error.start}",
            where=where,
            todo="repair its \\u escapes",
        ) from error


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON: {error.msg} at character {error.pos + 1}", where=where, todo="write one JSON object"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists thousands deep
        raise InputError(
            f"JSON that cannot be read ({str(error)[:80]})", where=where, todo="write one JSON object"
        ) from error
    if not isinstance(row, dict):
        raise InputError("not a JSON object", where=where, todo="write one JSON object")
    return row


def _read_qrels(path: Path, corpus: dict[str, str], queries: dict[str, str]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for index, (where, line) in enumerate(_lines(path)):
        fields = line.split("\t")
        if len(fields) != 3:
            raise InputError(
                f"{len(fields)} columns", where=where, todo="write 'query-id <tab> corpus-id <tab> score'"
            )
        query, document, grade = fields
        if index == 0 and not _is_number(grade) and query not in queries and document not in corpus:
            continue  # the header: a judgement in its place would name what is there
        if not grade.strip().isdecimal() or len(grade) > _LONGEST_GRADE:
            raise InputError(f"score {grade[:40]!r} is not a whole number from 0", where=where)
        if query not in queries:
            raise InputError(f"query {query!r} is not in the queries file", where=where)
        if document not in corpus:
            raise InputError(f"document {document!r} is not in the corpus file", where=where)
        if document in qrels.setdefault(query, {}):
            raise InputError(
                f"the pair {query!r}, {document!r} occurs twice", where=where, todo="keep one of them"
            )
        qrels[query][document] = int(grade)
    return qrels


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_instruction(path: Path) -> str | None:
    if not path.is_file():
        return None
    instruction = _json("".join(line for _, line in read_text_lines(path)), str(path)).get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise InputError("'instruction' is not a string", where=str(path))
    _check_unicode(instruction or "", "'instruction'", str(path))
    return instruction
