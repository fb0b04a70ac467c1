"""Each filter drops the rows its definition names, and no others."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.data import load_table
from reasoning_embedding.data.quality import filters
from reasoning_embedding.data.quality.duplicates import near_groups
from reasoning_embedding.data.quality.shingles import normalise
from reasoning_embedding.data.quality.statistics import statistics
from reasoning_embedding.data.rows import BadRows, row_record, rows_of
from reasoning_embedding.errors import InputError
from tests.data.tables import plain_table_of

WORDS = "red green blue cat dog bird fish fox tree river stone city king queen moon sun star sea road house".split()


def dropped(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


def test_a_row_written_and_read_again_is_the_row(tmp_path: Path) -> None:
    record = {
        "query": ["find {it}", "q"],
        "pos": ["p", "r"],
        "neg": ["n"],
        "source": "s",
        "pos_scores": [0.5, 2],
        "neg_scores": [0.1],
    }
    table = plain_table_of(tmp_path, record, {"query": "bare", "pos": ["p"]})
    rows = [table.row(index) for index in range(2)]
    assert rows[0].instruction == "find {it}"
    assert rows[0].positive_scores == (0.5, 2.0)
    again = rows_of(
        (("", row_record(row)) for row in rows),
        BadRows(),
        source=None,
        default_source="rows",
        instruction=None,
    )
    assert list(again) == rows


def test_lengths_bind_queries_and_positives(tmp_path: Path) -> None:
    table = plain_table_of(
        tmp_path,
        {"query": "four", "pos": ["12345"], "neg": ["1", "1234567"]},
        {"query": "one", "pos": ["12345"]},
        {"query": "four", "pos": ["12345", "1234567"]},
        {"query": "fifty5", "pos": ["1234"]},
    )
    lengths = np.array([len(text) for _, text in table.texts])
    assert dropped(filters.outside_lengths(table, lengths, 4, 6)) == [1, 2]
    assert dropped(filters.outside_lengths(table, lengths, None, 6)) == [2]
    assert dropped(filters.outside_lengths(table, lengths, None, None)) == []


def test_repeated_rows_keep_the_first(tmp_path: Path) -> None:
    long = " ".join(WORDS)
    table = plain_table_of(
        tmp_path,
        {"query": "The cat", "pos": ["A b", "c"]},
        {"query": "the cat!", "pos": ["c", "a B."], "neg": ["other"]},
        {"query": "the cat", "pos": ["c"]},
        {"query": long, "pos": ["p"]},
        {"query": long.replace("house", "boat"), "pos": ["P"]},
        {"query": long, "pos": ["another"]},
    )
    assert dropped(filters.repeated(table, near=False)) == [1]
    assert dropped(filters.repeated(table, near=True)) == [1, 4]


def test_near_groups_are_the_components_of_all_similar_pairs() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 30)) for _ in range(30)]
    for _ in range(150):
        words = texts[rng.integers(len(texts))].split()
        words[rng.integers(30)] = WORDS[rng.integers(len(WORDS))]
        texts.append(" ".join(words))
    grams = [{tuple(words[i : i + 5]) for i in range(26)} for words in (text.split() for text in texts)]
    label = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if len(grams[i] & grams[j]) / len(grams[i] | grams[j]) >= 0.7:
            old, new = label[j], label[i]
            label = [new if one == old else one for one in label]
    found = near_groups(texts, threshold=0.7)
    partition = {
        frozenset(np.flatnonzero(np.array(labels) == one)) for labels in (label,) for one in set(label)
    }
    assert {frozenset(np.flatnonzero(found == one)) for one in set(found.tolist())} == partition
    assert 30 < len(partition) < 150
    assert near_groups([]).tolist() == []


def test_evaluation_texts_go_as_query_or_positive(tmp_path: Path) -> None:
    long = " ".join(WORDS)
    table = plain_table_of(
        tmp_path,
        {"query": "clean", "pos": ["p"], "neg": ["Held out."]},
        {"query": "HELD out", "pos": ["p"]},
        {"query": "clean", "pos": ["p", long.replace("red", "pink")]},
        {"query": long.replace("fox", "a b c d e f g h i j k l m n"), "pos": ["p"]},
    )
    assert dropped(filters.contaminated(table, ["held out", long])) == [1, 2]


def test_margins_use_the_lowest_positive_and_the_best_negative(tmp_path: Path) -> None:
    def row(positives: list[float], negatives: list[float]) -> dict[str, Any]:
        texts = {
            "pos": [f"p{i}" for i in range(len(positives))],
            "neg": [f"n{i}" for i in range(len(negatives))],
        }
        return {"query": "q", **texts, "pos_scores": positives, "neg_scores": negatives}

    table = plain_table_of(tmp_path, row([5, 3], [1, 2]), row([9], [2, 8.5]), row([1], []), row([2], [3]))
    assert dropped(filters.narrow_margin(table, 1.0)) == [1, 3]
    assert dropped(filters.narrow_margin(table, 1.5)) == [0, 1, 3]
    bare = plain_table_of(tmp_path, row([5], [1]), {"query": "q", "pos": ["p"], "neg": ["n"]})
    with pytest.raises(InputError, match="1 of 2 rows with negatives have no scores") as caught:
        filters.narrow_margin(bare, 1.0)
    assert caught.value.where == "row 2: pos_scores, neg_scores"
    with pytest.raises(InputError, match="1 of 1 rows"):
        filters.narrow_margin(plain_table_of(tmp_path, {"query": "q", "pos": ["p"], "neg": ["n"]}), 1.0)


def test_statistics_count_what_is_there(tmp_path: Path) -> None:
    table = plain_table_of(
        tmp_path,
        {"query": "q one", "pos": ["a a a", "b"], "neg": ["c", "B!"], "source": "s"},
        {"query": "Q one", "pos": ["c"], "neg": ["d"], "source": "s"},
        {"query": "same", "pos": ["Same"], "neg": ["same"], "source": "t"},
        {"query": "same", "pos": ["same."], "source": "t"},
        {
            "query": "x",
            "pos": ["y"],
            "pos_scores": [1.0],
            "neg": ["z", "w"],
            "neg_scores": [0.96, 0.95],
            "source": "t",
        },
        {
            "query": "v",
            "pos": ["y"],
            "pos_scores": [-1.0],
            "neg": ["z"],
            "neg_scores": [-1.01],
            "source": "t",
        },
    )
    found = statistics(table, np.array([len(text.split()) for _, text in table.texts]), "words")
    assert (found["rows"], found["sources"]) == (6, {"s": 2, "t": 4})
    assert found["lengths"]["positive"]["n"] == 7
    assert found["lengths"]["positive"]["mean"] == pytest.approx(9 / 7)
    assert found["lengths"]["positive"]["histogram"]["counts"] == [6, 0, 1]
    assert found["counts"]["negatives a row"]["max"] == 2
    assert found["duplicates"] == {
        "rows that repeat an earlier one": 1,
        "rows with the query of an earlier one": 2,
        "documents that read as another": 3,
    }
    rows = {
        name: (one["rows"], [example["row"] for example in one["examples"]])
        for name, one in found["suspects"].items()
    }
    assert rows == {
        "a positive is a negative of the same row": (2, [0, 2]),
        "a negative answers the same query in another row": (0, []),
        "the query is its own positive": (2, [2, 3]),
        "the query is its own negative": (1, [2]),
        "the same query has other positives in another row": (2, [0, 1]),
    }
    # 0.95 is not above 95 % of 1; below zero the bound is -1.05.
    assert found["scores"]["negatives"] == 3
    assert found["scores"]["false_negatives"] == pytest.approx(2 / 3)
    assert found["scores"]["rows_with_false_negatives"] == 2
    assert found["scores"]["negatives_above_positive"] == 0
    assert [one["row"] for one in found["scores"]["examples"]] == [4, 5]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_real_mix_holds_no_exact_repetition_of_its_cleaning(real_data: Path) -> None:
    mix = real_data / "derived" / "mix"
    source = {
        "kind": "mix",
        "rows": str(mix / "train.jsonl.gz"),
        "corpus": str(mix / "corpus.jsonl.gz"),
        "limit": 400,
    }
    table = load_table(config.Data.model_validate({"sources": [source], "query_template": "{instruction}"}))
    exact, near = filters.repeated(table, near=False), filters.repeated(table, near=True)
    assert not (exact & ~near).any()
    said = [
        (normalise(row.query), frozenset(normalise(text) for text in row.positives))
        for row in map(table.row, range(400))
    ]
    assert exact.sum() == len(said) - len(set(said))
