"""Base against variants, task by task: differences over seeds, intervals, and whether they are within a margin."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.uncertainty.equivalence import (
    equivalence_of_estimate,
    equivalence_of_replicates,
    equivalence_of_runs,
)
from reasoning_embedding.hrsa.uncertainty.resampling import bootstrap_means
from reasoning_embedding.hrsa.uncertainty.seed_band import mean_std

from .score_table_read import Group, RunScores, choose_base, read_groups
from .score_table_records import Entry, Pair, Quantity, ScoreTable

#: Differences below half a point count as none, unless another margin is stated.
MARGIN = 0.5
#: Task types whose single scores belong to queries; tasks that ask the same ones share their draws.
_ASKING = frozenset({"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"})


def score_table(folder: Path, *, base: str | None = None, margin: float = MARGIN) -> ScoreTable:
    """Compare the runs of every backbone of an experiment with those of one.

    Parameters
    ----------
    folder : Path
        An experiment's folder with evaluated runs.
    base : str, optional
        Backbone the others are compared with; absent: the first run's.
    margin : float
        Equivalence margin in points of 0-100, > 0.

    Raises
    ------
    InputError
        If the margin is not above 0, there are no two backbones, `base` is none of them, no run was
        evaluated, or the runs were not asked the same.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(
            f"an equivalence margin of {margin:g} points: no difference could lie within it",
            where="--margin",
            todo=f"state a margin above 0 in points of 0-100, such as {MARGIN}",
        )
    groups = read_groups(folder)
    reference = choose_base(groups, base, folder)
    runs = [run for group in groups for run in group.runs]
    quantities, headline = _quantities(runs)
    if not quantities:
        raise InputError(
            "no run has scores of a step after 0", where=str(folder), todo="evaluate the runs first"
        )
    source, published = published_pairs(margin)
    return ScoreTable(
        pairs=tuple(
            compare(reference, group, quantities, margin) for group in groups if group is not reference
        ),
        published=published,
        source=source,
        headline=headline,
        quantities=tuple(quantity.name for quantity in quantities),
        margin=margin,
        notes=tuple(_notes(runs, quantities)),
    )


def compare(base: Group, variant: Group, quantities: Sequence[Quantity], margin: float) -> Pair:
    """Compare two groups of runs on every quantity.

    Notes
    -----
    Where both groups have the same distinct seeds, run i is paired with run i of the other: the spread is that
    of the differences, the test a paired t. Otherwise runs are independent: the spread is
    ``sqrt(s_base^2 + s_variant^2)``, the test Welch's. One interval over queries is made for all quantities from the
    same draws (:func:`.bootstrap_means`), of scores averaged over seeds.
    """
    a_runs, b_runs, paired = _aligned(base.runs, variant.runs)
    samples, columns = _resample(a_runs, b_runs)
    entries = []
    for quantity in quantities:
        a, b = [[_value(run, quantity) for run in runs] for runs in (a_runs, b_runs)]
        problem = next((value for value in ("failed", "missing") if value in a or value in b), "")
        if problem:
            shown = problem if len(quantity.weights) == 1 else "missing"
            entries.append(Entry(quantity.name, problem=shown))
            continue
        x, y = np.array(a, dtype=float), np.array(b, dtype=float)
        seeds, spread = None, None
        if min(x.size, y.size) > 1:
            seeds = equivalence_of_runs(x, y, margin, paired=paired)
            spread = mean_std(y - x)[1] if paired else math.hypot(x.std(ddof=1), y.std(ddof=1))
        difference = float(y.mean() - x.mean())
        queries = None
        if samples is not None and quantity.weights.keys() <= columns.keys():
            weights = np.zeros(samples.shape[1])
            asked = 0
            for task, weight in quantity.weights.items():
                weights[columns[task][0]] = weight / len(columns[task][0])
                asked += columns[task][1]
            queries = equivalence_of_replicates(difference, samples @ weights, margin, n=asked)
        delta = (difference, spread)
        entries.append(Entry(quantity.name, "", mean_std(x), mean_std(y), delta, seeds, queries))
    return Pair(base.name, variant.name, variant.kind, (len(a_runs), len(b_runs)), tuple(entries))


def published_pairs(margin: float = MARGIN) -> tuple[str, tuple[Pair, ...]]:
    """Return where published pairs come from, and the pairs, tested as if their spread is that of paired seeds."""
    record = json.loads(
        (files("reasoning_embedding.reports") / "published" / "table1.json").read_text(encoding="utf-8")
    )
    n = record["seeds"]
    pairs = []
    for pair in record["pairs"]:
        entries = []
        for suite, row in pair["scores"].items():
            test = equivalence_of_estimate(
                row["delta"], row["std"] / math.sqrt(n), n - 1, margin, method="paired t", n=n
            )
            base, variant = (row["base"], None), (row["variant"], None)
            entries.append(Entry(suite, "", base, variant, (row["delta"], row["std"]), test))
        pairs.append(
            Pair(pair["base"], pair["variant"], pair["kind"], (n, n), tuple(entries), published=True)
        )
    return record["source"], tuple(pairs)


