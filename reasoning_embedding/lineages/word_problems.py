"""Generated word problems with worked solutions, in the form of GSM8K."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_NAMES = "Anna Ben Clara David Emma Finn Grace Hugo Ida Jack Kate Liam Mia Noah Olga Paul Rosa Sam Tina Will".split()
_THINGS = "apples books cards coins eggs flowers marbles pencils shells stamps stickers toys".split()
_START = (
    "{name} has {a} {thing}.",
    "There are {a} {thing} in {name}'s box.",
    "{name} starts with {a} {thing}.",
)
_STEPS = {
    "+": ("Then {name} gets {b} more {thing}.", "A friend brings {b} more {thing}."),
    "-": ("Then {name} gives away {b} {thing}.", "{b} of the {thing} are lost."),
    "*": ("Now the number of {thing} grows to {b} times as many.", "{name} makes it {b} times as many."),
    "/": ("The {thing} are put evenly into {b} bags, and {name} keeps one bag.",),
}
_QUESTION = ("How many {thing} does {name} have now?", "How many {thing} are there in the end?")
_LARGEST = 999


def word_problems(count: int, seed: int) -> Iterator[str]:
    """Yield problems of two to four steps, equal for equal seeds.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        Decides all of them.

    Examples
    --------
    >>> print(next(word_problems(1, 0)).splitlines()[-1][:5])
    ####
    """
    rng = np.random.default_rng([seed, 11])
    for _ in range(count):
        words = {"name": _one(rng, _NAMES), "thing": _one(rng, _THINGS)}
        value = int(rng.integers(2, 100))
        story, worked = [_one(rng, _START).format(a=value, **words)], []
        for _ in range(int(rng.integers(2, 5))):
            sign, number, result = _step(rng, value)
            story.append(_one(rng, _STEPS[sign]).format(b=number, **words))
            worked.append(f"{value} {sign} {number} = <<{value}{sign}{number}={result}>>{result}")
            value = result
        story.append(_one(rng, _QUESTION).format(**words))
        yield f"Question: {' '.join(story)}\nAnswer: " + "\n".join([*worked, f"#### {value}"])


def _step(rng: np.random.Generator, value: int) -> tuple[str, int, int]:
    """Return a sign, a number and the result: a whole number from 1 to 999."""
    shares = [number for number in range(2, 11) if value % number == 0 and value > number]
    signs = "+" + "-" * (value > 1) + "*" * (2 * value <= _LARGEST) + "/" * bool(shares)
    sign = signs[int(rng.integers(len(signs)))]
    if sign == "+":
        number = int(rng.integers(1, 100))
        return sign, number, value + number
    if sign == "-":
        number = int(rng.integers(1, min(value, 100)))
        return sign, number, value - number
    if sign == "*":
        number = int(rng.integers(2, min(9, _LARGEST // value) + 1))
        return sign, number, value * number
    number = shares[int(rng.integers(len(shares)))]
    return sign, number, value // number


def _one(rng: np.random.Generator, texts: Sequence[str]) -> str:
    return texts[int(rng.integers(len(texts)))]
