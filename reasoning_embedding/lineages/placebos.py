"""Placebos: stages that take the same steps as their twin and learn nothing that it teaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerState

from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json_lines

#: Keep the draws of a placebo apart from those of other parts that share its seed.
_REWARDS, _ROWS = 21, 22


class RandomReward:
    """A reward that knows nothing of completion or answer, in the form trl calls.

    At every step it is live, that is different within the samples of a prompt, for as many prompts as the twin's reward
    was at the same step: both take equally many updates that have a policy gradient, at the same times.

    Parameters
    ----------
    live : mapping of int to float
        Step (from 1) -> share of prompts whose samples were rewarded differently, in [0, 1], of the twin.
    samples : int
        Completions a prompt.
    seed : int
        With the step it decides all rewards.
    world : World
        Ranks; each takes its part of one draw for all.
    """

    __name__ = "random"

    def __init__(self, live: dict[int, float], samples: int, seed: int, world: World) -> None:
        self._live, self._samples, self._seed, self._world = live, samples, seed, world

    def __call__(self, completions: list[Any], *, trainer_state: TrainerState, **_: Any) -> list[float]:
        """Return 0 or 1 for every completion of this rank.

        Raises
        ------
        InputError
            If the twin did not take this step.
        """
        step = trainer_state.global_step + 1
        if step not in self._live:
            raise InputError(f"its twin took no step {step}", todo="grow both anew")
        count = len(completions) * self._world.size
        rewards = random_rewards(count // self._samples, self._samples, self._live[step], [self._seed, step])
        start = self._world.rank * len(completions)
        return rewards.ravel()[start : start + len(completions)].tolist()


def random_rewards(groups: int, samples: int, live: float, seed: Sequence[int]) -> np.ndarray:
    """Draw rewards by coin: different within ``round(live * groups)`` groups, alike within the others.

    Parameters
    ----------
    groups, samples : int
        Prompts, and completions a prompt (>= 2).
    live : float
        Share of live groups, in [0, 1].
    seed : sequence of int
        Equal seeds draw equal rewards.

    Returns
    -------
    array of shape (groups, samples)
        Zeros and ones.

    Examples
    --------
    >>> rewards = random_rewards(4, 8, 0.5, [0, 1])
    >>> int((rewards.std(axis=1) > 0).sum())
    2
    """
    rng = np.random.default_rng([*seed, _REWARDS])
    rewards = np.repeat(rng.integers(2, size=(groups, 1)), samples, axis=1).astype(float)
    for group in rng.permutation(groups)[: round(live * groups)]:
        while rewards[group].std() == 0:
            rewards[group] = rng.integers(2, size=samples)
    return rewards


def live_shares(twin: Path) -> dict[int, float]:
    """Read from the log of a stage the share of live groups at every step."""
    return {int(line["step"]): float(line["live_groups"]) for line in read_json_lines(twin / "metrics.jsonl")}


def other_rows(count: int, seed: int) -> np.ndarray:
    """Return for each of `count` rows another row, whose answer it is given; every row is taken once.

    Raises
    ------
    InputError
        If there are fewer than two rows.

    Examples
    --------
    >>> found = other_rows(5, 0)
    >>> sorted(found.tolist()), bool((found == range(5)).any())
    ([0, 1, 2, 3, 4], False)
    """
    if count < 2:
        raise InputError("one row has no other to take its answer from", todo="name more rows")
    order = np.random.default_rng([seed, _ROWS]).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found


def swapped(count: int, seed: int) -> np.ndarray:
    """Return a coin for each of `count` preferences: whether chosen and rejected change places."""
    return np.random.default_rng([seed, _ROWS]).random(count) < 0.5
