"""Base against variants, task by task: differences over seeds, intervals, and whether they are within a margin."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding.checkpoints.layout import ExperimentFolder
from reasoning_embedding.checkpoints.scores import mean_scores
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.config.replicates import Replicates, grown_stage
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.uncertainty.equivalence import (
    ALPHA,
    Equivalence,
    equivalence_of_estimate,
    equivalence_of_replicates,
    equivalence_of_runs,
)
from reasoning_embedding.hrsa.uncertainty.replicates import LINEAGES
from reasoning_embedding.hrsa.uncertainty.resampling import bootstrap_means
from reasoning_embedding.hrsa.uncertainty.seed_band import mean_std

from .reading import (
    backbone_name,
    by_name,
    read_checkpoint_scores,
    read_config,
    read_design,
    read_query_scores,
)
from .records import Run, Scores, finite, half_width
from .resources import published

#: Differences below half a point count as none, unless another margin is stated.
MARGIN = 0.5
#: Task types whose single scores belong to queries; tasks that ask the same ones share their draws.
_BY_QUERY = frozenset({"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"})
#: Scores are shown on the scale of the field's tables.
POINTS = 100.0
#: Scores of single queries are used if their mean is the task's score, to what mteb's rounding leaves.
_ROUNDING = 1e-4
#: Settings that decide a score: runs that differ in one were not asked the same.
_DECISIVE = ("max_tokens", "query_template")


#: A task, a suite or a mean as a weighted sum of tasks' scores: task -> weight.
_Weights = dict[str, float]


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
    lineages: Equivalence | None = None
    """Over lineages that were grown again, contrastive seeds averaged within; `seeds` is then within lineages."""

    @property
    def verdict(self) -> str:
        """What all tests at hand say, ``open`` when they disagree, empty when there is none or too few lineages."""
        if self.lineages is not None and self.lineages.n < LINEAGES:
            return ""
        verdicts: set[str] = {test.place for test in (self.lineages, self.seeds, self.queries) if test}
        return verdicts.pop() if len(verdicts) == 1 else ("open" if verdicts else "")


@dataclass(frozen=True)
class BackboneComparison:
    """A base and a variant with their entries: two backbones, or two readouts of one backbone."""

    base: str
    variant: str
    kind: str
    seeds: tuple[int, int]
    entries: tuple[Entry, ...]
    published: bool = False
    lineages: int | None = None
    """How many were grown; None where they were not grown again."""
    within: str = ""
    """What both have, where an experiment compares readouts: the readout of two backbones, or the backbone of two
    readouts."""

    @property
    def label(self) -> str:
        """``variant v base``, with what both have."""
        return f"{self.variant} v {self.base}" + (f", {self.within}" if self.within else "")

    def entry(self, quantity: str) -> Entry | None:
        """Entry of a quantity, if the pair has it."""
        return next((entry for entry in self.entries if entry.quantity == quantity), None)


@dataclass(frozen=True)
class GroupScore:
    """One quantity of the runs that differ in their seed only, on the 0-100 scale.

    Parameters
    ----------
    mean : float
        Over seeds.
    seeds : float or None
        Half of the two-sided t interval of the mean over seeds, of 1 - ``ALPHA``; None for one seed.
    queries : tuple of float or None
        Percentile bootstrap interval over queries, of scores averaged over seeds; None without scores of queries.
    """

    mean: float
    seeds: float | None
    queries: tuple[float, float] | None


@dataclass(frozen=True)
class ScoreGroup:
    """The runs of one backbone and one readout."""

    backbone: str
    readout: str
    seeds: int
    scores: dict[str, GroupScore]
    """By quantity; one that failed or is missing for a run is left out."""


@dataclass(frozen=True)
class ScoreTable:
    """Pairs of an experiment, and the published ones they stand beside."""

    pairs: tuple[BackboneComparison, ...]
    published: tuple[BackboneComparison, ...]
    source: str
    headline: tuple[str, ...]
    """Quantities of the main table: suites, tasks outside of them, means."""
    margin: float
    notes: tuple[str, ...]
    groups: tuple[ScoreGroup, ...] = ()
    """Backbones x readouts, where the experiment compares readouts."""


@dataclass
class _RunScores:
    """Scores of a run's last evaluated checkpoint, on the 0-100 scale."""

    name: str
    seed: int | None
    step: int | None
    """None: no checkpoint after step 0 was evaluated."""
    tasks: dict[str, float] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    """Tasks in no mean, because their score is no quality between 0 and 1 (a silhouette)."""
    failed: dict[str, str] = field(default_factory=dict)
    queries: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Per task and subset, query id -> score; the task's score is the mean over subsets of their means."""
    without_queries: dict[str, str] = field(default_factory=dict)
    """Per task, why there are no scores of single queries."""
    suites: dict[str, tuple[str, ...]] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    """Data of each task and the settings, which must be the same in runs that are compared."""
    lineage: int | None = None
    """Of a replicate design, from 1."""


