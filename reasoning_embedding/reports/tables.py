"""The report's tables of scores and of quality gates."""

from __future__ import annotations

from .grid import Cell, Column, Grid
from .labels import SCORE, number, signed
from .records import Experiment, Scores

_GATES = {"sampled_accuracy": "sampled accuracy", "greedy_accuracy": "greedy accuracy", "pass_at_8": "pass@8"}
_SCORE_KEYS = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_1": "recall@1",
    "recall_at_10": "recall@10",
    "recall_at_100": "recall@100",
    "mrr_at_10": "MRR@10",
    "seconds": "seconds",
}


def score_table(experiment: Experiment) -> Grid:
    """Runs and baselines by tasks: nDCG@10 at step 0, at the last step, and the change."""
    tasks = experiment.tasks
    columns = [Column("model")]
    for task in [*tasks, "mean"] if len(tasks) > 1 else tasks:
        columns += [Column("step 0", task), Column("last", task), Column("change", task)]
    finals = [run.last for run in experiment.runs] + list(experiment.baselines.values())
    rows = []
    for run in experiment.runs:
        if run.scores:
            steps = f"step {run.last.step}" if run.last else ""
            seed = f"seed {run.seed}" if run.seed is not None else ""
            name = Cell(run.name, ", ".join(part for part in (steps, seed) if part))
            rows.append((name, *_score_cells(run.first, run.last, tasks, finals)))
    runs = len(rows)
    for name, scores in experiment.baselines.items():
        rows.append((Cell(name, "baseline"), *_score_cells(None, scores, tasks, finals)))
    return Grid(
        key="scores",
        title=f"Retrieval: {SCORE} before and after training",
        caption="Step 0 is the backbone as an embedder before any training. A baseline is not trained here; its "
        "score stands under “last”. The best last score of a task is in bold (* in plain text).",
        columns=tuple(columns),
        rows=tuple(rows),
        reference_rows=frozenset(range(runs, len(rows))),
    )


def mean_score(scores: Scores | None, tasks: tuple[str, ...]) -> float | None:
    """Mean nDCG@10 over `tasks`; None unless every one was scored."""
    values = [task_score(scores, task) for task in tasks]
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None


def task_score(scores: Scores | None, task: str) -> float | None:
    """nDCG@10 of one task, if it was scored."""
    return scores.tasks.get(task, {}).get("ndcg_at_10") if scores else None


def _score_cells(
    first: Scores | None, last: Scores | None, tasks: tuple[str, ...], finals: list[Scores | None]
) -> list[Cell]:
    cells = []
    for task in [(task,) for task in tasks] + ([tasks] if len(tasks) > 1 else []):
        before, after = mean_score(first, task), mean_score(last, task)
        change = None if before is None or after is None else after - before
        scores = [score for other in finals if (score := mean_score(other, task)) is not None]
        best = after is not None and len(scores) > 1 and after == max(scores)
        direction = (
            "" if change is None or signed(change)[0] not in "+−" else ("up" if change > 0 else "down")
        )
        cells += [
            Cell(number(before)),
            Cell(number(after), mark="best" if best else ""),
            Cell(signed(change), mark=direction),
        ]
    return cells


def score_details(experiment: Experiment) -> Grid:
    """Every evaluated checkpoint and baseline, task by task, with all metrics."""
    scored = [(run.name, scores) for run in experiment.runs for _, scores in sorted(run.scores.items())]
    scored += list(experiment.baselines.items())
    present = [
        key
        for key in _SCORE_KEYS
        if any(key in task for _, scores in scored for task in scores.tasks.values())
    ]
    rows = []
    for name, scores in scored:
        for task, values in scores.tasks.items():
            step = "" if scores.step is None else f"step {scores.step}"
            cells = [Cell(number(values.get(key), 1 if key == "seconds" else 3)) for key in present]
            rows.append((Cell(name, step), Cell(task), *cells))
    return Grid(
        key="score-details",
        title="All retrieval metrics",
        caption="Every evaluated checkpoint. Seconds are the evaluation's wall time on the machine that ran it.",
        columns=(Column("model"), Column("task"), *(Column(_SCORE_KEYS[key]) for key in present)),
        rows=tuple(rows),
    )


def gate_table(experiment: Experiment) -> Grid:
    """Stages of the lineage by quality gates: what was measured and what was required."""
    rows = []
    for stage in experiment.stages:
        origin = f"{stage.kind} from {stage.parent}" if stage.parent else stage.kind
        for index, measured in enumerate(stage.gates):
            cells = [
                _gate_cell(measured.get(gate), None if index else stage.thresholds.get(gate))
                for gate in _GATES
            ]
            rows.append((Cell(stage.name, origin), Cell(str(measured.get("format", "–"))), *cells))
    return Grid(
        key="gates",
        title="Lineage: quality gates",
        caption="Exact answers to sums after each stage: share of right samples, of right greedy answers, and of "
        "sums with a right answer among 8 samples. The gates hold for the answer format a stage was taught; the "
        "other format shows what it kept or forgot.",
        columns=(Column("stage"), Column("answer format"), *(Column(label) for label in _GATES.values())),
        rows=tuple(rows),
    )


def _gate_cell(value: float | None, need: float | None) -> Cell:
    mark = "" if value is None or need is None else ("pass" if value >= need else "miss")
    return Cell(number(value), "" if need is None else f"needs {number(need, 2)}", mark=mark)
