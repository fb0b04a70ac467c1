"""A record becomes a row, or says why not."""

from __future__ import annotations

import pytest

from reasoning_embedding.data.rows import BadRows, Row, RowProblem, parse_row, rows_of
from reasoning_embedding.errors import InputError


def parse(record: object, source: str | None = None, instruction: str | None = None) -> Row:
    return parse_row(record, source=source, default_source="file", instruction=instruction)


@pytest.mark.parametrize(
    ("record", "row"),
    [
        pytest.param(
            {"query": "q", "pos": ["p"], "neg": ["n", "m"]},
            Row("q", ("p",), ("n", "m"), None, "file"),
            id="plain",
        ),
        pytest.param(
            {"query": ["find it", "q"], "pos": [["", "p"]], "neg": [["drop me", "n"], "m"]},
            Row("q", ("p",), ("n", "m"), "find it", "file"),
            id="gritlm",
        ),
        pytest.param(
            {"query": ["", "q"], "pos": ["p"]}, Row("q", ("p",), (), None, "file"), id="empty instruction"
        ),
        pytest.param(
            {
                "query": "q",
                "pos": ["p"],
                "neg": ["n"],
                "prompt": "find it",
                "pos_scores": [1.0],
                "neg_scores": [0],
                "type": "normal",
            },
            Row("q", ("p",), ("n",), "find it", "file", (1.0,), (0.0,)),
            id="flagembedding",
        ),
        pytest.param(
            {"query": "q", "positives": ["p", "o"], "negatives": [], "source": "mine", "instruction": "go"},
            Row("q", ("p", "o"), (), "go", "mine"),
            id="positives",
        ),
        pytest.param(
            {"anchor": "q", "positive": "p", "negative": "n"},
            Row("q", ("p",), ("n",), None, "file"),
            id="triple",
        ),
        pytest.param(
            {"anchor": "q", "positive": "p", "negative_10": "c", "negative_2": "b", "negative_1": "a"},
            Row("q", ("p",), ("a", "b", "c"), None, "file"),
            id="n-tuple",
        ),
        pytest.param(
            {"query": "q", "positive": "p", "neg": None}, Row("q", ("p",), (), None, "file"), id="null neg"
        ),
    ],
)
def test_formats(record: dict, row: Row) -> None:
    assert parse(record) == row


def test_a_source_overrides_names_and_fills_in_instructions() -> None:
    record = {"query": "q", "pos": ["p"], "source": "own"}
    assert parse(record, source="mine", instruction="default") == Row("q", ("p",), (), "default", "mine")
    assert parse(record | {"instruction": "own"}, instruction="default").instruction == "own"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([1, 2], "not a JSON object"),
        ({}, "no query"),
        ({"query": "q"}, "no positives"),
        ({"query": "q", "pos": []}, "no positives"),
        ({"query": " \n", "pos": ["p"]}, "query is empty"),
        ({"query": 3, "pos": ["p"]}, "query is not a text"),
        ({"query": ["only one"], "pos": ["p"]}, "query is a list but not [instruction, text]"),
        ({"query": ["", None], "pos": ["p"]}, "query is not a text"),
        ({"query": [["deep"], "q"], "pos": ["p"]}, "instruction is not a text"),
        ({"query": "q", "pos": [""]}, "positive is empty"),
        ({"query": "q", "pos": {"text": "p"}}, "positives are not a list of texts"),
        ({"query": "q", "pos": [["a", "b", "c"]]}, "positive is a list but not [instruction, text]"),
        ({"query": "q", "pos": ["p"], "neg": ["n", None]}, "negative is not a text"),
        ({"query": "q\0", "pos": ["p"]}, "query holds a NUL character"),
        ({"query": "q", "pos": ["\ud800"]}, "positive is not valid Unicode"),
        ({"query": "q", "pos": ["p"], "source": 7}, "source is not a text"),
        ({"query": "q", "pos": ["p"], "pos_scores": 1.0}, "positive scores are not a list"),
        (
            {"query": "q", "pos": ["p"], "pos_scores": [1.0, 2.0]},
            "positive scores do not match the positives",
        ),
        ({"query": "q", "pos": ["p"], "pos_scores": ["1"]}, "a positive score is not a number"),
        ({"query": "q", "pos": ["p"], "pos_scores": [float("nan")]}, "a positive score is not a number"),
        (
            {"query": "q", "pos": ["p"], "neg": ["n"], "neg_scores": [True]},
            "a negative score is not a number",
        ),
    ],
)
def test_problems_are_named(record: object, reason: str) -> None:
    with pytest.raises(RowProblem) as caught:
        parse(record)
    assert caught.value.reason == reason
    assert caught.value.todo


def test_stop_names_place_and_remedy() -> None:
    records = [
        ("rows.jsonl:1", {"query": "q", "pos": ["p"]}),
        ("rows.jsonl:2", {"query": "q", "posi": ["p"]}),
    ]
    with pytest.raises(InputError) as caught:
        list(rows_of(records, BadRows("stop"), source=None, default_source="x", instruction=None))
    message = str(caught.value)
    assert message.startswith(
        "rows.jsonl:2: no positives: its fields: posi, query\n  -> every row needs a query ("
    )
    assert message.endswith("columns: {query: my_question, pos: my_answer}, or set data.bad_rows: skip")


def test_skip_counts_by_reason() -> None:
    bad = BadRows("skip")
    records = [("a", {"query": "q", "pos": [""]}), ("b", {"query": "q", "pos": ["p"]}), ("c", 1), ("d", "x")]
    rows = list(rows_of(records, bad, source=None, default_source="x", instruction=None))
    assert [row.positives for row in rows] == [("p",)]
    assert bad.counts == {"positive is empty": 1, "not a JSON object": 2}
