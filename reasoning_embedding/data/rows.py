"""One training row, and what makes a record of a file such a row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from reasoning_embedding.errors import InputError

if TYPE_CHECKING:
    import numpy as np

#: A record as a reader hands it over: the place it came from, and what stood there.
Record = tuple[str, object]

_QUERY = ("query", "anchor")
_POSITIVES = ("pos", "positive", "positives")
_NEGATIVES = ("neg", "negative", "negatives")
_INSTRUCTION = ("instruction", "prompt")
#: Columns of sentence-transformers' n-tuples: negative_1, negative_2, ...
_NUMBERED_NEGATIVE = re.compile(r"negative_(\d{1,4})")
_LARGEST_SCORE = 1e30
_SHAPE = 'write {"query": text, "pos": [texts], "neg": [texts]}, one object a line'


@dataclass(frozen=True, slots=True)
class Row:
    """A query with the texts it should and should not find.

    Parameters
    ----------
    query : str
        The query, without its instruction.
    positives : tuple of str
        At least one.
    negatives : tuple of str
        Hard negatives; may be empty.
    instruction : str or None
        What the query asks for; None: the query gets no prompt.
    source : str
        The data set's name; batches come from one source at a time.
    positive_scores, negative_scores : tuple of float
        A teacher's score of each positive and negative; empty: it gave none.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    instruction: str | None
    source: str
    positive_scores: tuple[float, ...] = ()
    negative_scores: tuple[float, ...] = ()


class RowProblem(Exception):
    """Why a record is no row.

    Parameters
    ----------
    reason : str
        The same words for every row with this fault, so that skipped rows can be counted by it.
    todo : str
        What the user can do about it.
    detail : str, optional
        What is particular to this row.
    """

    def __init__(self, reason: str, todo: str, detail: str = "") -> None:
        self.reason, self.todo, self.detail = reason, todo, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(slots=True)
class BadRows:
    """What happens to records that are no rows: the first one stops, or all are counted.

    Parameters
    ----------
    policy : {"stop", "skip"}
        ``data.bad_rows`` of the configuration.
    counts : Counter
        Skipped records by reason.
    """

    policy: Literal["stop", "skip"] = "stop"
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, where: str, problem: RowProblem) -> None:
        """Count a problem, or stop at it.

        Raises
        ------
        InputError
            If the policy is to stop.
        """
        if self.policy == "stop":
            todo = f"{problem.todo}, or set data.bad_rows: skip"
            raise InputError(str(problem), where=where, todo=todo) from problem
        self.counts[problem.reason] += 1


def check_text(text: object, role: str) -> str:
    """Return ``text`` if a tokenizer can make something of it.

    Parameters
    ----------
    text : object
        Anything; a non-blank string of valid Unicode without NUL passes.
    role : str
        What the text is (query, positive, ...), for the message.

    Raises
    ------
    RowProblem
        If it is not such a string.
    """
    if not isinstance(text, str):
        raise RowProblem(f"{role} is not a text", "make it a string", f"found {type(text).__name__}")
    if not text or text.isspace():
        raise RowProblem(f"{role} is empty", "give it a text or drop it")
    if "\0" in text:
        raise RowProblem(f"{role} holds a NUL character", "remove it; it usually means binary data")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            detail = f"lone surrogate at character {error.start}"
            raise RowProblem(f"{role} is not valid Unicode", "repair its \\u escapes", detail) from error
    return text


def parse_row(record: object, *, source: str | None, default_source: str, instruction: str | None) -> Row:
    """Make a row of a record in any of the field's formats.

    Parameters
    ----------
    record : object
        A mapping with ``query`` (or ``anchor``), ``pos`` (``positive``, ``positives``) and ``neg``
        (``negative``, ``negatives``, ``negative_1``, ...). The query may be ``[instruction, text]``;
        so may each positive and negative, whose instruction is dropped: documents get no prompt.
        FlagEmbedding's ``prompt`` is the instruction, ``pos_scores`` and ``neg_scores`` are its teacher's;
        ``type`` is not used.
    source : str or None
        Takes the place of the record's own ``source``.
    default_source : str
        For records that name none.
    instruction : str or None
        For records that carry none.

    Raises
    ------
    RowProblem
        If the record is no row.
    """
    if not isinstance(record, Mapping):
        raise RowProblem("not a JSON object", _SHAPE, f"found {type(record).__name__}")
    query, own_instruction = _query(record)
    positives = _texts(_first(record, _POSITIVES), "positive")
    if not positives:
        fields = ", ".join(sorted(str(key)[:40] for key in record)[:8])
        raise RowProblem(
            "no positives", "every row needs at least one text under pos", f"its fields: {fields}"
        )
    negatives = _texts(_first(record, _NEGATIVES), "negative")
    numbered = sorted(
        (int(match[1]), key) for key in record if (match := _NUMBERED_NEGATIVE.fullmatch(str(key)))
    )
    negatives += tuple(text for _, key in numbered for text in _texts(record[key], "negative"))
    own_source = record.get("source")
    if own_source is not None and not isinstance(own_source, str):
        raise RowProblem("source is not a text", "make it a string", f"found {type(own_source).__name__}")
    name = source or own_source or default_source
    return Row(
        query,
        positives,
        negatives,
        own_instruction or instruction or None,
        check_text(name, "source"),
        _scores(record.get("pos_scores"), "positive", len(positives)),
        _scores(record.get("neg_scores"), "negative", len(negatives)),
    )