@dataclass(frozen=True)
class _BackboneRuns:
    """Runs of one backbone and one readout; they differ in their seeds."""

    name: str
    kind: str
    """``pretrain``, ``sft``, ``rlvr``, or empty for a backbone that was not grown here."""
    runs: tuple[_RunScores, ...]
    own_bases: bool = True
    """Of a replicate design: whether every lineage has a base of its own."""
    readout: str | None = None
    """Its name, where the experiment compares several."""


def compare_backbones(folder: Path, *, base: str | None = None, margin: float = MARGIN) -> ScoreTable:
    """Compare the runs of every backbone of an experiment with those of one.

    Where the experiment compares readouts, backbones are compared within each readout, and readouts within each
    backbone: the two sides of a pair differ in one axis.

    Parameters
    ----------
    folder : Path
        An experiment's folder with evaluated runs.
    base : str, optional
        Backbone (or readout) the others are compared with; absent: the first run's.
    margin : float
        Equivalence margin in points of 0-100, > 0.

    Raises
    ------
    InputError
        If the margin is not above 0, there are no two backbones or readouts, `base` is none of them, no run was
        evaluated, or the runs were not asked the same.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(
            f"an equivalence margin of {margin:g} points: no difference could lie within it",
            where="--margin",
            todo=f"state a margin above 0 in points of 0-100, such as {MARGIN}",
        )
    groups = _read_groups(folder)
    chosen = _choose_pairs(groups, base, folder)
    runs = [run for group in groups for run in group.runs]
    quantities, headline = _quantities(runs)
    if not quantities:
        raise InputError(
            "no run has scores of a step after 0", where=str(folder), todo="evaluate the runs first"
        )
    source, published = published_pairs(margin)
    return ScoreTable(
        pairs=tuple(_compare(one, other, quantities, margin) for one, other in chosen),
        published=published,
        source=source,
        headline=headline,
        margin=margin,
        notes=tuple(_notes(runs, quantities)),
        groups=tuple(_score_group(group, quantities) for group in groups if group.readout is not None),
    )


def _compare(
    base: _BackboneRuns, variant: _BackboneRuns, quantities: dict[str, _Weights], margin: float
) -> BackboneComparison:
    """Compare two groups of runs on every quantity.

    Notes
    -----
    Where both groups have the same distinct seeds, run i is paired with run i of the other: the spread is that
    of the differences, the test a paired t. Otherwise runs are independent: the spread is
    ``sqrt(s_base^2 + s_variant^2)``, the test Welch's. One interval over queries is made for all quantities from the
    same draws (:func:`~reasoning_embedding.hrsa.uncertainty.resampling.bootstrap_means`), of scores averaged over seeds.

    Where lineages were grown again there are three sources of chance: lineages (t over lineage means, paired where each
    has a base of its own, else Welch's), contrastive seeds within these lineages (where each has several), queries.
    """
    a_runs, b_runs, paired = _aligned(base.runs, variant.runs)
    samples, columns = _resample(b_runs, a_runs)
    entries = []
    for name, weights in quantities.items():
        a, b = [[_value(run, weights) for run in runs] for runs in (a_runs, b_runs)]
        problem = next((value for value in ("failed", "missing") if value in a or value in b), "")
        if problem:
            entries.append(Entry(name, problem=problem if len(weights) == 1 else "missing"))
            continue
        x, y = np.array(a, dtype=float), np.array(b, dtype=float)
        seeds, spread, lineages = None, None, None
        if paired and all(run.lineage is not None for run in a_runs):
            lineages, seeds, spread = _over_lineages(a_runs, x, y, margin, paired=base.own_bases)
        elif min(x.size, y.size) > 1:
            seeds = equivalence_of_runs(x, y, margin, paired=paired)
            spread = mean_std(y - x)[1] if paired else math.hypot(x.std(ddof=1), y.std(ddof=1))
        difference = float(y.mean() - x.mean())
        queries = None
        if samples is not None and weights.keys() <= columns.keys():
            asked = sum(columns[task][1] for task in weights)
            replicates = samples @ _column_weights(weights, columns, samples.shape[1])
            queries = equivalence_of_replicates(difference, replicates, margin, n=asked)
        delta = (difference, spread)
        entries.append(Entry(name, "", mean_std(x), mean_std(y), delta, seeds, queries, lineages))
    seeds = (len(a_runs), len(b_runs))
    grown = len({run.lineage for run in a_runs} - {None}) or None
    if base.readout is not None and base.readout != variant.readout:
        readouts = (base.readout, str(variant.readout))
        return BackboneComparison(*readouts, "", seeds, tuple(entries), within=base.name, lineages=grown)
    return BackboneComparison(
        base.name,
        variant.name,
        variant.kind,
        seeds,
        tuple(entries),
        within=base.readout or "",
        lineages=grown,
    )


def _over_lineages(
    runs: Sequence[_RunScores], x: np.ndarray, y: np.ndarray, margin: float, *, paired: bool
) -> tuple[Equivalence | None, Equivalence | None, float | None]:
    """Tests over lineages and over the seeds within them, and the spread of the difference over lineages.

    Notes
    -----
    Seeds: mean difference, standard error ``s / sqrt(n)`` with ``s`` pooled within lineages, n runs less one a lineage
    degrees of freedom; what other seeds of these very lineages would give.
    """
    numbers = np.array([run.lineage for run in runs])
    kinds = np.unique(numbers)
    a, b = (np.array([side[numbers == kind].mean() for kind in kinds]) for side in (x, y))
    lineages = equivalence_of_runs(a, b, margin, paired=paired) if len(kinds) > 1 else None
    seeds, degrees = None, len(runs) - len(kinds)
    if degrees > 0:
        within = sum(
            float(((y - x)[numbers == kind] - (b - a)[kinds == kind]) @ (y - x)[numbers == kind])
            for kind in kinds
        )
        error = math.sqrt(within / degrees / len(runs))
        seeds = equivalence_of_estimate(
            float((y - x).mean()), error, degrees, margin, method="t within lineages", n=len(runs)
        )
    return lineages, seeds, mean_std(b - a)[1]


def _score_group(group: _BackboneRuns, quantities: dict[str, _Weights]) -> ScoreGroup:
    """Scores of one group's runs, with an interval over its seeds and one over the queries."""
    samples, columns = _resample(group.runs)
    scores = {}
    for name, weights in quantities.items():
        values = [value for run in group.runs if isinstance(value := _value(run, weights), float)]
        if len(values) < len(group.runs):
            continue
        queries = None
        if samples is not None and weights.keys() <= columns.keys():
            replicates = samples @ _column_weights(weights, columns, samples.shape[1])
            low, high = np.quantile(replicates, [ALPHA / 2, 1 - ALPHA / 2])
            queries = (float(low), float(high))
        scores[name] = GroupScore(mean_std(values)[0], half_width(values), queries)
    return ScoreGroup(group.name, str(group.readout), len(group.runs), scores)


def _column_weights(weights: _Weights, columns: dict[str, tuple[list[int], int]], count: int) -> np.ndarray:
    """Weight of each resampled column in a quantity."""
    of_column = np.zeros(count)
    for task, weight in weights.items():
        of_column[columns[task][0]] = weight / len(columns[task][0])
    return of_column


def published_pairs(margin: float = MARGIN) -> tuple[str, tuple[BackboneComparison, ...]]:
    """Return where published pairs come from, and the pairs, tested as if their spread is that of paired seeds."""
    record = published("scores")
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
            BackboneComparison(
                pair["base"], pair["variant"], pair["kind"], (n, n), tuple(entries), published=True
            )
        )
    return record["source"], tuple(pairs)


