"""Evaluation texts in training data: found when planted, not found otherwise, refused when listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning_embedding import config
from reasoning_embedding.data import load_table
from reasoning_embedding.data.quality.contamination import contamination, contamination_line, near_duplicates
from reasoning_embedding.data.quality.evaluation_sources import (
    refuse_evaluation_rows,
    refuse_evaluation_sources,
)
from reasoning_embedding.data.quality.shingles import BANDS, ROWS, jaccard, minhash, normalise, shingle_sets
from reasoning_embedding.errors import InputError
from tests.data.tables import table_of

WORDS = [f"w{number}" for number in range(500)]
WORD = st.sampled_from("abcdefgh")


def _text(rng: np.random.Generator, length: int) -> str:
    return " ".join(rng.choice(WORDS, length))


def _changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = "other"
    return " ".join(words)


def _five_grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def _oracle(a: str, b: str) -> float:
    x, y = _five_grams(a), _five_grams(b)
    return len(x & y) / len(x | y)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The  Cat,\nsat!", "the cat sat"),
        ("Straße", "STRASSE"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("snake_case(x)", "snake case x"),
        ("語、言", "語 言"),
    ],
)
def test_case_white_space_and_punctuation_fold(a: str, b: str) -> None:
    assert normalise(a) == normalise(b)


def test_symbols_alone_are_kept() -> None:
    assert normalise(" + ") == "+"
    assert normalise("-") != normalise("+")


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(st.lists(st.lists(WORD, min_size=1, max_size=14).map(" ".join), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_jaccard_is_that_of_python_sets(texts: list[str]) -> None:
    sets = shingle_sets(texts, {})
    pairs = np.array([(i, j) for i in range(len(texts)) for j in range(len(texts))])
    expected = [_oracle(texts[i], texts[j]) for i, j in pairs]
    np.testing.assert_allclose(jaccard(sets, sets, pairs), expected, atol=1e-12)


def test_minhash_estimates_jaccard() -> None:
    rng = np.random.default_rng(0)
    texts = [_text(rng, 200) for _ in range(40)]
    others = [_changed(text, *range(0, 5 * index, 5)) for index, text in enumerate(texts)]
    vocabulary: dict[str, int] = {}
    a, b = shingle_sets(texts, vocabulary), shingle_sets(others, vocabulary)
    exact = jaccard(a, b, np.column_stack([np.arange(40), np.arange(40)]))
    assert exact.min() < 0.05
    assert exact.max() == 1
    permutations = 2000
    estimate = (minhash(a, permutations) == minhash(b, permutations)).mean(axis=1)
    deviation = np.sqrt(exact * (1 - exact) / permutations)
    z = (estimate - exact)[deviation > 0] / deviation[deviation > 0]
    assert np.abs(z).max() < 4
    assert abs(z.mean()) < 0.6
    assert 0.6 < z.std() < 1.4


def test_candidates_are_missed_less_than_once_in_ten_thousand() -> None:
    assert (1 - 0.8**ROWS) ** BANDS < 1e-4


@given(
    st.lists(st.lists(WORD, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12, unique=True),
    st.lists(st.lists(WORD, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12, unique=True),
)
@settings(max_examples=60, deadline=None)
def test_near_duplicates_are_those_of_all_pairs(training: list[str], texts: list[str]) -> None:
    found = near_duplicates(training, texts)
    for index, text in enumerate(texts):
        best = max(_oracle(text, other) for other in training)
        # Between 0.8 and 0.9 a pair may be missed once in 20,000; 1.0 never is.
        if best >= 0.9:
            assert index in found
        if index in found:
            twin, value = found[index]
            assert value == pytest.approx(_oracle(text, training[twin]))
            assert value >= 0.8
        else:
            assert best < 0.9


def test_a_planted_duplicate_is_found_and_an_unrelated_text_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {"query": ["find it", _text(rng, 12)], "pos": [_text(rng, 80)], "neg": [_text(rng, 60)],
         "source": "even" if i % 2 == 0 else "odd"}
        for i in range(60)
    ]  # fmt: skip
    table = table_of(tmp_path, *rows)
    near = _changed(rows[7]["pos"][0], 40)
    far = _changed(rows[9]["pos"][0], 10, 40, 60)  # Jaccard 61 / 91
    tasks = {
        "planted": {
            "queries": [rows[3]["query"][1].upper() + "?", _text(rng, 12)],
            "documents": [near, far, rows[8]["neg"][0].replace(" ", ",  "), _text(rng, 80)],
        },
        "clean": {"texts": [_text(rng, 30) for _ in range(50)]},
    }
    found = contamination(table, tasks)
    queries, documents = found["tasks"]["planted"]["queries"], found["tasks"]["planted"]["documents"]
    assert (queries["texts"], queries["exact"], queries["near"]) == (2, 1, 0)
    assert queries["sources"] == {"odd": 1}
    assert (documents["texts"], documents["exact"], documents["near"]) == (4, 1, 1)
    assert documents["sources"] == {"even": 1, "odd": 1}
    exact, twin = documents["examples"]
    assert exact["training"] == {
        "text": rows[8]["neg"][0][:199] + "…", "source": "even", "row": 8, "role": "negative",
    }  # fmt: skip
    assert (twin["kind"], twin["training"]["row"], twin["training"]["role"]) == ("near", 7, "positive")
    assert twin["jaccard"] == pytest.approx(_oracle(near, rows[7]["pos"][0]), abs=1e-4)
    assert queries["examples"][0]["training"]["role"] == "query"
    clean = found["tasks"]["clean"]["texts"]
    assert (clean["exact"], clean["near"], clean["examples"]) == (0, 0, [])
    assert (
        contamination_line("planted", found["tasks"]["planted"]) == "contamination of planted: "
        "1 exact and 0 near of 2 queries; 1 exact and 1 near of 4 documents"
    )


def test_a_query_is_compared_without_its_prompt(tmp_path: Path) -> None:
    table = table_of(tmp_path, {"query": ["Find it", "red cat"], "pos": ["a dog"]})
    found = contamination(table, {"task": {"queries": ["Red cat!", "Instruct: Find it\nQuery: red cat"]}})
    assert found["tasks"]["task"]["queries"]["exact"] == 1


def test_the_weightiest_role_and_its_first_row_are_named(tmp_path: Path) -> None:
    rows = [
        {"query": "blue fish", "pos": ["a moon"], "neg": ["red cat"], "source": "first"},
        {"query": "red cat", "pos": ["a sun"], "neg": ["red cat"], "source": "second"},
        {"query": "old stone", "pos": ["a moon"], "source": "third"},
        {"query": "red cat", "pos": ["a star"], "source": "fourth"},
    ]
    texts = ["Red cat", "a moon!"]
    found = contamination(table_of(tmp_path, *rows), {"task": {"texts": texts}})["tasks"]["task"]["texts"]
    cat, moon = (entry["training"] for entry in found["examples"])
    assert (cat["role"], cat["row"], cat["source"]) == ("query", 1, "second")
    assert (moon["role"], moon["row"], moon["source"]) == ("positive", 0, "first")


def test_equal_texts_count_once_and_empty_ones_are_no_match(tmp_path: Path) -> None:
    table = table_of(tmp_path, {"query": "red cat", "pos": ["a dog"]})
    found = contamination(table, {"task": {"texts": ["Red cat", "red cat.", ""]}, "empty": {"texts": []}})
    assert found["tasks"]["task"]["texts"]["texts"] == 2
    assert found["tasks"]["task"]["texts"]["exact"] == 1
    assert found["tasks"]["empty"]["texts"]["texts"] == 0


def test_many_texts_of_one_template_are_compared_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from reasoning_embedding.data.quality import contamination as module

    monkeypatch.setattr(module, "_PAIRS", 7)
    monkeypatch.setattr(module, "_TEXTS", 5)
    body = " ".join(WORDS[:60])
    training = [f"{body} {number}" for number in range(40)]
    found = near_duplicates(training, [f"{body} new {number}" for number in range(20)] + ["lone text"])
    assert sorted(found) == list(range(20))


def _data(source: dict[str, Any], **other: Any) -> config.Data:
    return config.Data.model_validate({"sources": [source], **other})


def _said(source: dict[str, Any], *tasks: dict[str, Any]) -> str:
    """What the refusal of a source says; empty: it is accepted."""
    try:
        refuse_evaluation_sources(_data(source), _tasks(*tasks))
    except InputError as error:
        return str(error)
    return ""


def _tasks(*tasks: dict[str, Any]) -> list[config.Task]:
    return config.Evaluation.model_validate({"tasks": list(tasks)}).tasks if tasks else []


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"kind": "files", "path": "data/banking77/train.jsonl"}, "Banking77"),
        ({"kind": "files", "path": "x.jsonl", "name": "SICK-R"}, "SICK"),
        ({"kind": "files", "path": "beir/rarb_arc/rows.jsonl"}, "RAR-b"),
        ({"kind": "hub", "dataset": "xlangai/BRIGHT"}, "BRIGHT"),
        ({"kind": "hub", "dataset": "TIGER-Lab/TheoremQA"}, "TheoremQA"),
        ({"kind": "mix", "rows": "r.jsonl", "corpus": "c.jsonl", "sources": ["nli", "banking77"]}, "Banking77"),
    ],
)  # fmt: skip
def test_a_listed_evaluation_set_is_refused_unless_forced(source: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        refuse_evaluation_sources(_data(source))
    assert caught.value.where == "data.sources[0]"
    assert "force_contaminated" in str(caught.value)
    refuse_evaluation_sources(_data(source, force_contaminated=True))


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("homesick", "home-sick"),
        ("brightness", "bright-ness"),
        ("library", "lib-rarb"),
        ("theorem", "theoremqa"),
        ("banking", "banking77"),
    ],
)
def test_names_that_only_resemble_one_are_not(name: str, listed: str) -> None:
    def said(name: str) -> list[str]:
        with_rows = _said({"kind": "files", "path": f"{name}/{name}.jsonl"})
        named = _said({"kind": "files", "path": "rows.jsonl", "name": name})
        try:
            refuse_evaluation_rows(_data({"kind": "files", "path": "rows.jsonl"}), [name])
        except InputError as error:
            return [with_rows, named, str(error)]
        return [with_rows, named, ""]

    assert said(name) == ["", "", ""]
    assert all("looks like the evaluation set" in refusal for refusal in said(listed))


def test_a_folder_far_above_says_where_not_what() -> None:
    assert _said({"kind": "files", "path": "/srv/bright/train/mine/rows.jsonl"}) == ""
    assert "BRIGHT" in _said({"kind": "files", "path": "/srv/bright/train/rows.jsonl"})


def test_rows_that_name_a_listed_set_are_refused() -> None:
    data = _data({"kind": "files", "path": "rows.jsonl"})
    with pytest.raises(InputError, match="RAR-b"):
        refuse_evaluation_rows(data, ["nli", "rarb_alphanli"])
    refuse_evaluation_rows(data.model_copy(update={"force_contaminated": True}), ["rarb_alphanli"])


def test_sts_benchmark_is_refused_only_beside_the_tasks_it_was_drawn_from() -> None:
    data = _data({"kind": "files", "path": "stsb/train.jsonl"})
    refuse_evaluation_sources(data, _tasks({"kind": "mteb", "name": "Banking77Classification"}))
    for name in ("STS14", "MTEB(eng, v2)"):
        with pytest.raises(InputError, match="STS12 to STS16"):
            refuse_evaluation_sources(data, _tasks({"kind": "mteb", "name": name}))


@pytest.mark.parametrize(
    ("source", "task"),
    [
        ({"kind": "files", "path": "x/own"}, {"kind": "beir", "path": "x/own"}),
        ({"kind": "files", "path": "x/own/corpus.jsonl"}, {"kind": "beir", "path": "./x/own"}),
        ({"kind": "files", "path": "x"}, {"kind": "sts", "path": "x/pairs.csv"}),
        (
            {"kind": "files", "path": "a.jsonl"},
            {"kind": "classification", "train": "a.jsonl", "test": "b.csv", "name": "own"},
        ),
        ({"kind": "world", "split": "heldout"}, {"kind": "world"}),
    ],
)
def test_the_runs_own_tasks_are_refused(source: dict[str, Any], task: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="also an evaluation task"):
        refuse_evaluation_sources(_data(source), _tasks(task))
    refuse_evaluation_sources(_data(source))
    refuse_evaluation_sources(_data(source, force_contaminated=True), _tasks(task))


def test_the_worlds_training_split_may_be_scored_by_its_held_out_one() -> None:
    assert _said({"kind": "world"}, {"kind": "world"}) == ""
    assert "held-out split of the world" in _said({"kind": "world", "split": "heldout"}, {"kind": "world"})


def test_the_worlds_questions_on_other_relations_may_be_scored() -> None:
    task = {"kind": "world", "relations": ["job", "pet"]}
    assert _said({"kind": "world", "relations": ["city", "food"]}, task) == ""
    assert "the world's questions on pet" in _said({"kind": "world", "relations": ["city", "pet"]}, task)
    assert "the world's questions on job, pet" in _said({"kind": "world"}, task)
    assert _said({"kind": "world", "seed": 1}, task) == ""
    data = _data({"kind": "world", "relations": ["city", "food"]})
    assert all(
        any(word in text for word in ("live", "home", "eat", "meal")) for _, text in load_table(data).texts
    )
