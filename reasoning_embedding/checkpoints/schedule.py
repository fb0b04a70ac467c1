"""Which steps become checkpoints."""

from __future__ import annotations

from reasoning_embedding import config


def checkpoint_steps(checkpoints: config.Checkpoints, steps: int) -> list[int]:
    """Steps to keep: 0, powers of two below ``every`` if asked for, every N, and the last."""
    kept = {0, steps, *range(checkpoints.every, steps + 1, checkpoints.every)}
    power = 1
    while checkpoints.log_spaced and power < min(checkpoints.every, steps):
        kept.add(power)
        power *= 2
    return sorted(kept)
