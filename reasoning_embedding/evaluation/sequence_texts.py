"""The texts of the number-sequence task: six arithmetic families, cut into chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from reasoning_embedding import config


@dataclass(frozen=True)
class Sequences:
    """The texts of a task.

    Parameters
    ----------
    texts : tuple of str
        Terms joined by ``", "``, family by family, chunk by chunk.
    terms : np.ndarray
        (n texts, terms of a chunk) int64, the numbers of each text in its order.
    labels : np.ndarray
        (n texts,) int64, index into ``families``.
    families : tuple of str
        Names.
    """

    texts: tuple[str, ...]
    terms: np.ndarray
    labels: np.ndarray
    families: tuple[str, ...]


def is_prime(number: int) -> bool:
    """Return whether a natural number is prime, by trial division."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def recaman() -> Iterator[int]:
    """Yield Recaman's sequence (OEIS A005132) from a(0) = 0.

    a(n) = a(n - 1) - n where that is positive and new, else a(n - 1) + n.
    """
    value, seen = 0, {0}
    yield value
    for step in itertools.count(1):
        back = value - step
        value = back if back > 0 and back not in seen else value + step
        seen.add(value)
        yield value


FAMILIES: dict[str, Callable[[], Iterator[int]]] = {
    "consecutive": lambda: itertools.count(1),
    "even": lambda: itertools.count(2, 2),
    "odd": lambda: itertools.count(1, 2),
    "prime": lambda: filter(is_prime, itertools.count(2)),
    "recaman": recaman,
    "composite": lambda: (number for number in itertools.count(4) if not is_prime(number)),
}


def sequences(task: config.NumberSequencesTask) -> Sequences:
    """Return the first ``terms`` of each family, cut into ``chunks`` consecutive texts of equal length."""
    chunks = []
    for family in task.families:
        terms = np.fromiter(itertools.islice(FAMILIES[family](), task.terms), np.int64, task.terms)
        chunks.append(terms.reshape(task.chunks, -1))
    terms = np.concatenate(chunks)
    if task.shuffled:
        terms = np.random.default_rng(task.seed).permuted(terms, axis=1)
    return Sequences(
        texts=tuple(", ".join(map(str, row)) for row in terms.tolist()),
        terms=terms,
        labels=np.repeat(np.arange(len(task.families)), task.chunks),
        families=tuple(task.families),
    )
