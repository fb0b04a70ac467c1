"""One training row, and what makes a record of a file such a row."""

from __future__ import annotations

import contextlib
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

#: Names that are read by themselves, the first one that a record has: ours and FlagEmbedding's, then those of
#: sentence-transformers' data sets and of questions with answers.
_QUERY = ("query", "anchor", "question", "sentence1")
_POSITIVES = ("pos", "positive", "positives", "answer", "response", "sentence2")
_NEGATIVES = ("neg", "negative", "negatives")
_INSTRUCTION = ("instruction", "prompt")
#: A grade of the pair, beside the one text that it grades; not beside ``pos``, and not where there are negatives.
_SCORE = ("score", "label")
#: Columns of sentence-transformers' n-tuples: negative_1, negative_2, ...
_NUMBERED_NEGATIVE = re.compile(r"negative_(\d{1,4})")
_LARGEST_SCORE = 1e30
_SHAPE = 'write {"query": text, "pos": [texts], "neg": [texts]}, one object a line'
#: The names as a message gives them; the table of docs/configuration.md holds the same.
ACCEPTED = (
    f"every row needs a query ({', '.join(_QUERY)}) and at least one text under {', '.join(_POSITIVES)}; negatives may "
    f"stand under {', '.join(_NEGATIVES)}, negative_1, ...; other names go into the source's columns, such as "
    "columns: {query: my_question, pos: my_answer}"
)
_GRADED = (
    "say from which score on a pair is one to learn, such as min_score: 0.8 of the source (lower ones are left out "
    "and counted); or name what shall be read in columns: {query: ..., pos: ...}, which ignores the score"
)


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


#: The reason under which pairs of too low a score are counted.
BELOW_SCORE = "a score below min_score"


class BelowScore(Exception):
    """A record's own score says that it is no pair."""


@dataclass(slots=True)
class Names:
    """Which columns of a source are read, and which of its graded pairs.

    Parameters
    ----------
    columns : mapping of str to str or list of str, optional
        Column of each part: ``query``, ``pos``, ``neg``, ``instruction``, ``source``, ``score``, ``pos_scores``,
        ``neg_scores``; a column inside another is written ``answers.text``. Given, nothing else is read. Absent: the
        accepted names.
    min_score : float, optional
        Pairs with a score of at least this are rows, the others are left out.

    Attributes
    ----------
    seen : set of str
        Columns of `columns` that some record had.
    read : set of (str, str)
        (part, name) of accepted names other than ``query`` and ``pos`` that were read.
    """

    columns: Mapping[str, str | list[str]] | None = None
    min_score: float | None = None
    seen: set[str] = field(default_factory=set)
    read: set[tuple[str, str]] = field(default_factory=set)

    def renamed(self, record: Mapping) -> Mapping:
        """Return a record whose parts have our names."""
        if self.columns is None:
            if "query" not in record or "pos" not in record:
                for part, names in (("query", _QUERY), ("positives", _POSITIVES)):
                    if (name := _first_name(record, names)) not in (None, "query", "pos"):
                        self.read.add((part, str(name)))
            return record
        parts: dict[str, object] = {}
        for part, named in self.columns.items():
            values = [self._value(record, name) for name in ([named] if isinstance(named, str) else named)]
            if part in ("pos", "neg") and len(values) > 1:
                # Each column holds a text or a list of them; an empty cell holds none.
                lists = [value if isinstance(value, list | tuple) else [value] for value in values if value]
                parts[part] = [text for texts in lists for text in texts]
            else:
                parts[part] = values[0]
        for part in ("query", "pos"):
            if parts.get(part) is None:
                raise RowProblem(
                    f"no column {self.columns[part]!r}", f"correct columns.{part}", _fields(record)
                )
        return parts

    def _value(self, record: Mapping, name: str) -> object:
        if name in record:
            self.seen.add(name)
            return record[name]
        inside: object = record
        for step in name.split("."):
            if not isinstance(inside, Mapping) or step not in inside:
                return None
            inside = inside[step]
        self.seen.add(name)
        return inside

    def keeps(self, record: Mapping, positive: str | None, positives: int, *, negatives: bool) -> bool:
        """Whether a pair's score, if it has one, lets it be a row.

        Raises
        ------
        RowProblem
            If there is a score and no least one, or it is no number.
        """
        named = self.columns is not None and "score" in self.columns
        graded = named or (self.columns is None and positive not in ("pos", "positives") and not negatives)
        name = _first_name(record, _SCORE) if graded else None
        if name is None:
            if self.min_score is None:
                return True
            raise RowProblem(
                "no score, where the source has a min_score",
                "give it one, or drop min_score",
                _fields(record),
            )
        score = record[name]
        if isinstance(score, str):
            with contextlib.suppress(ValueError):
                score = float(score)
        if not isinstance(score, int | float) or not -_LARGEST_SCORE <= score <= _LARGEST_SCORE:
            raise RowProblem(f"its {name} is not a number", _GRADED, _start(score))
        if positives != 1:
            raise RowProblem("one score for several positives", "write one pair a row")
        if self.min_score is None:
            raise RowProblem(f"a graded pair (it has a {name})", _GRADED, f"{name} {score:g}")
        return score >= self.min_score


