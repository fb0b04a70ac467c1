"""Text embedders grown from decoder language models: train, track, compare.

What a program needs is here, and is imported when it is asked for; ``docs/python.md`` shows it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        EmbeddingModel,
        MinedRows,
        PublishedModel,
        Rows,
        TrainedRun,
        analyze,
        evaluate,
        experiment,
        grow,
        load,
        merge,
        mine,
        publish,
        sweep,
        track,
        train,
    )
    from .sweeps.sweep import SweepError, SweepResult
    from .training.callbacks import CheckpointInfo, StepInfo, StopTraining

__version__ = "0.1.0"

#: Name -> module that has it.
_LAZY = {
    "CheckpointInfo": "training.callbacks",
    "EmbeddingModel": "api",
    "MinedRows": "api",
    "PublishedModel": "api",
    "Rows": "api",
    "StepInfo": "training.callbacks",
    "StopTraining": "training.callbacks",
    "SweepError": "sweeps.sweep",
    "SweepResult": "sweeps.sweep",
    "TrainedRun": "api",
    "analyze": "api",
    "evaluate": "api",
    "experiment": "api",
    "grow": "api",
    "load": "api",
    "merge": "api",
    "mine": "api",
    "publish": "api",
    "sweep": "api",
    "track": "api",
    "train": "api",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    """Import what is asked for by name."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    """Names that are there, imported or not."""
    return sorted({*globals(), *_LAZY})
