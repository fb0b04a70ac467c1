"""What a piece of work must leave as it found it: random states, threads, the screen."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import warnings
from collections.abc import Generator


@contextlib.contextmanager
def same_random_state() -> Generator[None]:
    """Undo what is done to any global random state of Python, NumPy and torch within the block.

    mteb seeds them all when a task is made: without this, evaluating amid a training run would change the run.
    """
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    # A process computes on one GPU; the states of the others would cost memory on each.
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def threads(count: int | None) -> Generator[None]:
    """Compute with `count` threads, in torch and in NumPy's BLAS; None leaves both as they are."""
    if count is None:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


#: What :func:`serial_tokenizers` sets: to tokenizers another word for false, to us the sign that no user chose it.
SERIAL = "off"


def serial_tokenizers() -> None:
    """Keep tokenizers in one thread, unless the environment says otherwise: they warn when a process forks later."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", SERIAL)


@contextlib.contextmanager
def parallel_tokenizers() -> Generator[None]:
    """Let tokenizers use every core within the block, where :func:`serial_tokenizers` alone forbade it.

    ``RAYON_NUM_THREADS`` limits them. A process that forks afterwards finds one thread again, so that no child waits
    for threads that it does not have.
    """
    if os.environ.get("TOKENIZERS_PARALLELISM") != SERIAL:
        yield
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = SERIAL


def quiet_deepspeed() -> None:
    """Keep DeepSpeed, which transformers imports where it is installed, from writing about the machine to stdout."""
    logging.getLogger("DeepSpeed").addFilter(_serious)


def _serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextlib.contextmanager
def quiet_libraries() -> Generator[None]:
    """Keep bars of datasets and transformers, and notes on loaded weights, off the screen; we tell progress in lines."""
    import datasets
    from transformers.utils import logging as notes

    bars = datasets.is_progress_bar_enabled(), notes.is_progress_bar_enabled()
    level = notes.get_verbosity()
    datasets.disable_progress_bars()
    notes.disable_progress_bar()
    notes.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # trl still uses names of arguments that transformers has replaced.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        notes.set_verbosity(level)
        if bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            notes.enable_progress_bar()