@dataclass(slots=True)
class BadRows:
    """What happens to records that are no rows: the first one stops, or all are counted.

    Parameters
    ----------
    policy : {"stop", "skip"}
        ``data.bad_rows`` of the configuration.
    counts : Counter
        Records that became no row, by reason.
    notes : dict of str to None
        What reading has decided by itself, a sentence each, in order.
    """

    policy: Literal["stop", "skip"] = "stop"
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)

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


def parse_row(
    record: object,
    *,
    source: str | None,
    default_source: str,
    instruction: str | None,
    names: Names | None = None,
) -> Row:
    """Make a row of a record in any of the field's formats.

    Parameters
    ----------
    record : object
        A mapping with a query, positives and perhaps negatives under one of the accepted names (``query``,
        ``anchor``, ``question``, ``sentence1``; ``pos``, ``positive``, ``answer``, ``response``, ``sentence2``;
        ``neg``, ``negative``, ``negative_1``, ...). The query may be ``[instruction, text]``;
        so may each positive and negative, whose instruction is dropped: documents get no prompt.
        FlagEmbedding's ``prompt`` is the instruction, ``pos_scores`` and ``neg_scores`` are its teacher's;
        ``type`` is not used.
    source : str or None
        Takes the place of the record's own ``source``.
    default_source : str
        For records that name none.
    instruction : str or None
        For records that carry none.
    names : Names, optional
        The columns that a source names and its least score; takes note of the names that were read. Absent: the
        accepted names, without a least score.

    Raises
    ------
    RowProblem
        If the record is no row.
    BelowScore
        If its own score says that it is no pair.
    """
    if not isinstance(record, Mapping):
        raise RowProblem("not a JSON object", _SHAPE, f"found {type(record).__name__}")
    names = names or Names()
    record = names.renamed(record)
    query, own_instruction = _query(record)
    positive_name = _first_name(record, _POSITIVES)
    positives = () if positive_name is None else _texts(record[positive_name], "positive")
    if not positives:
        todo = ACCEPTED if positive_name is None else "every row needs at least one text under pos"
        raise RowProblem("no positives", todo, _fields(record))
    negatives = _texts(_first(record, _NEGATIVES), "negative")
    numbered = sorted(
        (int(match[1]), key) for key in record if (match := _NUMBERED_NEGATIVE.fullmatch(str(key)))
    )
    negatives += tuple(text for _, key in numbered for text in _texts(record[key], "negative"))
    if not names.keeps(record, positive_name, len(positives), negatives=bool(negatives)):
        raise BelowScore
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
    names: Names | None = None,
) -> Iterator[Row]:
    """Rows of records; those that are none go to ``bad``.

    Parameters
    ----------
    records : iterable of (str, object)
        Where each record stands, and the record; a :class:`RowProblem` when it could not be read.
    bad : BadRows
        Stops or counts.
    source, default_source, instruction, names
        As in :func:`parse_row`; pairs below the least score are counted, whatever the policy.

    Raises
    ------
    InputError
        At the first bad row, where the policy is to stop.
    """
    for where, record in records:
        try:
            if isinstance(record, RowProblem):
                raise record
            row = parse_row(
                record,
                source=source,
                default_source=default_source,
                instruction=instruction,
                names=names,
            )
        except RowProblem as problem:
            bad.add(where, problem)
        except BelowScore:
            bad.counts[BELOW_SCORE] += 1
        else:
            yield row


def _first_name(record: Mapping, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if record.get(name) is not None), None)


def _fields(record: Mapping) -> str:
    return "its fields: " + ", ".join(sorted(str(key)[:40] for key in record)[:8])


def _first(record: Mapping, names: tuple[str, ...]) -> object:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _query(record: Mapping) -> tuple[str, str | None]:
    query, instruction = _first(record, _QUERY), _first(record, _INSTRUCTION)
    if query is None:
        raise RowProblem("no query", ACCEPTED, _fields(record))
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
