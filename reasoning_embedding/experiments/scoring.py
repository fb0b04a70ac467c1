"""The light evaluation of a run while it trains."""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_embedding import config
from reasoning_embedding.checkpoints import step_name
from reasoning_embedding.errors import ReasoningEmbeddingError

if TYPE_CHECKING:
    from reasoning_embedding.backbones import Embedder
    from reasoning_embedding.distributed import World
    from reasoning_embedding.training import Score

#: Facts about a task, not scores of it.
_NO_SCORES = {
    "main_score",
    "seconds",
    "queries",
    "documents",
    "unjudged",
    "pairs",
    "train",
    "test",
    "classes",
}


def training_score(settings: config.RunConfig, report: Callable[[str], None]) -> Score | None:
    """Return what scores a run's live model on its own tasks, or None where it has none.

    Parameters
    ----------
    settings : config.RunConfig
        The run.
    report : callable
        Takes a line for a task that fails.

    Notes
    -----
    Nothing is kept between two calls: the weights have changed, so an old score or embedding would be wrong.
    """
    if (section := settings.evaluation) is None:
        return None
    evaluation = config.Evaluation(
        tasks=section.tasks,
        max_tokens=section.max_tokens,
        pack_tokens=section.pack_tokens,
        cache_embeddings=False,
    )

    def score(embedder: Embedder, step: int, world: World) -> dict[str, float]:
        from reasoning_embedding.evaluation.run import evaluate

        with tempfile.TemporaryDirectory(prefix="reasoning-embedding-") as folder:
            found = evaluate(
                embedder,
                evaluation.tasks,
                Path(folder),
                model_name=settings.name,
                revision=f"{step_name(step)}-live-{uuid.uuid4().hex}",
                step=step,
                settings=evaluation,
                query_template=settings.data.query_template,
                world=world,
            )
        failed = [f"{entry['task']}: {entry['error']}" for entry in found["failed"]]
        if failed and step == 0:
            raise ReasoningEmbeddingError("\n".join(["tasks failed before training", *failed]))
        for line in failed if world.is_main else ():
            report(f"step {step}: evaluation failed, {line}")
        return _scores(found)

    return score


def _scores(found: dict) -> dict[str, float]:
    """Main scores by task, their mean where no task failed, and other metrics that are numbers as ``TASK:METRIC``."""
    entries = found["tasks"]
    scores = {entry["task"]: float(entry["main_score"]) for entry in entries}
    if not found["failed"]:
        scores["mean"] = sum(scores.values()) / len(scores)
    for entry in entries:
        scores |= {
            f"{entry['task']}:{metric}": float(value)
            for metric, value in entry.items()
            if metric not in _NO_SCORES and isinstance(value, int | float) and math.isfinite(value)
        }
    return scores
