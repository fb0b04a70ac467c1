"""Scores of the live model while it trains, and the checkpoint they call best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.scores import read_best, scores_while_training, write_best
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.distributed import World, max_over_ranks
from reasoning_embedding.errors import InputError, TrainingError
from reasoning_embedding.isolation import same_random_state
from reasoning_embedding.progress import Report

#: (model, step, job) -> scores: ``TASK`` its main score, ``TASK:METRIC`` others, ``mean`` over the tasks.
#: All ranks call it together; what the main rank gets counts. A score that could not be had is left out.
Score = Callable[[Embedder, int, World], Mapping[str, float]]


class Selection:
    """Scores a run at chosen steps and remembers the best one in ``best.json``.

    Parameters
    ----------
    settings : config.TrainingEvaluation
        When to score, and which score decides.
    score : callable
        Scores the live model.
    run : RunFolder
        Where the metrics lie and ``best.json`` goes.
    world : World
        The job.
    steps : int
        Steps of the whole run; the last is always scored.
    report : callable
        Takes a line a scored step.
    """

    def __init__(
        self,
        settings: config.TrainingEvaluation,
        score: Score,
        run: RunFolder,
        world: World,
        *,
        steps: int,
        report: Report,
    ) -> None:
        self._settings, self._score, self._run, self._world = settings, score, run, world
        self._steps, self._report = steps, report
        self._best: tuple[float, int] | None = None

    def begin(self, embedder: Embedder, step: int = 0) -> dict[str, float]:
        """Score the step it starts at, before anything is written, so that a faulty task or name costs nothing.

        Parameters
        ----------
        embedder : Embedder
            The model.
        step : int
            0, or the step from which other tasks than before are scored.

        Returns
        -------
        dict
            The scores that are logged.

        Raises
        ------
        InputError
            If ``select`` is no score of these tasks.
        """
        scores = self._measure(embedder, step)
        select = self._settings.select
        if max_over_ranks(int(self._world.is_main and select not in scores), self._world):
            near = [name for name in scores if name.partition(":")[0] == select.partition(":")[0]]
            names = list(dict.fromkeys([*self._shown(scores), *near]))
            raise InputError(
                f"no score is named {select!r}{did_you_mean(select, list(scores))}",
                where="evaluation.select",
                todo=f"scores here: {', '.join(names)}; TASK:METRIC for a task's other metrics",
            )
        self._consider(step, scores)
        return self._shown(scores)

    def resume(self, start: int) -> None:
        """Find the best step up to `start` again, once the log is cut there; what came after it is trained anew."""
        self._best = None
        if not self._world.is_main:
            return
        self._best = best_so_far(self._run, self._settings.select, start, self._report)
        self.write()

    def due(self, step: int) -> bool:
        """Whether it is this step's turn: each ``every``-th, and the last."""
        return step % self._settings.every == 0 or step == self._steps

    def score(self, embedder: Embedder, step: int) -> tuple[dict[str, float], bool]:
        """Score a step.

        Returns
        -------
        scores : dict
            The scores that are logged.
        best : bool
            Whether it is the best step so far, on every rank: its checkpoint is to be kept.
        """
        scores = self._measure(embedder, step)
        best = self._world.is_main and self._consider(step, scores)
        chosen = scores.get(self._settings.select)
        if chosen is not None:
            mark = ", the best so far" if best else ""
            self._report(f"step {step}: {self._settings.select} {chosen:.4f}{mark}")
        return self._shown(scores), bool(max_over_ranks(int(best), self._world))

    def write(self) -> None:
        """Write the best step; its checkpoint must be on disk. Done on the main rank."""
        if self._best is not None and self._world.is_main:
            score, step = self._best
            write_best(self._run, step, score, self._settings.select)

    def _consider(self, step: int, scores: Mapping[str, float]) -> bool:
        """Take a step for the best one if it is; of equal ones the earlier stays."""
        value = scores.get(self._settings.select)
        if value is None or (self._best is not None and value <= self._best[0]):
            return False
        self._best = value, step
        return True

    def _measure(self, embedder: Embedder, step: int) -> dict[str, float]:
        was_training = embedder.training
        embedder.eval()
        try:
            with same_random_state(), torch.no_grad():  # the weights to come do not depend on being scored
                found = self._score(embedder, step, self._world)
        finally:
            embedder.train(was_training)
        scores = {name: float(value) for name, value in found.items()}
        if bad := [name for name, value in scores.items() if not math.isfinite(value)]:
            raise TrainingError(f"the score {bad[0]!r} is {scores[bad[0]]}", where=f"step {step}")
        return scores

    def _shown(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Main scores and what selects; the rest would make every line of the metrics long."""
        return {
            name: value for name, value in scores.items() if ":" not in name or name == self._settings.select
        }


def best_so_far(run: RunFolder, select: str, until: int, report: Report) -> tuple[float, int] | None:
    """Return the best score up to a step, and its step; None where there is none.

    Parameters
    ----------
    run : RunFolder
        Whose log and ``best.json`` are read: a line of the log that was damaged may have held the best score.
    select : str
        Which score counts.
    until : int
        The last step that counts.
    report : callable
        Told where ``best.json`` is damaged.
    """
    found = {step: scores[select] for step, scores in scores_while_training(run).items() if select in scores}
    try:
        best = read_best(run)
        if best is not None and best.get("select") == select and "score" in best:
            found.setdefault(best["step"], best["score"])
    except InputError as error:
        report(f"{error.where}: {error.what}; it is written anew from {run.metrics.name}")
    among = [step for step in sorted(found) if step <= until]
    if not among:
        return None
    step = max(among, key=found.__getitem__)  # of equal ones the earlier
    return found[step], step
