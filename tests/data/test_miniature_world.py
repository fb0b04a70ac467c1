"""The miniature world: counts, splits, formats, and that a seed decides everything."""

from __future__ import annotations

import re

import numpy as np
import pytest

from reasoning_embedding.config.lineage import WorldCorpus
from reasoning_embedding.data.miniature_world import (
    ENTITIES,
    RELATIONS,
    SUMS,
    MiniatureWorld,
    Sum,
    sample_sums,
)
from reasoning_embedding.errors import InputError

MIX = WorldCorpus(kind="world")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[^a-z\s]", text)


@pytest.fixture(scope="module")
def world() -> MiniatureWorld:
    return MiniatureWorld(0)


def test_counts_are_those_of_the_method(world: MiniatureWorld) -> None:
    assert len(ENTITIES) == 32
    assert len(RELATIONS) == 5
    assert len(world.facts) == 160
    assert (len(world.pairs("train")), len(world.pairs("heldout"))) == (128, 32)
    assert all((len(r.documents), len(r.questions)) == (3, 2) for r in RELATIONS)
    assert len(world.vocabulary) == len(set(world.vocabulary)) == 126
    assert len(SUMS) == len(set(SUMS)) == 1000


def test_splits_share_no_pair_and_cover_every_document(world: MiniatureWorld) -> None:
    train, heldout = world.pairs("train"), world.pairs("heldout")
    assert not {document for _, document, _ in train} & {document for _, document, _ in heldout}
    assert sorted(document for _, document, _ in train + heldout) == sorted(world.documents())
    assert len(set(world.documents())) == 160


def test_questions_name_the_entity_and_never_the_value(world: MiniatureWorld) -> None:
    for fact in world.facts:
        assert all(fact.entity in words(text) for text in fact.documents() + fact.questions())
        assert all(fact.value in words(text) for text in fact.documents())
        assert not any(fact.value in words(text) for text in fact.questions())


def test_relation_of_a_pair_is_the_one_its_document_states(world: MiniatureWorld) -> None:
    values = {value: relation.name for relation in RELATIONS for value in relation.values}
    for _, document, relation in world.pairs("train"):
        assert {values[word] for word in words(document) if word in values} == {relation}


def test_every_word_of_every_text_is_in_the_vocabulary(world: MiniatureWorld) -> None:
    texts = world.pretraining_texts(np.random.default_rng(1), MIX, 4000) + [s.worked for s in SUMS]
    used = {word for text in texts for word in words(text)}
    # A value that no fact of this world has may be absent; nothing else of the vocabulary is idle.
    values = {value for relation in RELATIONS for value in relation.values}
    assert used <= set(world.vocabulary)
    assert set(world.vocabulary[3:]) - used <= values


def test_sums_have_one_width_and_right_answers() -> None:
    for problem in SUMS:
        match = re.fullmatch(r"(\d\d)\+(\d)=(\d\d),(\d\d);(\d{3}) \.", problem.prompt + problem.worked)
        assert match
        a, b, units, tens, total = map(int, match.groups())
        assert units == a % 10 + b
        assert tens == a // 10 + units // 10
        assert total == a + b == int(problem.answer[:3])
    assert Sum(7, 5).prompt + Sum(7, 5).worked == "07+5=12,01;012 ."


def test_mix_keeps_its_shares_and_corrupts_as_told(world: MiniatureWorld) -> None:
    texts = world.pretraining_texts(np.random.default_rng(0), MIX, 20_000)
    sums = [m for text in texts if (m := re.fullmatch(r"(\d\d)\+(\d)=(\d{3}) \.", text))]
    wrong = sum(int(m[1]) + int(m[2]) != int(m[3]) for m in sums)
    # Binomial standard deviations at these counts are 0.0035 and 0.005; the bounds are six of them.
    assert len(sums) / len(texts) == pytest.approx(0.5, abs=0.021)
    assert wrong / len(sums) == pytest.approx(0.4, abs=0.03)
    assert max(int(m[3]) for m in sums) == 108
    assert sum("?" in text for text in texts) / len(texts) == pytest.approx(0.15, abs=0.016)
    assert sum("alike" in text for text in texts) / len(texts) == pytest.approx(0.05, abs=0.01)


def test_values_are_skewed_by_category(world: MiniatureWorld) -> None:
    counts = [
        np.unique([f.value for f in world.facts if f.relation is relation], return_counts=True)[1]
        for relation in RELATIONS
    ]
    # Uniform values would put 32/8 = 4 on each: the sum of squares is then near 32 + 32*31/8 = 156.
    assert np.mean([np.sum(c**2) for c in counts]) > 190


def test_a_seed_gives_one_world_and_another_seed_another(world: MiniatureWorld) -> None:
    again, other = MiniatureWorld(0), MiniatureWorld(1)
    assert again.facts == world.facts
    assert again.pairs("heldout") == world.pairs("heldout")
    assert other.facts != world.facts
    assert other.vocabulary == world.vocabulary
    draws = [world.pretraining_texts(np.random.default_rng(3), MIX, 50) for _ in range(2)]
    assert draws[0] == draws[1]


def test_sampled_sums_do_not_repeat() -> None:
    assert len(set(sample_sums(np.random.default_rng(0), 500))) == 500
    assert len(sample_sums(np.random.default_rng(0), 1500)) == 1500


def test_shares_beyond_one_are_refused(world: MiniatureWorld) -> None:
    corpus = WorldCorpus(kind="world", arithmetic=0.8, documents=0.3, questions=0.15)
    with pytest.raises(InputError, match=r"add up to 1\.25"):
        world.pretraining_texts(np.random.default_rng(0), corpus, 1)
