"""What an evaluation must leave as it found it: random states, threads, the screen."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator

import datasets
import numpy as np
import torch


@contextlib.contextmanager
def same_random_state() -> Generator[None]:
    """Undo what mteb does to every global random state: constructing a task seeds them all.

    Without this, evaluating amid a training run would change the run.
    """
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def threads(count: int | None) -> Generator[None]:
    """Compute with `count` threads; None leaves the number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep the bars of the datasets library off the screen; progress is told in lines."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
