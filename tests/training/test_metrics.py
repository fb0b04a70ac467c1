"""What a step's record says: rates, utilisation, balance and time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.losses import build_loss
from reasoning_embedding.planning.shapes import decoder_shape, training_flops
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training.metrics import Metrics, Throughput
from reasoning_embedding.training.step import StepOutput
from reasoning_embedding.training.timers import Timers
from tests.factories import random_batch, run_config
from tests.models import tiny_embedder

LOSS = build_loss(config.InfoNCE(temperature=0.05))
TIMES = {"forward": 1.0, "backward": 2.5, "other": 0.5, "save": 7.0, "evaluation": 9.0}


def _settings(**logging: Any) -> config.RunConfig:
    return run_config(data={"sources": [{"kind": "world", "name": "world"}]}, logging=logging)


def _output(tokens: int) -> StepOutput:
    return StepOutput(loss=1.0, accuracy=0.5, tokens=tokens, computed_tokens=2 * tokens, imbalance=0.01)


def test_rates_are_over_the_step_alone() -> None:
    batch = random_batch()
    tokens = int(batch.lengths.sum())
    record = Throughput(tiny_embedder(), _settings(), World()).of(batch, _output(tokens), TIMES)
    assert record["seconds"] == 4.0
    assert record["tokens_per_second"] == tokens / 4
    assert record["queries_per_second"] == len(batch.query) / 4
    assert record["padding_efficiency"] == 0.5
    assert record["token_imbalance"] == 0.01
    assert record["time"] == TIMES
    assert record["mfu"] is None, "no published peak is known of a CPU"


def test_utilisation_is_of_the_peak_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, batch = tiny_embedder(), random_batch()
    lengths = batch.lengths
    flops = training_flops(decoder_shape(embedder.model.config), lengths.sum(), (lengths**2).sum())
    given = Throughput(embedder, _settings(peak_tflops=0.5), World(0, 4))
    output = _output(int(lengths.sum()))
    assert given.of(batch, output, TIMES)["mfu"] == pytest.approx(flops / 4 / (4 * 0.5e12))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr("reasoning_embedding.training.metrics.peak_memory_gib", lambda device: 1.0)
    known = Throughput(embedder, _settings(), World(device=torch.device("cuda")))
    assert known.of(batch, output, TIMES)["mfu"] == pytest.approx(flops / 4 / 989e12)


def test_a_step_is_timed_by_phase_and_counts_its_tokens() -> None:
    timers = Timers()
    with timers.active():
        output = contrastive_step(
            tiny_embedder(), random_batch(), LOSS, World(), pack_tokens=40, store_tokens=0
        )
    times = timers.take()
    assert set(times) == {"other", "forward", "communication", "loss", "backward"}
    assert all(seconds > 0 for seconds in times.values())
    assert output.computed_tokens == output.tokens == int(random_batch().lengths.sum())
    assert output.imbalance == 0


def test_ranks_report_the_whole_batch() -> None:
    def step(world: World) -> StepOutput:
        return contrastive_step(tiny_embedder(), random_batch(16), LOSS, world, pack_tokens=40)

    first, second = run_ranks(2, step)
    assert first == second
    assert first.computed_tokens == first.tokens == int(random_batch(16).lengths.sum())
    assert 0 <= first.imbalance < 0.02


def test_phases_reach_trackers_by_name(tmp_path: Path) -> None:
    seen: dict[str, float] = {}

    class Board:
        def log(self, values: Mapping[str, float], step: int) -> None:
            seen.update(values)

        def close(self) -> None:
            seen["closed"] = 1

    metrics = Metrics(RunFolder(tmp_path), steps=1, first=0, trackers=[Board()], report=lambda line: None)
    metrics.write(
        {"step": 1, "loss": 2.0, "mfu": None, "time": {"forward": 0.1}, "evaluation": {"task": 0.3}}
    )
    metrics.close()
    assert seen == {"loss": 2.0, "time/forward": 0.1, "evaluation/task": 0.3, "closed": 1}
