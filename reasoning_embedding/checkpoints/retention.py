"""Which steps are saved, and which states are kept."""

from __future__ import annotations

import shutil

from reasoning_embedding import config
from reasoning_embedding.files import PARTIAL, remove_folder

from .layout import RunFolder


def checkpoint_steps(checkpoints: config.Checkpoints, steps: int) -> list[int]:
    """Steps to keep: 0, powers of two below ``every`` if asked for, every N, and the last."""
    kept = {0, steps, *range(checkpoints.every, steps + 1, checkpoints.every)}
    power = 1
    while checkpoints.log_spaced and power < min(checkpoints.every, steps):
        kept.add(power)
        power *= 2
    return sorted(kept)


def prune_states(run: RunFolder, keep: int, *, newest: int) -> None:
    """Delete all but the newest `keep` states, and what a killed process left of others; checkpoints stay.

    States after step `newest` do not count: a run that fell back has yet to reach them again.
    """
    for step in [step for step in run.state_steps() if step <= newest][:-keep]:
        remove_folder(run.state(step))
    for left in run.states.glob(f".*{PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)