def _quantities(runs: Sequence[_RunScores]) -> tuple[dict[str, _Weights], tuple[str, ...]]:
    """Return tasks, suites and means over all tasks, and the names of those for the main table.

    The means are those of :func:`reasoning_embedding.checkpoints.scores.mean_scores`, as weights.
    """
    tasks = list(dict.fromkeys(task for run in runs for task in [*run.tasks, *run.failed]))
    types = {task: kind for run in runs for task, kind in run.types.items()}
    suites = {suite: members for run in runs for suite, members in run.suites.items()}
    found = {task: {task: 1.0} for task in tasks}
    for suite, members in suites.items():
        if members and suite not in tasks:
            found[suite] = dict.fromkeys(members, 1 / len(members))
            found |= _mean_by_type(f"{suite} by type", members, types)
    outside = {task for run in runs for task in run.outside}
    counted = [task for task in tasks if task not in outside]
    means = _mean_by_type("mean by type", counted, types)
    if len(counted) > 1:
        means = {"mean by task": dict.fromkeys(counted, 1 / len(counted))} | means
    inside = {task for members in suites.values() for task in members}
    return found | means, (*(name for name in found if name not in inside), *means)


def _mean_by_type(name: str, tasks: Sequence[str], types: dict[str, str]) -> dict[str, _Weights]:
    """Return the mean over types of the mean over a type's tasks, unless all are of one type."""
    kinds = [types.get(task, "Retrieval") for task in tasks]
    shares = [1 / (len(set(kinds)) * kinds.count(kind)) for kind in kinds]
    return {name: dict(zip(tasks, shares, strict=True))} if len(set(kinds)) > 1 else {}


