"""Hard negatives against a naive oracle: ranks, margins, ties, duplicates and what may never be mined."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning_embedding.data import Ragged, Table
from reasoning_embedding.data.mining import neighbours
from reasoning_embedding.data.mining.hard_negatives import (
    CandidatePool,
    MiningRule,
    check_pool,
    inconsistent,
    make_pool,
    mine,
)
from reasoning_embedding.data.mining.neighbours import ExactSearch, FaissSearch, ScoreSearch, best_of
from reasoning_embedding.data.quality.shingles import normalise
from reasoning_embedding.data.rows import Row
from reasoning_embedding.errors import InputError
from tests.data.tables import plain_table_of

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")


def world(path: Path, rows: int = 60, seed: int = 0) -> tuple[CandidatePool, np.ndarray, np.ndarray]:
    """Rows that share queries, several positives, twins but for case; vectors of few values, so with ties."""
    rng = np.random.default_rng(seed)
    texts = [f"text {number}" for number in range(80)] + [f"Text, {number}!" for number in range(0, 80, 9)]
    records = [
        {
            "query": f"Query {rng.integers(40)}" if rng.random() < 0.8 else texts[rng.integers(20)],
            "pos": rng.choice(texts, rng.integers(1, 4), replace=False).tolist(),
            "neg": rng.choice(texts, rng.integers(0, 3), replace=False).tolist(),
        }
        for _ in range(rows)
    ]
    pool = make_pool(plain_table_of(path, *records))
    queries = rng.integers(-1, 2, (len(pool.queries), 6)).astype(np.float32)
    documents = rng.integers(-1, 2, (len(pool.documents), 6)).astype(np.float32)
    return pool, queries, documents


def naive(pool: CandidatePool, queries: np.ndarray, documents: np.ndarray, rule: MiningRule) -> list[Row]:
    """The definition, one row and one document at a time, in float64."""
    table, found = pool.table, []
    reads = [normalise(text) for text in pool.documents]
    asked = [normalise(table.texts[text][1]) for text in table.query]
    answers: dict[str, set[str]] = {}
    for row, query in enumerate(asked):
        answers.setdefault(query, {query}).update(reads[document] for document in pool.positives[row])
    for row in range(len(table)):
        scores = documents.astype(np.float64) @ queries[pool.query[row]].astype(np.float64)
        positives = scores[pool.positives[row]]
        ranking = sorted(range(pool.minable), key=lambda document: (-scores[document], document))
        ranking = [document for document in ranking if reads[document] not in answers[asked[row]]]
        window = ranking[rule.first - 1 : rule.last]
        limits = [np.inf if rule.max_score is None else rule.max_score]
        if rule.margin is not None:
            limits.append(positives.min() - rule.margin)
        if rule.positive_share is not None:
            share = rule.positive_share if positives.min() >= 0 else 2 - rule.positive_share
            limits.append(positives.min() * share)
        low = -np.inf if rule.min_score is None else rule.min_score
        passing = [document for document in window if low <= scores[document] <= min(limits)]
        found.append((row, passing, scores, positives))
    return found


RULES = [
    {},
    {"first": 3, "last": 12, "negatives": 5, "positive_share": None},
    {"positive_share": 0.5, "negatives": 3},
    {"positive_share": None, "margin": 1.0},
    {"positive_share": None, "margin": -1.0, "max_score": 3.0, "min_score": 1.0},
]


@pytest.mark.parametrize("settings", RULES)
@pytest.mark.parametrize("documents_a_block", [7, 10_000])
def test_the_exact_miner_is_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], documents_a_block: int
) -> None:
    monkeypatch.setattr(neighbours, "DOCUMENTS", documents_a_block)
    pool, queries, documents = world(tmp_path)
    rule = MiningRule(**settings)
    engine = ExactSearch(queries, documents, pool.minable)
    engine.block = 13
    mined = list(mine(pool, engine, rule, range(len(pool.table))))
    for row, (_, passing, scores, positives) in zip(
        mined, naive(pool, queries, documents, rule), strict=True
    ):
        assert row.negatives == tuple(pool.documents[document] for document in passing[: rule.negatives])
        assert row.negative_scores == tuple(scores[passing[: rule.negatives]])
        assert row.positive_scores == tuple(positives)
    assert sum(len(row.negatives) for row in mined) > 20


def test_the_world_of_these_tests_has_what_must_be_banned(tmp_path: Path) -> None:
    pool, queries, documents = world(tmp_path)
    reads = [normalise(text) for text in pool.documents]
    assert len(set(reads[: pool.minable])) == pool.minable < len(pool.documents)
    loose = MiningRule(negatives=60, last=80, positive_share=None)
    free = replace(pool, banned=Ragged(np.zeros(0, np.int64), np.zeros(len(pool.table) + 1, np.int64)))
    engine = ExactSearch(queries, documents, pool.minable)
    assert list(mine(pool, engine, loose, range(60))) != list(mine(free, engine, loose, range(60)))


@needs_faiss
@pytest.mark.parametrize("settings", RULES[:3])
def test_flat_faiss_finds_what_the_exact_search_finds(tmp_path: Path, settings: dict[str, Any]) -> None:
    pool, _, _ = world(tmp_path)
    rng = np.random.default_rng(1)
    queries, documents = (
        rng.standard_normal((count, 16), np.float32) for count in (len(pool.queries), len(pool.documents))
    )
    rule, rows = MiningRule(**settings), range(len(pool.table))
    exact = list(mine(pool, ExactSearch(queries, documents, pool.minable), rule, rows))
    assert list(mine(pool, FaissSearch(queries, documents, pool.minable), rule, rows)) == exact
    approximate = list(mine(pool, FaissSearch(queries, documents, pool.minable, "IVF8,Flat"), rule, rows))
    assert approximate != exact
    assert [row.positive_scores for row in approximate] == [row.positive_scores for row in exact]


def test_a_search_by_scores_mines_the_same_and_nothing_below_its_floor(tmp_path: Path) -> None:
    pool, queries, documents = world(tmp_path)
    rule, rows = MiningRule(), range(len(pool.table))
    by_function = ScoreSearch(lambda query: documents @ queries[query], pool.minable, floor=-np.inf)
    assert list(mine(pool, by_function, rule, rows)) == list(
        mine(pool, ExactSearch(queries, documents, pool.minable), rule, rows)
    )
    above = ScoreSearch(lambda query: documents @ queries[query], pool.minable)
    mined = list(mine(pool, above, MiningRule(positive_share=None), rows))
    assert min(score for row in mined for score in row.negative_scores) > 0


def test_a_random_draw_is_one_of_the_passing_and_depends_on_seed_and_row_alone(tmp_path: Path) -> None:
    pool, queries, documents = world(tmp_path)
    engine = ExactSearch(queries, documents, pool.minable)
    rule = MiningRule(draw="random", negatives=3, seed=5)
    mined = list(mine(pool, engine, rule, range(60)))
    assert list(mine(pool, engine, rule, range(20, 40))) == mined[20:40]
    assert list(mine(pool, engine, MiningRule(draw="random", negatives=3, seed=6), range(60))) != mined
    for row, (_, passing, _, _) in zip(mined, naive(pool, queries, documents, rule), strict=True):
        assert len(row.negatives) == min(3, len(passing))
        assert set(row.negatives) <= {pool.documents[document] for document in passing}


def test_best_of_breaks_ties_by_place_and_leaves_out_what_is_banned() -> None:
    scores = np.array([1, 3, 3, -np.inf, 3, 2], np.float32)
    assert best_of(scores, 2).tolist() == [1, 2]
    assert best_of(scores, 4).tolist() == [1, 2, 4, 5]
    assert best_of(scores, 99).tolist() == [1, 2, 4, 5, 0]


def test_a_given_corpus_is_all_that_is_mined_and_positives_keep_their_own_score(tmp_path: Path) -> None:
    table = plain_table_of(tmp_path, {"query": "q", "pos": ["P one", "elsewhere"], "neg": ["old"]})
    pool = make_pool(table, ["p one!", "a", "b", "a", "B"])
    assert (list(pool.documents), pool.minable) == (["p one!", "a", "b", "P one", "elsewhere"], 3)
    documents = np.array([[9], [3], [2], [4], [5]], np.float32)
    (row,) = mine(
        pool, ExactSearch(np.ones((1, 1), np.float32), documents, 3), MiningRule(negatives=2), range(1)
    )
    assert (row.negatives, row.negative_scores, row.positive_scores) == (("a", "b"), (3.0, 2.0), (4.0, 5.0))


def test_a_corpus_smaller_than_k_and_impossible_rules_are_named(tmp_path: Path) -> None:
    pool = make_pool(plain_table_of(tmp_path, {"query": "q", "pos": ["p"], "neg": ["n", "N"]}))
    with pytest.raises(InputError, match="corpus of 2 distinct texts is smaller than the 7 negatives a row"):
        check_pool(pool, MiningRule())
    with pytest.raises(InputError, match="from rank 2 on"):
        check_pool(pool, MiningRule(negatives=2, first=2))
    check_pool(pool, MiningRule(negatives=2))
    for wrong in (
        {"negatives": 0},
        {"first": 0},
        {"first": 9, "last": 8},
        {"last": 3},
        {"positive_share": 1.5},
    ):
        with pytest.raises(InputError):
            MiningRule(**wrong)


def pool_of_texts(table: Table, corpus: list[str] | None) -> tuple:
    """What :func:`make_pool` collects, by dictionaries of whole texts: its slow twin."""
    if corpus is None:
        own = np.unique(np.concatenate([table.positives.values, table.negatives.values]))
        corpus = [table.texts[text][1] for text in own.tolist()]
    first: dict[str, str] = {}
    for text in corpus:
        first.setdefault(normalise(text), text)
    places = {text: place for place, text in enumerate(first.values())}
    minable = len(places)
    positives = [[table.texts[text][1] for text in own.tolist()] for own in table.positives]
    found = [[places.setdefault(text, len(places)) for text in own] for own in positives]
    banned = []
    for row in range(len(table)):
        reads = normalise(table.texts[table.query[row]][1])
        same = [
            other for other in range(len(table)) if normalise(table.texts[table.query[other]][1]) == reads
        ]
        texts = {reads, *(normalise(text) for other in same for text in positives[other])}
        banned.append(sorted(places[first[text]] for text in texts if text in first))
    return list(places), minable, found, banned


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_pool_is_that_of_dictionaries_of_texts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    texts = st.sampled_from(["a", "A", "a!", "b", "b c", "B  c", "d e", "\u6c34"])
    rows = data.draw(
        st.lists(
            st.tuples(texts, st.lists(texts, min_size=1, max_size=3), st.lists(texts, max_size=2)),
            min_size=1,
            max_size=6,
        )
    )
    table = plain_table_of(
        tmp_path_factory.mktemp("pool"), *({"query": q, "pos": p, "neg": n} for q, p, n in rows)
    )
    corpus = data.draw(st.none() | st.lists(texts, min_size=1, max_size=6))
    pool = make_pool(table, corpus)
    documents, minable, found, banned = pool_of_texts(table, corpus)
    assert (list(pool.documents), pool.minable) == (documents, minable)
    assert [pool.documents[place] for place in range(len(documents))] == pool.documents[:] == documents
    assert [own.tolist() for own in pool.positives] == found
    assert [own.tolist() for own in pool.banned] == banned
    assert [pool.queries[query] for query in pool.query.tolist()] == [
        table.texts[query] for query in table.query.tolist()
    ]


def test_consistency_counts_the_documents_above_the_best_positive(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    records = [{"query": f"q {i % 20}", "pos": [f"d {i}"], "neg": [f"d {40 + i}"]} for i in range(40)]
    pool = make_pool(plain_table_of(tmp_path, *records))
    queries = rng.integers(-2, 3, (len(pool.queries), 4)).astype(np.float32)
    documents = rng.integers(-2, 3, (len(pool.documents), 4)).astype(np.float32)
    for k in (2, 8, 20):
        expected = []
        for row in range(40):
            scores = documents @ queries[pool.query[row]]
            answers = {
                d
                for other in range(40)
                if pool.query[other] == pool.query[row]
                for d in pool.positives[other]
            }
            above = [
                d for d in range(80) if d not in answers and scores[d] > scores[pool.positives[row]].max()
            ]
            if len(above) >= k:
                expected.append(row)
        lost = inconsistent(pool, ExactSearch(queries, documents), k)
        assert np.flatnonzero(lost).tolist() == expected
        assert 0 < len(expected) < 40, k
