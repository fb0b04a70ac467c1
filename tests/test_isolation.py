"""Random states, threads and the screen are left as they were found."""

from __future__ import annotations

import contextlib
import os
import random
import warnings

import datasets
import numpy as np
import pytest
import torch
from transformers.utils import logging

from reasoning_embedding.isolation import (
    parallel_tokenizers,
    quiet_libraries,
    same_random_state,
    serial_tokenizers,
    threads,
)


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def _seed() -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


@pytest.mark.parametrize("fails", [False, True])
def test_no_random_state_moves_within_the_block(fails: bool) -> None:
    with same_random_state():  # those of the tests that follow
        _seed()
        expected = _draw()
        _seed()
        with contextlib.suppress(RuntimeError), same_random_state():
            inside = _draw()
            if fails:
                raise RuntimeError
        assert inside == expected
        assert _draw() == expected
        assert _draw() != expected, "the control: a draw moves the states"


def test_threads_count_within_the_block_only() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_libraries_are_quiet_within_the_block_only() -> None:
    def state() -> tuple[bool, bool, int]:
        return (
            datasets.is_progress_bar_enabled(),
            logging.is_progress_bar_enabled(),
            logging.get_verbosity(),
        )

    before = state()
    datasets.enable_progress_bars()
    logging.enable_progress_bar()
    logging.set_verbosity_info()
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with quiet_libraries():
                assert state() == (False, False, logging.ERROR)
                warnings.warn("gradient_checkpointing is an old name", FutureWarning, stacklevel=1)
                warnings.warn("something new", FutureWarning, stacklevel=1)
        assert [str(warning.message) for warning in seen] == ["something new"]
        assert state() == (True, True, logging.INFO)
    finally:
        (datasets.enable_progress_bars if before[0] else datasets.disable_progress_bars)()
        (logging.enable_progress_bar if before[1] else logging.disable_progress_bar)()
        logging.set_verbosity(before[2])


@pytest.mark.parametrize(("before", "within"), [(None, "true"), ("false", "false"), ("true", "true")])
def test_tokenizers_use_all_cores_within_the_block_unless_a_user_said_otherwise(
    before: str | None, within: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", before or "")
    if before is None:
        monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    serial_tokenizers()
    after = os.environ["TOKENIZERS_PARALLELISM"]
    with parallel_tokenizers():
        assert os.environ["TOKENIZERS_PARALLELISM"] == within
    assert os.environ["TOKENIZERS_PARALLELISM"] == after == (before or "off")