def _aligned(
    base: tuple[_RunScores, ...], variant: tuple[_RunScores, ...]
) -> tuple[list[_RunScores], list[_RunScores], bool]:
    """Return both groups in the order of their seeds, and whether run i of one belongs to run i of the other."""
    sides = [[run.seed for run in runs] for runs in (base, variant)]
    by_seed = all(None not in seeds and len(set(seeds)) == len(seeds) for seeds in sides)
    if not by_seed or set(sides[0]) != set(sides[1]):
        return list(base), list(variant), False
    a, b = [sorted(runs, key=lambda run: run.seed or 0) for runs in (base, variant)]
    return a, b, True


def _value(run: _RunScores, weights: _Weights) -> float | str:
    values = []
    for task, weight in weights.items():
        if task not in run.tasks:
            return "failed" if task in run.failed else "missing"
        values.append(weight * run.tasks[task])
    return math.fsum(values)


def _resample(
    variant: Sequence[_RunScores], base: Sequence[_RunScores] = ()
) -> tuple[np.ndarray | None, dict[str, tuple[list[int], int]]]:
    """Resample queries of all tasks that every run has them for: scores of `variant`, less those of a `base`.

    Returns the draws, and per task its columns (one a subset) and the number of its queries.
    """
    runs = [*variant, *base]
    differences: list[np.ndarray] = []
    keys: list[str] = []
    columns: dict[str, tuple[list[int], int]] = {}
    for task, subsets in runs[0].queries.items():
        if any(run.queries.get(task, {}).keys() != subsets.keys() for run in runs):
            continue
        prefix = "" if runs[0].types.get(task, "Retrieval") in _BY_QUERY else f"{task}\n"
        start = len(differences)
        for subset in subsets:
            ids = sorted(subsets[subset])
            score, less = [
                np.mean([[run.queries[task][subset][query] for query in ids] for run in side], axis=0)
                if side
                else 0.0
                for side in (variant, base)
            ]
            differences.append(np.asarray(score - less))
            keys.append(prefix + "\n".join(ids))
        count = sum(len(subset) for subset in subsets.values())
        columns[task] = (list(range(start, len(differences))), count)
    return (bootstrap_means(differences, keys) if differences else None), columns