def _quantities(runs: Sequence[RunScores]) -> tuple[list[Quantity], tuple[str, ...]]:
    """Return tasks, suites and means over all tasks, and the names of those for the main table.

    The means are those of :func:`reasoning_embedding.checkpoints.scores.mean_scores`, as weights.
    """
    tasks = list(dict.fromkeys(task for run in runs for task in [*run.tasks, *run.failed]))
    types = {task: kind for run in runs for task, kind in run.types.items()}
    suites = {suite: members for run in runs for suite, members in run.suites.items()}
    found = [Quantity(task, {task: 1.0}) for task in tasks]
    for suite, members in suites.items():
        if members and suite not in tasks:
            found.append(Quantity(suite, dict.fromkeys(members, 1 / len(members))))
            found += _mean_by_type(f"{suite} by type", members, types)
    outside = {task for run in runs for task in run.outside}
    counted = [task for task in tasks if task not in outside]
    means = []
    if len(counted) > 1:
        means.append(Quantity("mean by task", dict.fromkeys(counted, 1 / len(counted))))
    means += _mean_by_type("mean by type", counted, types)
    inside = {task for members in suites.values() for task in members}
    headline = [quantity.name for quantity in found if quantity.name not in inside] + [
        mean.name for mean in means
    ]
    return [*found, *means], tuple(headline)


def _mean_by_type(name: str, tasks: Sequence[str], types: dict[str, str]) -> list[Quantity]:
    """Return the mean over types of the mean over a type's tasks, unless all are of one type."""
    kinds = [types.get(task, "Retrieval") for task in tasks]
    shares = [1 / (len(set(kinds)) * kinds.count(kind)) for kind in kinds]
    return [Quantity(name, dict(zip(tasks, shares, strict=True)))] if len(set(kinds)) > 1 else []


def _aligned(
    base: tuple[RunScores, ...], variant: tuple[RunScores, ...]
) -> tuple[list[RunScores], list[RunScores], bool]:
    """Return both groups in the order of their seeds, and whether run i of one belongs to run i of the other."""
    sides = [[run.seed for run in runs] for runs in (base, variant)]
    whole = all(None not in seeds and len(set(seeds)) == len(seeds) for seeds in sides)
    if not whole or set(sides[0]) != set(sides[1]):
        return list(base), list(variant), False
    a, b = [sorted(runs, key=lambda run: run.seed or 0) for runs in (base, variant)]
    return a, b, True


def _value(run: RunScores, quantity: Quantity) -> float | str:
    values = []
    for task, weight in quantity.weights.items():
        if task not in run.tasks:
            return "failed" if task in run.failed else "missing"
        values.append(weight * run.tasks[task])
    return math.fsum(values)


def _resample(
    base: Sequence[RunScores], variant: Sequence[RunScores]
) -> tuple[np.ndarray | None, dict[str, tuple[list[int], int]]]:
    """Resample queries of all tasks that every run has them for.

    Returns the draws, and per task its columns (one a subset) and the number of its queries.
    """
    runs = [*base, *variant]
    differences: list[np.ndarray] = []
    keys: list[str] = []
    columns: dict[str, tuple[list[int], int]] = {}
    for task, subsets in runs[0].queries.items():
        if any(run.queries.get(task, {}).keys() != subsets.keys() for run in runs):
            continue
        own = "" if runs[0].types.get(task, "Retrieval") in _ASKING else f"{task}\n"
        start = len(differences)
        for subset in subsets:
            ids = sorted(subsets[subset])
            a, b = [
                np.mean([[run.queries[task][subset][query] for query in ids] for run in side], axis=0)
                for side in (base, variant)
            ]
            differences.append(b - a)
            keys.append(own + "\n".join(ids))
        count = sum(len(subset) for subset in subsets.values())
        columns[task] = (list(range(start, len(differences))), count)
    return (bootstrap_means(differences, keys) if differences else None), columns


def _notes(runs: Sequence[RunScores], quantities: Sequence[Quantity]) -> list[str]:
    """Say what is not in the table, and why."""
    tasks = [quantity.name for quantity in quantities if quantity.weights == {quantity.name: 1.0}]
    notes, reasons = [], {}
    for run in runs:
        if run.step is None:
            notes.append(f"run {run.name!r}: no checkpoint after step 0 was evaluated")
            continue
        for task in tasks:
            if task in run.failed:
                notes.append(f"run {run.name!r}: task {task!r} failed: {run.failed[task]}")
            elif task not in run.tasks:
                notes.append(f"run {run.name!r}: task {task!r} was not scored")
            elif task in run.without_queries:
                reasons.setdefault((task, run.without_queries[task]), []).append(run.name)
    notes += [
        f"no interval over queries for task {task!r}: {reason} ({', '.join(names)})"
        for (task, reason), names in reasons.items()
    ]
    notes += [
        f"task {task!r} is in no mean: its score is no quality between 0 and 1"
        for task in dict.fromkeys(task for run in runs for task in sorted(run.outside))
    ]
    steps = {run.step: run.name for run in runs if run.step is not None}
    if len(steps) > 1:
        shown = ", ".join(f"{name} at {step}" for step, name in sorted(steps.items()))
        notes.append(f"the last evaluated steps differ: {shown}")
    return notes
