"""An experiment folder with invented numbers, laid out as the program lays out a real one. For tests only."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

RUNS = {"base": ("base", 0), "sft": ("sft", 0), "rlvr": ("rlvr", 0), "base-seed1": ("base", 1)}
TASKS = ("world-heldout", "cosqa_dev", "cranfield")
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 100, 150)
LAYERS = ["embedding", "layer 1", "layer 2", "layer 3", "layer 4 (pre-norm)", "final norm"]
METRICS = {
    "dimension_correlation": 0.0,
    "h_inv": 0.158,
    "h_inv_rescaled": 0.0,
    "procrustes_residual": None,
    "procrustes_cosine": 0.0,
    "cka": 0.31,
    "cka_debiased": 0.0,
    "knn_jaccard@5": 0.016,
    "knn_jaccard@10": 0.032,
    "knn_jaccard@50": 0.18,
    "knn_mutual@10": 0.062,
}
#: As in a real analysis, not every metric has a bootstrap interval.
INTERVALS = (
    "dimension_correlation",
    "cka",
    "procrustes_cosine",
    "knn_jaccard@5",
    "knn_jaccard@10",
    "knn_jaccard@50",
)
#: Similarity at the last layer of each invented pair; the noise floor is base-emb-seeds.
PAIRS = {
    "base-emb-seeds": ("run:base@last", "run:base-seed1@last", "bidirectional", 0.967),
    "lm-base-rlvr": ("lineage:base", "lineage:rlvr", "causal", 0.989),
    "lm-base-sft": ("lineage:base", "lineage:sft", "causal", 0.761),
    "emb-base-rlvr": ("run:base@last", "run:rlvr@last", "bidirectional", 0.968),
    "emb-base-sft": ("run:base@last", "run:sft@last", "bidirectional", 0.479),
}
PROBE = {"kind": "world", "hash": "5e0f", "texts": 192, "rows": 1840, "tokens": "all", "labels": 5}


def write_experiment(folder: Path, *, title: str = "Synthetic experiment", steps: int = 150) -> Path:
    """Write a whole experiment folder and return it; the same numbers every time."""
    rng = random.Random(0)
    _json(folder / "config.resolved.json", _config(title))
    for name, gates in _gates().items():
        stage = folder / "lineage" / name
        _json(stage / "gates.json", gates)
        _json(stage / "provenance.json", {"kind": name, "content_hash": name * 8, "parent": None})
        value = "reward" if name == "rlvr" else "accuracy"
        curve = [3.5 * math.exp(-step / 60) + 0.4 for step in range(1, 201)]
        rows = [
            {"step": index, "loss": loss, value: 1 - loss / 4} for index, loss in enumerate(curve, start=1)
        ]
        _lines(stage / "metrics.jsonl", rows)
    for index, name in enumerate(RUNS):
        run = folder / "runs" / name
        _lines(run / "metrics.jsonl", [_log(step, index, rng) for step in range(1, steps + 1)])
        _json(run / "manifest.json", {"versions": {"torch": "2.13.0"}, "seed": RUNS[name][1]})
        for step, scores in (
            (0, (0.031, 0.012, 0.05)),
            (steps, (0.981 - index / 100, 0.41 + index / 50, 0.301)),
        ):
            _json(run / "evaluation" / f"step-{step:06d}" / "scores.json", _scores(name, step, scores))
    _json(folder / "evaluation" / "bm25" / "scores.json", _scores("bm25", None, (0.702, 0.355, 0.349)))
    _json(
        folder / "evaluation" / "untrained" / "scores.json", _scores("untrained", None, (0.044, 0.009, 0.021))
    )
    for name, (a, b, attention, cka) in PAIRS.items():
        _json(folder / "hrsa" / "pairs" / f"{name}.json", _pair(name, a, b, attention, cka))
    for name in ("base", "sft", "rlvr"):
        _json(folder / "hrsa" / "realignment" / f"{name}.json", _track(name))
    return folder


def write_scored_runs(
    folder: Path,
    backbones: dict[str, tuple[int, ...]],
    tasks: dict[str, str],
    *,
    gains: dict[str, float] | None = None,
    readouts: dict[str, float] | None = None,
    queries: int = 40,
) -> Path:
    """Write an experiment of runs with scores and single-query scores only: all that a score table reads.

    Parameters
    ----------
    backbones : dict
        Backbone -> seeds; a run is named ``<backbone>-<seed>``.
    tasks : dict
        Task -> type.
    gains : dict, optional
        Backbone -> what it scores above the first one on average, as a fraction.
    readouts : dict, optional
        Readout -> what it scores above the first one; a run is then named ``<backbone>-<readout>-<seed>``.
    """
    runs = [
        {"name": f"{name}-{seed}", "backbone": name, "seed": seed}
        for name in backbones
        for seed in backbones[name]
    ]
    if readouts:
        runs = [
            run | {"name": f"{run['backbone']}-{readout}-{run['seed']}", "readout": readout}
            for run in runs
            for readout in readouts
        ]
    _json(folder / "config.resolved.json", {"kind": "experiment", "name": folder.name, "runs": runs})
    for run in runs:
        step = folder / "runs" / run["name"] / "evaluation" / "step-000100"
        entries = []
        for task, kind in tasks.items():
            ease, noise = random.Random(task), random.Random(f"{task} {run['name']}")
            scores = {}
            for index in range(queries):
                gain = (gains or {}).get(run["backbone"], 0.0) + (readouts or {}).get(run.get("readout"), 0.0)
                scores[f"q{index}"] = 0.2 + 0.5 * ease.random() + gain + 0.02 * noise.random()
            entries.append({"task": task, "type": kind, "main_score": sum(scores.values()) / queries})
            _json(step / "per_query" / f"{task}.json", {"metric": "ndcg_at_10", "scores": scores})
        settings = {"max_tokens": 512, "query_template": "Instruct: {instruction}\nQuery: "}
        record = {"model": run["name"], "revision": "r", "step": 100, "tasks": entries, "failed": []}
        _json(step / "scores.json", record | {"settings": settings})
    return folder


def _gates() -> dict[str, dict]:
    def measured(form: str, *values: float) -> dict:
        gates = zip(("sampled_accuracy", "greedy_accuracy", "pass_at_8"), values, strict=True)
        return {"format": form, "prompts": 256} | dict(gates)

    needs = {"sampled_accuracy": 0.3, "greedy_accuracy": 0.9, "pass_at_8": 0.5}
    return {
        "base": {
            "thresholds": needs,
            "measured": measured("direct", 0.52, 0.99, 0.97),
            "other_format": measured("worked", 0.0, 0.0, 0.0),
        },
        "sft": {
            "thresholds": {},
            "measured": measured("worked", 1.0, 1.0, 1.0),
            "other_format": measured("direct", 0.0, 0.001, 0.002),
        },
        "rlvr": {
            "thresholds": needs | {"sampled_accuracy": 0.97},
            "measured": measured("direct", 0.955, 0.991, 0.998),
            "other_format": measured("worked", 0.0, 0.0, 0.0),
        },
    }


def _config(title: str) -> dict:
    return {
        "kind": "experiment",
        "name": "synthetic",
        "title": title,
        "lineage": {
            "stages": [
                {"name": "base", "kind": "pretrain"},
                {"name": "sft", "kind": "sft", "parent": "base"},
                {
                    "name": "rlvr",
                    "kind": "rlvr",
                    "parent": "base",
                },
            ]
        },
        "runs": [{"name": name, "backbone": stage, "seed": seed} for name, (stage, seed) in RUNS.items()],
        "evaluation": {"baselines": ["bm25", "untrained"]},
        "analysis": {
            "pairs": [{"name": name, "a": a, "b": b} for name, (a, b, *_) in PAIRS.items()],
            "realignment": [
                {"name": name, "run": name, "against": "first"} for name in ("base", "sft", "rlvr")
            ],
            "seed_band": "base-emb-seeds",
        },
    }


def _log(step: int, index: int, rng: random.Random) -> dict:
    loss = (2.9 + 0.3 * index) * math.exp(-step / 25) + 0.02 + 0.05 * rng.random()
    return {
        "step": step,
        "loss": loss,
        "accuracy": 1 - min(1.0, loss / 3.2),
        "learning_rate": 5e-4 * 0.5 * (1 + math.cos(math.pi * step / 150)),
        "grad_norm": loss + rng.random(),
        "tokens": 1100,
        "tokens_per_second": 9000 + 400 * rng.random(),
        "queries_per_second": 370.0,
        "padding_efficiency": 1.0,
        "source": "world",
        "seconds": 0.12,
        "peak_memory_gib": None,
    }


def _scores(model: str, step: int | None, values: tuple[float, ...]) -> dict:
    tasks = []
    for task, value in zip(TASKS, values, strict=True):
        metrics = {"recall_at_10": min(1.0, value * 1.2), "recall_at_100": min(1.0, value * 1.5)}
        metrics |= {"mrr_at_10": value * 0.9, "recall_at_1": value * 0.7}
        extra = {"instruction": "find the answer", "seconds": 1.5}
        tasks.append({"task": task, "main_score": value, "ndcg_at_10": value, **metrics, **extra})
    return {"model": model, "revision": "r", "step": step, "tasks": tasks, "failed": [], "settings": {}}


def _model(reference: str, attention: str) -> dict:
    return {
        "reference": reference,
        "path": reference,
        "content_hash": "0",
        "attention": attention,
        "dimension": 96,
        "layers": 4,
    }


def _pair(name: str, a: str, b: str, attention: str, cka: float) -> dict:
    last = {metric: round(cka - 0.02 * index, 4) for index, metric in enumerate(METRICS)}
    last |= {"cka": cka, "procrustes_residual": round(1 - cka, 4)}
    count = range(len(LAYERS))
    decay = [[round(cka ** (1 + abs(row - column)), 4) for column in count] for row in count]
    spectrum = {
        "rankme_sigma": 61.2,
        "rankme_lambda": 12.5,
        "alpha": 1.12,
        "alpha_r2": 0.98,
        "alpha_range": [12, 90],
    }
    return {
        "name": name,
        "a": _model(a, attention),
        "b": _model(b, attention),
        "probe": PROBE,
        "layers_a": LAYERS,
        "layers_b": LAYERS,
        "heatmaps": dict.fromkeys(("dimension_correlation", "cka", "knn_jaccard@10"), decay),
        "diagonal": {
            metric: [round(value + (1 - value) * (5 - i) / 6, 4) for i in count]
            for metric, value in last.items()
        },
        "last": last,
        "intervals": {m: [round(last[m] - 0.012, 4), round(last[m] + 0.009, 4)] for m in INTERVALS},
        "chance": METRICS,
        "definitions": {
            "cka": "Linear CKA of centred rows.",
            "knn_jaccard@10": "Cosine top-10 without self, Jaccard.",
        },
        "probe_transfer": {
            "classes": 5,
            "n": 65,
            "own_a": 0.99,
            "own_b": 0.98,
            "a_to_b": cka,
            "b_to_a": cka - 0.01,
            "gap_ab": 0.99 - cka,
            "gap_ba": 0.98 - cka,
            "chance": 0.2,
            "permuted_control": 0.21,
        },
        "spectrum": {side: spectrum | {"n": 192, "features": "mean"} for side in ("a", "b")},
        "warnings": ["1840 rows for 96 dimensions"] if name == "lm-base-sft" else [],
    }


def _track(run: str) -> dict:
    floor = {"base": 0.80, "sft": 0.55, "rlvr": 0.78}[run]
    values = [1 - (1 - floor) * (1 - math.exp(-step / 12)) + (0.1 if step > 60 else 0.0) for step in STEPS]
    return {
        "name": run,
        "run": run,
        "against": _model(f"run:{run}@first", "bidirectional"),
        "probe": PROBE,
        "steps": list(STEPS),
        "series": {
            metric: [round(value - 0.01 * i, 4) for value in values] for i, metric in enumerate(METRICS)
        },
        "series_mean": {metric: [round((1 + value) / 2, 4) for value in values] for metric in METRICS},
        "spectrum": {
            "features": "mean",
            "rankme_sigma": [40 + step / 5 for step in STEPS],
            "alpha": [1.3 - step / 500 for step in STEPS],
        },
        "intervals": {
            metric: [[round(value - 0.01, 4), round(value + 0.01, 4)] for value in values]
            if metric in INTERVALS
            else [None] * len(STEPS)
            for metric in METRICS
        },
        "layers": LAYERS,
        "series_layers": {
            metric: [
                [round(value + (1 - value) * (5 - i) / 6, 4) for i in range(len(LAYERS))] for value in values
            ]
            for metric in METRICS
        },
        "chance": METRICS,
        "definitions": {"cka": "Linear CKA of centred rows."},
        "warnings": [],
    }


def _json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