def _notes(runs: Sequence[_RunScores], quantities: dict[str, _Weights]) -> list[str]:
    """Say what is not in the table, and why."""
    tasks = [name for name, weights in quantities.items() if weights == {name: 1.0}]
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


def _read_groups(folder: Path) -> tuple[_BackboneRuns, ...]:
    """Read an experiment's runs, grouped by backbone and readout in the order of the configuration.

    Of each run the last evaluated checkpoint counts; a run, or a task of it, without scores stays in its group as
    missing. Runs that were scored on different data, settings or queries are refused.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), todo="name an experiment's folder")
    config, paths = read_config(folder), ExperimentFolder(folder)
    entries, found = by_name(config.get("runs")), paths.run_names()
    names = [*entries, *(name for name in found if name not in entries)]
    if not names:
        raise InputError(
            "no runs lie here, and the table compares runs of several backbones",
            where=str(folder),
            todo="name the folder of an experiment",
        )
    members: dict[tuple[str, str | None], list[_RunScores]] = {}
    design = read_design(config, folder)
    lineages = {} if design is None else _lineages(design, names)
    for name in names:
        entry = entries.get(name, {})
        scores = read_checkpoint_scores(paths.run(name))
        run = Run(name, backbone_name(entry), entry.get("seed"), (), scores)
        read, group = _last_scores(run), run.backbone or name
        if (number := lineages.get(name)) is not None:
            read.lineage = number
            group = group.removesuffix(grown_stage("", number))
        members.setdefault((group, entry.get("readout")), []).append(read)
    stages = by_name((config.get("lineage") or {}).get("stages"))
    kinds = {name: str(stage["kind"]) for name, stage in stages.items()}
    groups = tuple(
        _BackboneRuns(
            name,
            kinds.get(name) or kinds.get(grown_stage(name, 1), ""),
            tuple(runs),
            own_bases=name not in stages,
            readout=readout,
        )
        for (name, readout), runs in members.items()
    )
    _check_comparable([run for group in groups for run in group.runs], folder)
    return groups


def _lineages(design: Replicates, names: Iterable[str]) -> dict[str, int]:
    """Lineage of every run of a replicate design."""
    return {
        name: lineage
        for lineage, seed in design.cells
        for name in names
        if name.endswith(design.run("", lineage, seed))
    }


def _choose_pairs(
    groups: tuple[_BackboneRuns, ...], name: str | None, folder: Path
) -> list[tuple[_BackboneRuns, _BackboneRuns]]:
    """Return the groups that are compared, each with its reference: they differ in backbone or in readout, not both."""
    backbones = list(dict.fromkeys(group.name for group in groups))
    readouts = list(dict.fromkeys(group.readout for group in groups))
    if len(groups) < 2:
        raise InputError(
            f"all runs have one backbone, {backbones[0]!r}: there is nothing to compare it with",
            where=str(folder),
            todo="add a run with another backbone to the experiment",
        )
    known = [*backbones, *(readout for readout in readouts if readout is not None)]
    if name is not None and name not in known:
        what = "backbone" if readouts == [None] else "backbone or readout"
        raise InputError(
            f"no runs of a {what} {name!r}{did_you_mean(name, known)}",
            where=str(folder),
            todo=f"choose --base among {', '.join(known)}",
        )
    backbone = name if name is not None and name in backbones else backbones[0]
    readout = name if name in readouts and name not in backbones else readouts[0]
    cells = {(group.name, group.readout): group for group in groups}
    wanted = [((backbone, one), (other, one)) for one in readouts for other in backbones if other != backbone]
    wanted += [((one, readout), (one, other)) for one in backbones for other in readouts if other != readout]
    return [(cells[one], cells[other]) for one, other in wanted if one in cells and other in cells]


def _last_scores(run: Run) -> _RunScores:
    """Take the scores of a run's last evaluated checkpoint, on the scale of the table."""
    if run.last is None:
        return _RunScores(run.name, run.seed, None)
    scores = run.last
    found = _RunScores(run.name, run.seed, scores.step)
    for entry in scores.entries:
        task, score = entry["task"], finite(entry.get("main_score"))
        if score is None:
            found.failed[task] = f"its main score is {entry.get('main_score')!r}"
            continue
        found.tasks[task] = score * POINTS
        if entry.get("type"):
            found.types[task] = str(entry["type"])
        found.outside.update(mean_scores([entry])["left_out"])
        if "fingerprint" in entry:
            found.identity[f"the data of task {task!r}"] = entry["fingerprint"]
        _take_queries(scores, found, task)
    for entry in scores.failed:
        task = str(entry.get("task"))
        found.failed[task] = str(entry.get("error") or "no reason recorded")
        if entry.get("type"):
            found.types[task] = str(entry["type"])
    found.suites.update(scores.suites)
    found.identity.update(
        {f"the setting {key!r}": scores.settings[key] for key in _DECISIVE if key in scores.settings}
    )
    return found


