"""The tables of a report: scores, quality gates, contamination, number sequences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .grid import Cell, Grid, TableColumn, named_columns
from .labels import SCORE, SCORE_KEY, number, signed
from .names import run_title
from .records import Experiment, Scores, spread_out
from .resources import published

_GATES = {"sampled_accuracy": "sampled accuracy", "greedy_accuracy": "greedy accuracy", "pass_at_8": "pass@8"}
_SCORE_KEYS = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_1": "recall@1",
    "recall_at_10": "recall@10",
    "recall_at_100": "recall@100",
    "mrr_at_10": "MRR@10",
    "seconds": "seconds",
}

#: Rows of the table of all metrics: a page of a run with thousands of checkpoints stays small.
_DETAILED = 300


def score_table(experiment: Experiment) -> Grid:
    """Runs and baselines by tasks: nDCG@10 at step 0, at the last step, and the change."""
    tasks = experiment.tasks
    columns = [TableColumn("model")]
    for task in [*tasks, "mean"] if len(tasks) > 1 else tasks:
        columns += [TableColumn("step 0", task), TableColumn("last", task), TableColumn("change", task)]
    finals = [run.last for run in experiment.runs] + list(experiment.baselines.values())
    rows = []
    for run in experiment.runs:
        if run.scores:
            steps = f"step {run.last.step}" if run.last else ""
            seed = f"seed {run.seed}" if run.seed is not None else ""
            name = Cell(
                run_title(experiment, run.name),
                ", ".join(part for part in (run.readout, steps, seed) if part),
            )
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
    return scores.tasks.get(task, {}).get(SCORE_KEY) if scores else None


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
    most = max(2, _DETAILED // max(1, len(experiment.runs) * len(experiment.tasks)))
    scored = []
    for run in experiment.runs:
        steps = sorted(run.scores)
        shown = [steps[place] for place in spread_out(len(steps), most)]
        scored += [(run_title(experiment, run.name), run.scores[step]) for step in shown]
    every = all(len(run.scores) <= most for run in experiment.runs)
    which = (
        "Every evaluated checkpoint."
        if every
        else f"Of each run {most} evaluated checkpoints, evenly by step."
    )
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
        caption=f"{which} Seconds are the evaluation's wall time on the machine that ran it.",
        columns=named_columns("model", "task", *(_SCORE_KEYS[key] for key in present)),
        rows=tuple(rows),
    )


def compression_table(experiment: Experiment) -> Grid:
    """What truncated and quantized vectors cost in bytes and in score, beside whole ones."""
    tasks = experiment.tasks
    rows = []
    for run in experiment.runs:
        for step in sorted({scores.step for scores in run.compressed if scores.step is not None}):
            whole = run.scores.get(step)
            kept = [scores for scores in run.compressed if scores.step == step]
            kept.sort(key=lambda scores: -(scores.settings.get("bytes_per_vector") or 0))
            for scores in [*([whole] if whole else []), *kept]:
                cells = []
                for task in tasks:
                    score, before = task_score(scores, task), task_score(whole, task)
                    change = None if score is None or before is None or scores is whole else score - before
                    cells.append(Cell(number(score), "" if change is None else signed(change)))
                size = scores.settings.get("bytes_per_vector")
                rows.append(
                    (
                        Cell(run_title(experiment, run.name), f"step {step}"),
                        Cell(_kept(scores)),
                        Cell(str(size or "–")),
                        *cells,
                    )
                )
    return Grid(
        key="compressed",
        title="Compressed vectors",
        caption=f"{SCORE} of what is kept of a vector, with its bytes and the change from whole vectors. int8: steps "
        "between the least and largest value of each entry over documents; binary: Hamming distance of signs.",
        columns=named_columns("model", "kept", "bytes", *tasks),
        rows=tuple(rows),
    )


def _kept(scores: Scores) -> str:
    settings = scores.settings
    entries = settings.get("dimension")
    return f"{entries or 'all'} entries, {settings.get('quantize') or 'float32'}"


def asking_table(experiment: Experiment) -> Grid:
    """How the models were asked and read: prompts, limit, precision and readout of each one's last scores."""
    rows = []
    models = [(run_title(experiment, run.name), run.last or run.first) for run in experiment.runs]
    for name, scores in [*models, *experiment.baselines.items()]:
        if scores is None or "prompts_from" not in scores.settings:
            continue  # of a version that did not write it down
        settings = scores.settings
        prompts = dict.fromkeys(entry.get("prompt") or "" for entry in scores.entries)
        shown = "; ".join(json.dumps(prompt, ensure_ascii=False) if prompt else "none" for prompt in prompts)
        readout = settings.get("readout") or {}
        words = [str(readout[key]) for key in ("attention", "pooling") if readout.get(key)]
        rows.append(
            (
                Cell(name),
                Cell(str(settings["prompts_from"])),
                Cell(shown if len(prompts) < 3 else f"{len(prompts)} prompts, one a task"),
                Cell(str(settings.get("max_tokens") or "–")),
                Cell(str(settings.get("dtype") or "–")),
                Cell(", ".join(words) or "–"),
            )
        )
    return Grid(
        key="asked",
        title="How the models were asked",
        caption="Where prompts come from, what stood before queries (and texts of tasks without queries), where texts "
        "were cut, the precision and the readout: with others, a score is another score.",
        columns=named_columns("model", "prompts", "before a query", "most tokens", "precision", "readout"),
        rows=tuple(rows),
    )


