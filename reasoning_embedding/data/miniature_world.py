"""The miniature world: 160 facts about 32 people, and sums, in 126 word and digit tokens.

Small enough to grow a language model on in minutes and rich enough for what the laboratory compares:
facts to retrieve (each a document, and questions that ask for it) and problems with a verifiable answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from reasoning_embedding.config.lineage import WorldCorpus
from reasoning_embedding.errors import InputError

T = TypeVar("T")
PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
_NAMES = (
    "anna bela carl dora emil fina gita hugo ines jona karl lena mira nico olga paul "
    "rosa saul tara udo vera wim xena yuri zara amir boris cleo dana eddy fritz greta"
)
ENTITIES = tuple(_NAMES.split())
CATEGORIES = 4
HELD_OUT = 32


@dataclass(frozen=True, slots=True)
class Relation:
    """A property every entity has: its values and the sentences that state and ask for it."""

    name: str
    values: tuple[str, ...]
    documents: tuple[str, ...]
    questions: tuple[str, ...]


def _relation(name: str, values: str, documents: tuple[str, ...], questions: tuple[str, ...]) -> Relation:
    return Relation(name, tuple(values.split()), documents, questions)


RELATIONS = (
    _relation(
        "city",
        "oslo lima cairo delhi paris tokyo quito riga",
        ("{e} lives in {v} .", "the home of {e} is {v} .", "{v} is where {e} lives ."),
        ("where does {e} live ?", "which city is home to {e} ?"),
    ),
    _relation(
        "food",
        "apples bread cheese fish honey nuts rice soup",
        ("{e} eats {v} .", "the meal of {e} is {v} .", "{v} is what {e} eats ."),
        ("what does {e} eat ?", "which food is the meal of {e} ?"),
    ),
    _relation(
        "job",
        "baker doctor farmer miner painter pilot sailor teacher",
        ("{e} works as a {v} .", "the job of {e} is {v} .", "{v} is what {e} works as ."),
        ("what work does {e} do ?", "which job has {e} ?"),
    ),
    _relation(
        "color",
        "black blue green grey pink red white yellow",
        ("{e} wears {v} .", "the color of {e} is {v} .", "{v} is what {e} wears ."),
        ("what does {e} wear ?", "which color has {e} ?"),
    ),
    _relation(
        "pet",
        "cat dog goat horse mouse owl rabbit snake",
        ("{e} keeps a {v} .", "the pet of {e} is {v} .", "a {v} is kept by {e} ."),
        ("what does {e} keep ?", "which pet has {e} ?"),
    ),
)
_ALIKE = "{a} and {b} are alike ."


@dataclass(frozen=True, slots=True)
class Fact:
    """One value of one relation of one entity."""

    entity: str
    relation: Relation
    value: str

    def documents(self) -> list[str]:
        """Return the fact in each of its relation's statements."""
        return [template.format(e=self.entity, v=self.value) for template in self.relation.documents]

    def questions(self) -> list[str]:
        """Return the fact's questions; none of them holds the value."""
        return [template.format(e=self.entity) for template in self.relation.questions]


@dataclass(frozen=True, slots=True)
class Sum:
    """A two-digit number plus a digit; prompt and answers have one width for every sum."""

    a: int
    b: int

    @property
    def prompt(self) -> str:
        """The problem: ``07+5=``."""
        return f"{self.a:02d}+{self.b}="

    @property
    def answer(self) -> str:
        """The direct answer: ``012 .``."""
        return answer_text(self.a + self.b)

    @property
    def worked(self) -> str:
        """Units, tens with the carry, then the answer: ``12,01;012 .``."""
        units = self.a % 10 + self.b
        return f"{units:02d},{self.a // 10 + units // 10:02d};{self.answer}"


#: Every sum there is: 100 x 10.
SUMS = tuple(Sum(a, b) for a in range(100) for b in range(10))
_LARGEST = SUMS[-1].a + SUMS[-1].b


def answer_text(value: int) -> str:
    """Write a number as an answer: three digits and the full stop."""
    return f"{value:03d} ."


def _vocabulary() -> tuple[str, ...]:
    templates = [template for r in RELATIONS for template in (*r.documents, *r.questions)]
    words = [word for template in (*templates, _ALIKE) for word in template.split() if "{" not in word]
    values = [value for relation in RELATIONS for value in relation.values]
    specials = (PAD, EOS, UNKNOWN)
    return tuple(dict.fromkeys((*specials, *"0123456789+=,;.", *words, *ENTITIES, *values)))