def _take_queries(scores: Scores, run: _RunScores, task: str) -> None:
    """Take over the scores of a task's single queries, or note why they cannot stand for it."""
    found = read_query_scores(scores, task)
    if found is None:
        run.without_queries[task] = "no scores of single queries"
        return
    points = {query: value * POINTS for query, value in found.items()}
    for subsets in ({"": points}, _by_subset(points)):
        means = [sum(values.values()) / len(values) for values in subsets.values() if values]
        if means and abs(sum(means) / len(means) - run.tasks[task]) <= _ROUNDING * POINTS:
            run.queries[task] = subsets
            return
    run.without_queries[task] = "scores of single queries do not average to the task's score"


def _by_subset(points: dict[str, float]) -> dict[str, dict[str, float]]:
    """Split ids of the form ``split/subset/id``."""
    subsets: dict[str, dict[str, float]] = {}
    for query, value in points.items():
        subsets.setdefault("/".join(query.split("/")[:2]), {})[query] = value
    return subsets


def _check_comparable(runs: list[_RunScores], folder: Path) -> None:
    """Refuse runs that were not asked the same questions of the same data under the same settings."""
    for what in _ordered(run.identity for run in runs):
        having = [run for run in runs if what in run.identity]
        for run in having[1:]:
            if run.identity[what] != having[0].identity[what]:
                raise _not_comparable(f"{what} differs", having[0], run, folder)
    for task in _ordered(run.queries for run in runs):
        having = [run for run in runs if task in run.queries]
        first = _ids(having[0], task)
        for run in having[1:]:
            if odd := sorted(first ^ _ids(run, task)):
                shown = json.dumps(odd[:3], ensure_ascii=False)
                raise _not_comparable(
                    f"the queries of task {task!r} differ in {len(odd)}, such as {shown}",
                    having[0],
                    run,
                    folder,
                )


def _ids(run: _RunScores, task: str) -> set[str]:
    return {query for subset in run.queries[task].values() for query in subset}


def _not_comparable(what: str, a: _RunScores, b: _RunScores, folder: Path) -> InputError:
    return InputError(
        f"runs {a.name!r} and {b.name!r} cannot be compared: {what}",
        where=str(folder),
        todo="evaluate both again on the same tasks with the same settings",
    )


def _ordered(parts: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, in the order of first appearance."""
    return list(dict.fromkeys(name for part in parts for name in part))
