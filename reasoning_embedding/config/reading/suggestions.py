"""What the user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: No word that anyone meant is longer, and comparing takes the square of it.
_LONGEST = 100


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word`, or None when nothing is near.

    Examples
    --------
    >>> closest("lerning_rate", ["learning_rate", "weight_decay"])
    'learning_rate'
    """
    known = list(known)
    if len(word) > _LONGEST:
        return None
    exact_but_case = [item for item in known if item.lower() == word.lower()]
    found = exact_but_case or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or an empty string when nothing is near."""
    found = closest(word, known)
    return f"; did you mean {found!r}?" if found else ""