def row_record(row: Row) -> dict[str, object]:
    """Return the record :func:`parse_row` makes this row of, in FlagEmbedding's format."""
    record: dict[str, object] = {
        "query": row.query,
        "pos": list(row.positives),
        "neg": list(row.negatives),
        "source": row.source,
    }
    if row.instruction is not None:
        record["prompt"] = row.instruction
    if row.positive_scores or row.negative_scores:
        record["pos_scores"] = list(row.positive_scores)
        record["neg_scores"] = list(row.negative_scores)
    return record


def written_scores(scores: np.ndarray) -> tuple[float, ...]:
    """Return (n,) scores as a row holds them: seven digits are enough, JSON would write all of a double's."""
    return tuple(float(f"{score:.7g}") for score in scores.tolist())


def rows_of(
    records: Iterable[Record],
    bad: BadRows,
    *,
    source: str | None,
    default_source: str,
    instruction: str | None,
) -> Iterator[Row]:
    """Rows of records; those that are none go to ``bad``.

    Parameters
    ----------
    records : iterable of (str, object)
        Where each record stands, and the record; a :class:`RowProblem` when it could not be read.
    bad : BadRows
        Stops or counts.
    source, default_source, instruction
        As in :func:`parse_row`.

    Raises
    ------
    InputError
        At the first bad row, where the policy is to stop.
    """
    for where, record in records:
        try:
            if isinstance(record, RowProblem):
                raise record
            row = parse_row(record, source=source, default_source=default_source, instruction=instruction)
        except RowProblem as problem:
            bad.add(where, problem)
        else:
            yield row


def _first(record: Mapping, names: tuple[str, ...]) -> object:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _query(record: Mapping) -> tuple[str, str | None]:
    query, instruction = _first(record, _QUERY), _first(record, _INSTRUCTION)
    if query is None:
        fields = ", ".join(sorted(str(key)[:40] for key in record)[:8])
        raise RowProblem("no query", _SHAPE, f"its fields: {fields}")
    if isinstance(query, list | tuple):
        if len(query) != 2:
            raise RowProblem(
                "query is a list but not [instruction, text]", _SHAPE, f"it has {len(query)} entries"
            )
        instruction, query = query[0] or instruction, query[1]
    if instruction is None or (isinstance(instruction, str) and not instruction.strip()):
        return check_text(query, "query"), None
    return check_text(query, "query"), check_text(instruction, "instruction")


def _texts(value: object, role: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (check_text(value, role),)
    if not isinstance(value, list | tuple):
        raise RowProblem(f"{role}s are not a list of texts", _SHAPE, f"found {type(value).__name__}")
    return tuple(_document(entry, role) for entry in value)


def _scores(value: object, role: str, texts: int) -> tuple[float, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list | tuple):
        raise RowProblem(f"{role} scores are not a list", "write one number a text", _start(value))
    if len(value) != texts:
        detail = f"{len(value)} scores, {texts} {role}s"
        raise RowProblem(f"{role} scores do not match the {role}s", "write one number a text", detail)
    for number in value:
        # Beyond float32 a score would be infinite where it is compared, and an integer may be larger than a float.
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or not -_LARGEST_SCORE <= number <= _LARGEST_SCORE
        ):
            todo = f"write one number a text, from -{_LARGEST_SCORE:g} to {_LARGEST_SCORE:g}"
            raise RowProblem(f"a {role} score is not a number", todo, _start(number))
    return tuple(float(number) for number in value)


def _start(value: object) -> str:
    """Return the first characters of a value; all of an integer of thousands of digits is refused by Python."""
    return type(value).__name__ if isinstance(value, list | dict | int) else repr(value)[:40]


def _document(entry: object, role: str) -> str:
    if isinstance(entry, list | tuple):
        if len(entry) != 2 or not isinstance(entry[0], str):
            raise RowProblem(f"{role} is a list but not [instruction, text]", _SHAPE)
        entry = entry[1]
    return check_text(entry, role)
