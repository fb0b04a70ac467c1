"""Verifiable rewards: functions of a completion and the right answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from reasoning_embedding.config.functions import check_call, load_function
from reasoning_embedding.errors import InputError

#: Takes completion and right answer; None says that the completion does not parse.
Reward = Callable[[str, str], float | None]

#: A number; neither part of a clock time or a ratio is one.
_NUMBER = re.compile(
    r"(?<![\w.)])(?<!\d:)(?P<sign>[-\u2212])?\s?\$?\s?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<part>\.\d+)?"
    r"(?:\s?/\s?(?P<under>\d+))?(?!\d|:\d)"
)
#: What stands before a final answer, the surest first.
_MARKS = (
    re.compile(r"####"),
    re.compile(r"\\boxed\s*\{"),
    re.compile(r"answer\s*(?:is|:|=)", re.IGNORECASE),
)
_CHOICE = re.compile(r"^[\s\W]*(?P<letter>[A-J])(?![\w'])")
_SINGLE_CHOICE = re.compile(r"\((?P<letter>[A-J])\)|(?<!\w)(?P<other>[A-J])[.):](?!\w)")
_TOLERANCE = Fraction(1, 10**6)


def exact_match(completion: str, answer: str) -> float:
    """Return 1 for a completion that is the answer, else 0; white space does not count.

    Examples
    --------
    >>> exact_match("0 1 2 .", "012 .")
    1.0
    """
    return float("".join(completion.split()) == "".join(answer.split()))


def final_number(text: str) -> Fraction | None:
    r"""Return the number a text ends up with, or None where it has none.

    Parameters
    ----------
    text : str
        A worked solution. The first number after the last ``####`` counts (GSM8K's form), else after the last
        ``\boxed{``, else after the last "answer is"; without any of these, the last number.

    Examples
    --------
    >>> final_number("She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 1,018")
    Fraction(1018, 1)
    """
    tail = _after_mark(text)
    found = _numbers(text if tail is None else tail)
    if tail is not None:
        return found[0] if found else None
    return found[-1] if found else None


def numeric(completion: str, answer: str) -> float | None:
    """Return 1 where the final numbers of completion and answer are equal, within a millionth, else 0.

    None where the completion holds no number.
    """
    given, right = final_number(completion), final_number(answer)
    if given is None or right is None:
        return None
    return float(abs(given - right) <= _TOLERANCE * max(1, abs(right)))


def final_choice(text: str) -> str | None:
    """Return the letter, A to J, that a text chooses, or None.

    After the marks of :func:`final_number`, else at the beginning; else the last one written ``(B)``, ``B.``.

    Examples
    --------
    >>> final_choice("Heat rises, so the answer is (B).")
    'B'
    """
    tail = _after_mark(text)
    if match := _CHOICE.match(text.strip() if tail is None else tail):
        after = (text.strip() if tail is None else tail)[match.end() :]
        # At the beginning of a sentence "A" and "I" are words.
        if tail is not None or not after.strip() or after[0] in ".):,":
            return match["letter"]
    found = list(_SINGLE_CHOICE.finditer(text if tail is None else tail))
    return (found[-1]["letter"] or found[-1]["other"]) if found else None


def multiple_choice(completion: str, answer: str) -> float | None:
    """Return 1 where completion and answer choose one letter, else 0; None where the completion chooses none."""
    given, right = final_choice(completion), final_choice(answer)
    return None if given is None or right is None else float(given == right)


#: Rewards by the name a configuration gives them.
NAMED: dict[str, Reward] = {
    "exact_match": exact_match,
    "numeric": numeric,
    "multiple_choice": multiple_choice,
}


def find_reward(name: str) -> Reward:
    """Return a reward by its name, or import ``module:function``.

    Raises
    ------
    InputError
        If the module cannot be imported, has no such function, or it does not take completion and answer.
    """
    if name in NAMED:
        return NAMED[name]
    where = f"reward {name}"
    function = load_function(name, where=where)
    check_call(function, 2, {}, where=where)
    return function


class Judge:
    """A reward in the form trl calls: lists in, a number for each completion out.

    Parameters
    ----------
    name : str
        As the configuration names it.

    Notes
    -----
    A completion that does not parse is worth 0; their share is logged as ``unparsed``.
    """

    def __init__(self, name: str) -> None:
        self._name, self._reward = name, find_reward(name)
        self.__name__ = name.rpartition("/")[2].replace(".py:", ".").replace(":", ".")

    def __call__(
        self,
        completions: list[Any],
        answer: list[str],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Judge completions, texts or conversations, against their right answers.

        Raises
        ------
        InputError
            If a function of the user's own fails or returns no number.
        """
        found = [self.one(_text(given), right) for given, right in zip(completions, answer, strict=True)]
        if log_metric is not None:
            log_metric("unparsed", sum(value is None for value in found) / len(found))
        return [0.0 if value is None else value for value in found]

    def one(self, completion: str, answer: str) -> float | None:
        """Judge one completion; None where it does not parse.

        Raises
        ------
        InputError
            If a function of the user's own fails or returns no number.
        """
        try:
            value = self._reward(completion, answer)
            return None if value is None else float(value)
        except Exception as error:
            raise InputError(
                f"it failed: {type(error).__name__}: {error}",
                where=f"reward {self._name} of {completion[:60]!r}",
                todo="let it return a number, or None for a completion that does not parse",
            ) from error

    def check_answer(self, answer: str, where: str) -> None:
        """Refuse a right answer that a named reward would not recognise as right.

        Raises
        ------
        InputError
            Naming the row.
        """
        if self._name in NAMED and self.one(answer, answer) != 1.0:
            kind = {"numeric": "a number", "multiple_choice": "a choice A to J"}.get(self._name, "an answer")
            raise InputError(
                f"the right answer {answer[:60]!r} does not hold {kind}",
                where=where,
                todo="correct the row or data.answer, or choose another reward",
            )


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _after_mark(text: str) -> str | None:
    for mark in _MARKS:
        if matches := list(mark.finditer(text)):
            return text[matches[-1].end() :]
    return None


def _numbers(text: str) -> list[Fraction]:
    found = []
    for match in _NUMBER.finditer(text):
        if match["whole"] is None and match["part"] is None:
            continue
        value = Fraction((match["whole"] or "0").replace(",", "") + (match["part"] or ""))
        if match["under"] is not None and int(match["under"]):
            value /= int(match["under"])
        found.append(-value if match["sign"] else value)
    return found