class MiniatureWorld:
    """Facts drawn from a seed; words, templates and arithmetic are the same in every world.

    Parameters
    ----------
    seed : int
        Decides categories, values, the pair of each fact and which facts are held out.

    Attributes
    ----------
    vocabulary : tuple of str
        The 126 tokens in id order, three special ones first.
    facts : tuple of Fact
        32 entities x 5 relations, entities in the outer loop.

    Notes
    -----
    Entities fall into four categories of eight. Of a relation's eight values, each category prefers
    one (probability 1/2) over a second (1/4); the other six share the rest. So a model can guess a
    value from the company an entity keeps, yet only the fact itself settles it.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 160])
        self.vocabulary = _vocabulary()
        category = rng.permutation(np.arange(len(ENTITIES)) % CATEGORIES)
        self._peers = [tuple(ENTITIES[i] for i in np.flatnonzero(category == c)) for c in range(CATEGORIES)]
        order = {(c, r): rng.permutation(8) for c in range(CATEGORIES) for r in range(len(RELATIONS))}
        skew = np.array([1 / 2, 1 / 4, *[1 / 24] * 6])
        self.facts = tuple(
            Fact(entity, relation, relation.values[order[int(category[e]), r][rng.choice(8, p=skew)]])
            for e, entity in enumerate(ENTITIES)
            for r, relation in enumerate(RELATIONS)
        )
        self._document = rng.integers(3, size=len(self.facts))
        self._question = rng.integers(2, size=len(self.facts))
        self._held_out = frozenset(rng.permutation(len(self.facts))[:HELD_OUT].tolist())

    def pairs(self, split: Literal["train", "heldout"]) -> list[tuple[str, str, str]]:
        """Return (question, document, relation) of each fact of a split: 128 to train on, 32 held out.

        The documents of held-out facts are part of the pre-training text; only their pairing with a
        question is not trained on.
        """
        documents = self.documents()
        return [
            (fact.questions()[self._question[i]], documents[i], fact.relation.name)
            for i, fact in enumerate(self.facts)
            if (i in self._held_out) == (split == "heldout")
        ]

    def documents(self) -> list[str]:
        """Return one document a fact, in the order of `facts`: the 160 texts to retrieve from."""
        return [fact.documents()[self._document[i]] for i, fact in enumerate(self.facts)]

    def pretraining_texts(self, rng: np.random.Generator, corpus: WorldCorpus, count: int) -> list[str]:
        """Draw texts of the pre-training mix.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of the draw; advanced.
        corpus : WorldCorpus
            Shares of sums (with wrong answers among them), documents and questions followed by their
            document; what is left says of two entities that they are of one category.
        count : int
            How many texts.

        Raises
        ------
        InputError
            When the shares add up to more than 1.
        """
        bounds = np.cumsum([corpus.arithmetic, corpus.documents, corpus.questions])
        if bounds[-1] > 1 + 1e-9:
            raise InputError(
                f"the shares of the corpus add up to {bounds[-1]:.3g}",
                where="arithmetic + documents + questions",
                todo="let them add up to 1 at most; the rest are other sentences",
            )
        kinds = rng.random(count)
        draws = rng.random((count, 3))
        makers = (
            lambda u: _sum_text(u, corpus.corrupted),
            lambda u: _pick(_pick(self.facts, u[0]).documents(), u[1]),
            self._question_text,
            self._alike_text,
        )
        return [
            makers[kind](draw)
            for kind, draw in zip(np.searchsorted(bounds, kinds, side="right"), draws.tolist(), strict=True)
        ]

    def _question_text(self, u: list[float]) -> str:
        fact = _pick(self.facts, u[0])
        return f"{_pick(fact.questions(), u[1])} {_pick(fact.documents(), u[2])}"

    def _alike_text(self, u: list[float]) -> str:
        peers = _pick(self._peers, u[0])
        first = _pick(peers, u[1])
        return _ALIKE.format(a=first, b=_pick([peer for peer in peers if peer != first], u[2]))


def _pick(items: Sequence[T], u: float) -> T:
    return items[int(u * len(items))]


def _sum_text(u: list[float], corrupted: float) -> str:
    problem = _pick(SUMS, u[0])
    if u[1] >= corrupted:
        return problem.prompt + problem.answer
    # A wrong answer is any other sum there is, so that no single mistake competes with the truth.
    wrong = (problem.a + problem.b + 1 + int(u[2] * _LARGEST)) % (_LARGEST + 1)
    return problem.prompt + answer_text(wrong)


def sample_sums(rng: np.random.Generator, count: int) -> list[Sum]:
    """Draw sums uniformly, without repeats while there are enough."""
    return [SUMS[i] for i in rng.choice(len(SUMS), size=count, replace=count > len(SUMS))]
