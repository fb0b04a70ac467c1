"""What a sweep's page knows: runs with what they measured, and points with their seeds together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.special import stdtrit

from reasoning_embedding.files import read_json
from reasoning_embedding.hrsa.uncertainty.equivalence import ALPHA
from reasoning_embedding.hrsa.uncertainty.seed_band import mean_std

if TYPE_CHECKING:
    from reasoning_embedding.config import SweepConfig
    from reasoning_embedding.sweeps.ledger import Outcome

#: Key whose values are repetitions, not choices.
SEED = "seed"


@dataclass(frozen=True)
class Group:
    """Finished runs of one point that differ in their seed only."""

    point: dict[str, Any]
    values: dict[int, float]
    """Value by seed."""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return mean_std(list(self.values.values()))[0]

    @property
    def half_width(self) -> float | None:
        """Half of the t interval of the mean; None for one seed."""
        return half_width(list(self.values.values()))


@dataclass(frozen=True)
class SweepRecord:
    """What a sweep's page shows."""

    name: str
    title: str
    metric: str
    less_is_better: bool
    outcomes: tuple[Outcome, ...]

    @property
    def keys(self) -> list[str]:
        """Keys that vary, in the order of the sweep."""
        return list(dict.fromkeys(key for outcome in self.outcomes for key in outcome.run.point))

    @property
    def measured(self) -> list[Outcome]:
        """Finished runs with a value, the best first."""
        found = [outcome for outcome in self.outcomes if outcome.value is not None]
        return sorted(found, key=lambda outcome: self.rank(value_of(outcome)))

    @property
    def groups(self) -> list[Group]:
        """Points with the values of their seeds, the best mean first."""
        found: dict[str, Group] = {}
        for outcome in self.measured:
            point = {key: value for key, value in outcome.run.point.items() if key != SEED}
            group = found.setdefault(json.dumps(point, sort_keys=True), Group(point, {}))
            group.values[outcome.run.config.seed] = value_of(outcome)
        return sorted(found.values(), key=lambda group: self.rank(group.mean))

    def rank(self, value: float) -> float:
        """Sorts better values first."""
        return value if self.less_is_better else -value


def read_sweep(folder: Path) -> SweepRecord:
    """Read a sweep's folder.

    Raises
    ------
    InputError
        If no sweep lies there, or a file of it is damaged.
    """
    from reasoning_embedding.config.sweep import SweepConfig
    from reasoning_embedding.sweeps.ledger import SweepLedger

    ledger = SweepLedger(folder)
    runs = ledger.runs()
    sweep = SweepConfig.model_validate(read_json(folder / "config.resolved.json"))
    outcomes = tuple(ledger.outcome(sweep, run) for run in runs)
    return SweepRecord(
        sweep.name, sweep.title or sweep.name, metric_name(sweep), sweep.less_is_better, outcomes
    )


def metric_name(sweep: SweepConfig) -> str:
    """What the runs of a sweep are compared by."""
    evaluation = sweep.base.evaluation
    return sweep.metric or (f"best score ({evaluation.select})" if evaluation is not None else "loss")


def half_width(values: Sequence[float]) -> float | None:
    """Half of the two-sided t interval of a mean, of 1 - :data:`.equivalence.ALPHA`; None for one value.

    Notes
    -----
    ``t(n - 1, 1 - alpha / 2) s / sqrt(n)`` with ``s`` the sample standard deviation.
    """
    _, spread = mean_std(values)
    if spread is None:
        return None
    return float(stdtrit(len(values) - 1, 1 - ALPHA / 2)) * spread / math.sqrt(len(values))


def value_of(outcome: Outcome) -> float:
    """Value of a run that has one."""
    assert outcome.value is not None
    return outcome.value
