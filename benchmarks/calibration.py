"""How often HRSA's tests and intervals are wrong, by simulation: type-I error, coverage, false verdicts.

``python -m benchmarks.calibration`` prints the tables, ``--write`` puts them into ``docs/calibration.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from reasoning_embedding import hrsa
from reasoning_embedding.hrsa.metrics.cka import unit_layer
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.result import Interval, Metric
from reasoning_embedding.hrsa.uncertainty.equivalence import equivalence_of_estimate
from reasoning_embedding.hrsa.uncertainty.jackknife import debiased_cka_interval
from reasoning_embedding.hrsa.uncertainty.neighbour_halves import knn_of_halves
from reasoning_embedding.hrsa.uncertainty.resampling import (
    bootstrap_mean,
    bootstrap_similarity,
    interval_of_halves,
    shuffles,
)

DOCUMENT = Path(__file__).parents[1] / "docs" / "calibration.md"
_START, _END = "<!-- tables: python -m benchmarks.calibration --write -->", "<!-- end of the tables -->"
Lengths = Literal["1", "4", "1 to 6", "1 to 12", "36 of 2, 4 of 40"]
#: Neighbours of k-NN overlap.
_K = 10


@dataclass(frozen=True)
class Design:
    """What is simulated: texts, rows of each, dimensions, and how alike the rows of a text are.

    Parameters
    ----------
    texts, width : int
        How many texts and dimensions.
    lengths : str
        Rows of a text.
    alike : float
        Intra-class correlation of the rows of a text, in [0, 1).
    heavy : bool
        Whether texts differ in scale as Student's t with 6 degrees of freedom does.
    """

    texts: int
    width: int
    lengths: Lengths
    alike: float
    heavy: bool = False

    def documents(self, random: np.random.Generator) -> np.ndarray:
        """The text of each row."""
        if self.lengths.startswith("36"):
            sizes = np.where(np.arange(self.texts) < 0.9 * self.texts, 2, 40)
        elif " to " in self.lengths:
            sizes = random.integers(1, int(self.lengths.split()[-1]) + 1, self.texts)
        else:
            sizes = np.full(self.texts, int(self.lengths))
        return np.repeat(np.arange(self.texts), sizes)

    def rows(self, documents: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """States of the rows (n, width) whose spectrum decays as 1 / sqrt(rank)."""
        texts = random.standard_normal((documents[-1] + 1, self.width))[documents]
        own = random.standard_normal((len(documents), self.width))
        found = np.sqrt(self.alike) * texts + np.sqrt(1 - self.alike) * own
        if self.heavy:
            found *= np.sqrt(3 / random.gamma(3, 1, documents[-1] + 1))[documents, None]
        return found * np.arange(1, self.width + 1) ** -0.5

    def pair(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Two models that share most of their states up to a rotation, and the text of each row."""
        documents = self.documents(random)
        x = self.rows(documents, random)
        noise = 0.6 * random.standard_normal(x.shape) * np.arange(1, self.width + 1) ** -0.25
        return x, (x + noise) @ _rotation(self.width), documents

    def unrelated(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Two models that have nothing in common, on the same texts."""
        documents = self.documents(random)
        return self.rows(documents, random), self.rows(documents, random), documents

    def __str__(self) -> str:
        tails = ", heavy tails" if self.heavy else ""
        return f"{self.texts} | {self.width} | {self.lengths} | {self.alike}{tails}"


def _rotation(width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(width).standard_normal((width, width)))[0]


# --- type-I error of the null


def rejections(
    metric: Callable[..., Metric], design: Design, simulations: int, *, aligned: bool = True, seed: int = 0
) -> float:
    """Share of pairs of unrelated models that a permutation test of size 5 % calls related.

    Parameters
    ----------
    metric : callable
        A similarity of the registry.
    design : Design
        What is simulated.
    simulations : int
        Pairs.
    aligned : bool
        The test of this package; else, for comparison, documents shuffled as they stand, whatever their lengths.
    seed : int
        Of everything.
    """
    small = 0
    for number in range(simulations):
        x, y, documents = design.unrelated(np.random.default_rng([seed, number]))
        if aligned:
            found = hrsa.with_inference(metric, x, y, documents=documents, null=39, bootstrap=0, seed=number)
            assert found.null is not None
            small += found.null.p <= 0.05
        else:
            value = float(metric(x, y))
            null = np.array([float(metric(x, y[order])) for order in shuffles(documents, 39, number)])
            small += (1 + (null >= value).sum()) / 40 <= 0.05
    return small / simulations


# --- coverage of intervals, and errors of the verdicts made of them


@dataclass(frozen=True)
class Covered:
    """How the intervals of a metric fared.

    Parameters
    ----------
    truth : float
        What they should hold.
    bias : float
        Mean of the values less that.
    width : float
        Mean half-width over that of an interval of the true standard deviation.
    coverage : float
        Share that hold the truth.
    equivalent : float
        Share of wrong verdicts "equivalent": the truth lies just beyond the margin.
    """

    truth: float
    bias: float
    width: float
    coverage: float
    equivalent: float


Estimate = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, Interval]]


def _cka(x: np.ndarray, y: np.ndarray, documents: np.ndarray) -> tuple[float, Interval]:
    a, b = Layer(x), Layer(y)
    return float(hrsa.linear_cka(a, b)), bootstrap_similarity(a, b, documents)["cka"]


def _debiased(x: np.ndarray, y: np.ndarray, documents: np.ndarray) -> tuple[float, Interval]:
    a, b = Layer(x), Layer(y)
    return float(hrsa.debiased_linear_cka(a, b)), debiased_cka_interval(a, b, documents)


def _unit(x: np.ndarray, y: np.ndarray, documents: np.ndarray) -> tuple[float, Interval]:
    return _debiased(unit_layer(Layer(x)).rows, unit_layer(Layer(y)).rows, documents)


def _knn(x: np.ndarray, y: np.ndarray, documents: np.ndarray) -> tuple[float, Interval]:
    value, every = hrsa.knn_overlap(x, y, _K).value, np.arange(len(x))
    halves = knn_of_halves(Layer(x), Layer(y), every, documents, [_K], 60, 0)[_K]
    return value, interval_of_halves(value, halves[:, 0], documents[-1] + 1)


def _knn_fixed(x: np.ndarray, y: np.ndarray, documents: np.ndarray) -> tuple[float, Interval]:
    found = hrsa.knn_overlap(x, y, _K)
    return found.value, bootstrap_mean(found.per_row, documents)


#: Estimates with intervals, and whether they have a value at any number of rows, which the interval should hold.
ESTIMATES: dict[str, tuple[Estimate, bool]] = {
    "debiased CKA": (_debiased, True),
    "CKA of unit rows": (_unit, True),
    f"k-NN@{_K}": (_knn, False),
    "biased CKA": (_cka, True),
    f"k-NN@{_K}, neighbours held fixed": (_knn_fixed, False),
}


def coverage(name: str, design: Design, simulations: int, *, seed: int = 0) -> Covered:
    """How often the intervals of an estimate hold what they should.

    Parameters
    ----------
    name : str
        Of :data:`ESTIMATES`.
    design : Design
        What is simulated.
    simulations : int
        Samples of texts.
    seed : int
        Of everything.

    Notes
    -----
    The truth is the value on 6,000 texts; of k-NN overlap, which depends on how many rows there are, the mean over the
    samples. The margin of the verdict is two standard deviations, and the reference lies a hair more than that away.
    """
    estimate, has_limit = ESTIMATES[name]
    found = [estimate(*design.pair(np.random.default_rng([seed, number]))) for number in range(simulations)]
    values = np.array([value for value, _ in found])
    ends = np.array([[one.low, one.high] for _, one in found])
    if has_limit:
        many = Design(6000, design.width, design.lengths, design.alike, design.heavy)
        x, y, _ = many.pair(np.random.default_rng([seed, 10**6]))
        sides = (
            (unit_layer(Layer(side)) for side in (x, y))
            if name == "CKA of unit rows"
            else (Layer(x), Layer(y))
        )
        truth = float(hrsa.debiased_linear_cka(*sides))
    else:
        truth = float(values.mean())
    sd, t = float(values.std(ddof=1)), float(stdtrit(design.texts - 1, 0.975))
    errors = np.diff(ends, axis=1).ravel() / (2 * t)
    wrong = [
        equivalence_of_estimate(value - truth + side * 2 * sd, error, design.texts - 1, 2 * sd).place
        == "within"
        for value, error in zip(values, errors, strict=True)
        for side in (-1, 1)
    ]
    return Covered(
        truth,
        float(values.mean() - truth),
        float(errors.mean() / sd),
        float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()),
        float(np.mean(wrong)),
    )


# --- tables

NULL_DESIGNS = (
    Design(40, 16, "4", 0.5),
    Design(40, 16, "1 to 12", 0.5),
    Design(40, 16, "1 to 12", 0.9),
    Design(40, 16, "36 of 2, 4 of 40", 0.5),
    Design(40, 16, "36 of 2, 4 of 40", 0.9),
    Design(100, 96, "1 to 12", 0.5),
)
NULL_METRICS = {
    "debiased CKA": hrsa.debiased_linear_cka,
    "biased CKA": hrsa.linear_cka,
    f"k-NN@{_K}": hrsa.knn_overlap,
}
COVERAGE_DESIGNS = (
    Design(30, 96, "1", 0.5),
    Design(100, 16, "1", 0.5),
    Design(100, 96, "1", 0.5),
    Design(40, 16, "1 to 6", 0.5),
    Design(60, 32, "1 to 6", 0.9),
    Design(60, 32, "1 to 6", 0.5, heavy=True),
)


def tables(*, simulations: int = 1000, report: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """Lines of Markdown of all tables.

    Parameters
    ----------
    simulations : int
        Pairs a cell of the first table; two fifths of that a cell of the others.
    report : callable
        Takes a line of progress.
    """
    yield "### Type-I error of the permutation null"
    yield ""
    yield f"Share of {simulations:,} pairs of unrelated models that a test at 5 % calls related (39 permutations)."
    yield "In brackets the same test with whole documents shuffled as they stand."
    yield ""
    yield "| texts | dimensions | rows of a text | alike | " + " | ".join(NULL_METRICS) + " |"
    yield "|---" * (4 + len(NULL_METRICS)) + "|"
    for design in NULL_DESIGNS:
        cells = []
        for name, metric in NULL_METRICS.items():
            right = rejections(metric, design, simulations)
            few = max(40, simulations // 10)
            wrong = rejections(metric, design, few, aligned=False)
            cells.append(f"{right:.3f} ({wrong:.2f})")
            report(f"null, {name}, {design}: {cells[-1]}")
        yield f"| {design} | " + " | ".join(cells) + " |"
    few = max(20, int(0.4 * simulations))
    yield ""
    yield "### Coverage of 95 % intervals"
    yield ""
    yield f"Of {few} samples of texts: share of intervals that hold the truth, then their width over the right one."
    yield "The truth is the value of the population; of k-NN overlap the mean at this number of rows."
    yield ""
    yield "| texts | dimensions | rows of a text | alike | " + " | ".join(ESTIMATES) + " |"
    yield "|---" * (4 + len(ESTIMATES)) + "|"
    wrong: list[str] = []
    for design in COVERAGE_DESIGNS:
        found = [coverage(name, design, few) for name in ESTIMATES]
        report(f"coverage, {design}: {found}")
        yield f"| {design} | " + " | ".join(f"{one.coverage:.3f}, {one.width:.2f}" for one in found) + " |"
        wrong.append(f"| {design} | " + " | ".join(_signed(one) for one in found) + " |")
    yield ""
    yield "### Wrong verdicts"
    yield ""
    yield "Share of samples called equivalent (two one-sided tests at 5 %, margin two standard deviations) although the"
    yield "truth lies at the end of the margin: .05 where the standard error is right; then the bias of the value."
    yield ""
    yield "| texts | dimensions | rows of a text | alike | " + " | ".join(ESTIMATES) + " |"
    yield "|---" * (4 + len(ESTIMATES)) + "|"
    yield from wrong


def _signed(one: Covered) -> str:
    return f"{one.equivalent:.3f}, {one.bias:+.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or write them into the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000, help="pairs of models a cell")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{DOCUMENT.name}")
    chosen = parser.parse_args(arguments)
    text = "\n".join(tables(simulations=chosen.simulations, report=lambda line: print(line, flush=True)))
    if not chosen.write:
        print(text)
        return
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_START)
    DOCUMENT.write_text(f"{before}{_START}\n\n{text}\n\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")
    print(f"written to {DOCUMENT}")


if __name__ == "__main__":
    main()
