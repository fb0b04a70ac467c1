"""What a score table holds: pairs of models, and one entry a pair and quantity."""

from __future__ import annotations

from dataclasses import dataclass

from reasoning_embedding.hrsa.uncertainty.equivalence import Equivalence


@dataclass(frozen=True)
class Quantity:
    """A task, a suite or a mean: a weighted sum of tasks' scores."""

    name: str
    weights: dict[str, float]


@dataclass(frozen=True)
class Entry:
    """One quantity of one pair, on the 0-100 scale; None where a number cannot be had."""

    quantity: str
    problem: str = ""
    """``failed`` or ``missing``: then nothing else is set."""
    base: tuple[float, float | None] | None = None
    variant: tuple[float, float | None] | None = None
    """Mean and standard deviation over seeds."""
    delta: tuple[float, float | None] | None = None
    seeds: Equivalence | None = None
    queries: Equivalence | None = None

    @property
    def verdict(self) -> str:
        """What all tests at hand say, ``open`` when they disagree, empty when there is none."""
        verdicts: set[str] = {test.place for test in (self.seeds, self.queries) if test}
        return verdicts.pop() if len(verdicts) == 1 else ("open" if verdicts else "")


@dataclass(frozen=True)
class Pair:
    """A base and a variant with their entries."""

    base: str
    variant: str
    kind: str
    seeds: tuple[int, int]
    entries: tuple[Entry, ...]
    published: bool = False

    @property
    def label(self) -> str:
        """``variant v base``."""
        return f"{self.variant} v {self.base}"

    def entry(self, quantity: str) -> Entry | None:
        """Entry of a quantity, if the pair has it."""
        return next((entry for entry in self.entries if entry.quantity == quantity), None)


@dataclass(frozen=True)
class ScoreTable:
    """Pairs of an experiment, and the published ones they stand beside."""

    pairs: tuple[Pair, ...]
    published: tuple[Pair, ...]
    source: str
    headline: tuple[str, ...]
    """Quantities of the main table: suites, tasks outside of them, means."""
    quantities: tuple[str, ...]
    margin: float
    notes: tuple[str, ...]