def gate_table(experiment: Experiment) -> Grid:
    """Stages of the lineage by quality gates: what was measured and what was required."""
    rows = []
    for stage in experiment.backbones:
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
        columns=named_columns("stage", "answer format", *_GATES.values()),
        rows=tuple(rows),
    )


def _gate_cell(value: float | None, need: float | None) -> Cell:
    mark = "" if value is None or need is None else ("pass" if value >= need else "miss")
    return Cell(number(value), "" if need is None else f"needs {number(need, 2)}", mark=mark)


def contamination_table(experiment: Experiment) -> Grid:
    """Tasks and kinds of text: how many there are, how many training also saw, and from which sources."""
    found = experiment.contamination
    rows = []
    for task, kinds in (found.get("tasks") or {}).items():
        for kind, record in kinds.items():
            texts, exact, near = (int(record[key]) for key in ("texts", "exact", "near"))
            sources = [f"{source} {count:,}" for source, count in record["sources"].items()]
            example = next((entry["text"] for entry in record["examples"]), "")
            rows.append(
                (
                    Cell(task, kind),
                    Cell(f"{texts:,}"),
                    Cell(f"{exact:,}", mark="down" if exact else ""),
                    Cell(f"{near:,}", mark="down" if near else ""),
                    Cell(_percent(exact + near, texts)),
                    Cell(", ".join(sources) or "–"),
                    Cell(_short(example) or "–"),
                )
            )
    for task, reason in (found.get("unchecked") or {}).items():
        rows.append((Cell(task, "not checked"), *[Cell("–")] * 5, Cell(_short(reason))))
    return Grid(
        key="contamination",
        title="Contamination: evaluation texts in the training data",
        caption="Distinct texts of each task that the training data hold word for word (case, white space and "
        "punctuation aside) or nearly (Jaccard similarity of word 5-grams of at least "
        f"{found.get('threshold', 0.8)}). A document that training saw as well is no fault in itself; a query, or "
        "a text whose label is asked for, is.",
        columns=named_columns("task", "texts", "exact", "near", "share", "training sources", "first example"),
        rows=tuple(rows),
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _short(text: str, length: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


#: Tables of number sequences have keys that begin with it.
SEQUENCES_KEY = "sequences-"
_METRICS = ("silhouette_true", "davies_bouldin_true", "silhouette_kmeans", "davies_bouldin_kmeans", "ari")
_SEQUENCE_COLUMNS = (
    TableColumn("embeddings"),
    TableColumn("silhouette", "true families"),
    TableColumn("Davies-Bouldin", "true families"),
    TableColumn("silhouette", "KMeans clusters"),
    TableColumn("Davies-Bouldin", "KMeans clusters"),
    TableColumn("ARI with families", "KMeans clusters"),
    TableColumn("p of the silhouette", "random directions"),
)
_BASELINES = {
    "tfidf": "TF-IDF of characters",
    "digit_histogram": "digit histogram",
    "random": "random vectors",
    "hand_made": "hand-made arithmetic features",
}


def sequence_tables(experiment: Experiment) -> list[Grid]:
    """One table a task: runs before and after training, baselines, and published models where texts are equal."""
    return [_table(task, list(sequence_entries(experiment, task))) for task in sequence_tasks(experiment)]


def _scored(experiment: Experiment) -> Iterator[tuple[str, str, Scores]]:
    for run in experiment.runs:
        for scores in (run.first, run.last):
            if scores:
                yield run_title(experiment, run.name), f"step {scores.step}", scores
    for name, scores in experiment.baselines.items():
        yield name, "baseline", scores


def sequence_tasks(experiment: Experiment) -> list[str]:
    """Tasks of number sequences that anything was scored on."""
    return list(dict.fromkeys(task for _, _, scores in _scored(experiment) for task in scores.sequences))


def sequence_entries(experiment: Experiment, task: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, remark and entry of every model scored on a task, in the order of its table."""
    for name, note, scores in _scored(experiment):
        if entry := scores.sequences.get(task):
            yield name, note, entry


def _table(task: str, entries: list[tuple[str, str, dict[str, Any]]]) -> Grid:
    rows = [_row(name, note, entry) for name, note, entry in entries]
    models = len(rows)
    first = entries[0][2]
    for key, label in _BASELINES.items():
        if values := first["baselines"].get(key):
            spread = f"sd {number(values['sd'], 4)}" if "sd" in values else ""
            rows.append(_row(label, "no model", values, spread))
    if first["standard"]:
        table = published("number-sequences")
        for name, values in table["models"].items():
            rows.append(_row(name, "published", dict(zip(table["metrics"], values, strict=True))))
    return Grid(
        key=f"{SEQUENCES_KEY}{task}",
        title=f"Number sequences: {task}",
        caption=f"{first['texts']} texts of {len(first['tsne']['families'])} families of numbers. A larger "
        "silhouette and a smaller Davies-Bouldin index are tighter clusters; ARI is 1 where KMeans finds the "
        "families and about 0 by chance. p: share of random directions whose silhouette is as high. So few texts "
        "make noisy scores: a model above TF-IDF and digits alone is the least to ask for.",
        columns=_SEQUENCE_COLUMNS,
        rows=tuple(rows),
        reference_rows=frozenset(range(models, len(rows))),
    )


def _row(name: str, note: str, values: dict[str, Any], spread: str = "") -> tuple[Cell, ...]:
    cells = [Cell(number(values.get(metric), 4)) for metric in _METRICS]
    if spread:
        cells[0] = Cell(cells[0].text, spread)
    return Cell(name, note), *cells, Cell(number((values.get("null") or {}).get("p_value"), 3))
