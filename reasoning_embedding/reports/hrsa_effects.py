"""What training does to a representation, as numbers: differences with intervals, probes with theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .records import Pair

Bounds = tuple[float, float]
_NORMAL = 1.959964


@dataclass(frozen=True)
class Change:
    """A difference of two values with its 95 % interval."""

    value: float
    bounds: Bounds | None

    @property
    def word(self) -> str:
        """``rose``, ``fell``, or what the interval leaves open."""
        if self.bounds is None:
            return "moved (no interval)"
        if self.bounds[0] > 0:
            return "rose"
        return "fell" if self.bounds[1] < 0 else "moved by no more than its interval allows for"


def change(
    before: float | None, first: Bounds | None, after: float | None, second: Bounds | None
) -> Change | None:
    """Difference of two values measured on the same texts.

    Notes
    -----
    Half widths add in squares, as if the two were independent. They share their texts, which mostly makes them
    move together, so the interval is rather too wide.
    """
    if before is None or after is None:
        return None
    value = after - before
    if first is None or second is None:
        return Change(value, None)
    down = math.hypot(after - second[0], first[1] - before)
    up = math.hypot(second[1] - after, before - first[0])
    return Change(value, (value - down, value + up))


def pair_change(before: Pair | None, after: Pair | None, metric: str) -> Change | None:
    """Difference of a metric at the last layer of two pairs on one probe set; None where it has no meaning."""
    if before is None or after is None or before.probe.hash != after.probe.hash:
        return None
    if before.probe.tokens != after.probe.tokens:
        return None
    first, second = before.intervals.get(metric), after.intervals.get(metric)
    return change(before.last.get(metric), first, after.last.get(metric), second)


def wilson(share: float, n: int) -> Bounds:
    """95 % interval of a share of n independent hits.

    Parameters
    ----------
    share : float
        In [0, 1].
    n : int
        Trials, > 0.

    Notes
    -----
    Wilson, J. Am. Stat. Assoc. 22 (1927) 209: the shares p with ``|share - p| <= z sqrt(p (1 - p) / n)``.
    """
    z = _NORMAL**2
    middle = (share + z / (2 * n)) / (1 + z / n)
    half = _NORMAL * math.sqrt(share * (1 - share) / n + z / (4 * n * n)) / (1 + z / n)
    # At shares of 0 and 1 an end is the share itself, which rounding may miss.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a linear probe: what it was fitted on and read on, and its interval."""

    key: str
    label: str
    value: float
    bounds: Bounds


_PROBES = {
    "own_a": "fitted on A, read on A",
    "a_to_b": "fitted on A, read on B",
    "own_b": "fitted on B, read on B",
    "b_to_a": "fitted on B, read on A",
}


def accuracies(transfer: dict[str, Any] | None) -> list[Accuracy]:
    """Own and transferred accuracies of a pair's probes, over its test texts."""
    transfer = transfer or {}
    n = transfer.get("n")
    if not isinstance(n, int) or n < 1:
        return []
    found = []
    for key, label in _PROBES.items():
        value = transfer.get(key)
        if isinstance(value, (int, float)):
            found.append(Accuracy(key, label, float(value), wilson(float(value), n)))
    return found
