"""Pre-training: a compact loop over fixed-width rows that a killed process takes up where it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.backbones import compute_dtype
from reasoning_embedding.backbones.architecture import build_config
from reasoning_embedding.checkpoints.state import load_state, read_record, save_state
from reasoning_embedding.config.lineage import PretrainStage
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError, TrainingError
from reasoning_embedding.progress import Report, Throttle

from .corpus import open_stream
from .cross_entropy import linear_cross_entropy
from .step_checkpoints import require_stage_space

#: Seconds between progress lines and between saved states.
SECONDS_A_LINE, SECONDS_A_STATE = 4.0, 60.0
_FLOOR = 0.1
_CLIP = 1.0


def learning_rate(stage: PretrainStage, step: int) -> float:
    """Return the rate of a step (from 1): linear warm-up, then a cosine that ends at a tenth."""
    warmup = max(1, round(stage.warmup_ratio * stage.steps))
    if step <= warmup:
        return stage.learning_rate * step / warmup
    done = (step - warmup) / max(1, stage.steps - warmup)
    return stage.learning_rate * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))


def new_model(stage: PretrainStage, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return the stage's decoder, fp32, with random weights drawn from the stage's seed."""
    config = build_config(stage.architecture, len(tokenizer), tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


@dataclass
class _State:
    """What a step changes: weights, moments, the steps done, the log so far."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    step: int
    log: list[dict[str, Any]]

    def save(self, folder: Path, settings: str) -> None:
        record = {"settings": settings, "step": self.step, "log": self.log}
        save_state(folder, self.model, self.optimizer, parameters=True, **record)

    def load(self, folder: Path, settings: str) -> None:
        if not folder.exists() or read_record(folder)["settings"] != settings:
            return
        record = load_state(folder, self.model, self.optimizer)
        self.step, self.log = record["step"], record["log"]


def _groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def pretrain(
    stage: PretrainStage,
    tokenizer: PreTrainedTokenizerBase,
    state: Path,
    settings: str,
    report: Report,
    *,
    save_step: Callable[[int, PreTrainedModel], None] = lambda step, model: None,
    world: World | None = None,
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Train a decoder from random weights on its corpus.

    Parameters
    ----------
    stage : PretrainStage
        Architecture, corpus, optimiser.
    tokenizer : PreTrainedTokenizerBase
        The lineage's.
    state : Path
        Folder of the resumable state; removed by the caller once the result is safe.
    settings : str
        Hash that a state must carry to be taken up: another setting starts anew.
    report : callable
        Takes a progress line every few seconds.
    save_step : callable
        Takes every step's number, from 0, and the model.
    world : World, optional
        Ranks that share the rows of a step; all of them call.

    Returns
    -------
    tuple
        The model and the log: one object a step with step, loss, learning_rate, grad_norm, tokens.

    Raises
    ------
    InputError
        When the ranks cannot share a step's rows evenly.
    TrainingError
        When the loss is no longer finite.

    Notes
    -----
    Rows depend on (seed, step) alone and nothing else is random, so a run that was killed and taken
    up again gives the same bits as one that was not.
    """
    world = world or World()
    if stage.batch_size % world.size:
        raise InputError(
            f"{world.size} ranks cannot share {stage.batch_size} rows",
            where=f"stage {stage.name}",
            todo="choose a batch_size that is a multiple of the number of ranks",
        )
    stream = open_stream(stage, tokenizer)
    model: PreTrainedModel = new_model(stage, tokenizer).to(world.device).train()
    require_stage_space(state, model)
    optimizer = torch.optim.AdamW(
        _groups(model, stage.weight_decay), lr=stage.learning_rate, betas=stage.betas, fused=True
    )
    now = _State(model, optimizer, 0, [])
    now.load(state, settings)
    if now.step:
        report(f"resumed at step {now.step}/{stage.steps}")
    else:
        save_step(0, model)
    line, state_due, step_at_line = Throttle(SECONDS_A_LINE), Throttle(SECONDS_A_STATE), now.step
    tokens = stage.batch_size * stage.sequence_length
    while now.step < stage.steps:
        now.step += 1
        now.log.append(
            {"step": now.step, **_train_step(now, stage, stream.batch(now.step), world), "tokens": tokens}
        )
        save_step(now.step, model)
        elapsed = line.elapsed
        if line.is_due(last=now.step == stage.steps):
            speed = (now.step - step_at_line) * tokens / max(elapsed, 1e-9)
            loss = now.log[-1]["loss"]
            report(f"step {now.step}/{stage.steps} loss {loss:.3f} {speed / 1000:.1f}k tokens/s")
            step_at_line = now.step
        if world.is_main and now.step < stage.steps and state_due.is_due():
            now.save(state, settings)
    return model.eval(), now.log


def _train_step(now: _State, stage: PretrainStage, rows: np.ndarray, world: World) -> dict[str, float]:
    ids = torch.from_numpy(rows[world.rank :: world.size]).to(world.device)
    rate = learning_rate(stage, now.step)
    for group in now.optimizer.param_groups:
        group["lr"] = rate
    compute = compute_dtype(stage.precision, world.device)
    with torch.autocast(world.device.type, compute, enabled=compute is not None):
        hidden = now.model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    states = hidden.to(compute or torch.float32).flatten(0, 1)
    head = now.model.get_output_embeddings().weight
    loss = linear_cross_entropy(states, head, ids[:, 1:].flatten())
    loss.backward()
    loss = loss.detach()
    if world.size > 1:  # equal shares: the mean of the ranks' means is the mean
        for value in (loss, *(p.grad for p in now.model.parameters() if p.grad is not None)):
            dist.all_reduce(value.div_(world.size))
    norm = torch.nn.utils.clip_grad_norm_(now.model.parameters(), _CLIP, foreach=True)
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"the loss is {loss.item()}", where=f"step {now.step} of {stage.name}", todo="lower learning_rate"
        )
    now.optimizer.step()
    now.optimizer.zero_grad()
    return {"loss": loss.item(), "learning_rate": rate, "grad_norm": norm.item()}
