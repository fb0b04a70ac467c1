"""What must agree before a run starts: the launcher, DeepSpeed's file, the data and the recipe."""

from __future__ import annotations

from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.data import Plan
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError
from reasoning_embedding.losses import check_anchor_texts

from .engines import Launch
from .engines.launch import PRECISION_SECTIONS

_AUTO = (None, "auto")


def check_launch(launch: Launch, training: config.Training, world: World) -> None:
    """Refuse a launch that contradicts the recipe, with every contradiction and both its values.

    Parameters
    ----------
    launch : Launch
        What the launcher asks for.
    training : config.Training
        The recipe.
    world : World
        The ranks that are connected.

    Raises
    ------
    InputError
        Listing each contradiction.
    """
    wrong = [*_ranks(training, world), *_precision(launch, training), *_engine(launch, training)]
    if launch.engine == "zero":
        wrong += _deepspeed(launch.deepspeed, training, world)
    if wrong:
        raise InputError(
            "\n  ".join(["the launcher and the run contradict each other:", *wrong]),
            where=launch.file or None,
            todo='let one of the two say it; in a DeepSpeed file "auto" leaves it to the run',
        )


def _ranks(training: config.Training, world: World) -> list[str]:
    if training.ranks in (None, world.size):
        return []
    return [f"the launcher started {world.size} ranks, training.ranks is {training.ranks}"]


def _precision(launch: Launch, training: config.Training) -> list[str]:
    if launch.precision in ("no", training.precision):
        return []
    return [
        f"the launcher's mixed_precision is {launch.precision}, training.precision is {training.precision}"
    ]


def _engine(launch: Launch, training: config.Training) -> list[str]:
    wrong = []
    if launch.engine != "replicated" and not isinstance(training.optimizer, config.AdamW):
        wrong.append(
            f"{launch.engine} cuts parameters into shards, training.optimizer is "
            f"{training.optimizer.kind}, which needs them whole"
        )
    if launch.recompute and not training.activation_checkpointing:
        wrong.append("fsdp_activation_checkpointing is true, training.activation_checkpointing is false")
    return wrong


def _deepspeed(settings: dict[str, Any], training: config.Training, world: World) -> list[str]:
    """Contradictions of a DeepSpeed file; ``file's key: value | run's key: value``."""
    ranks = world.size
    clipping = training.max_grad_norm or 0.0
    micro, total = settings.get("train_micro_batch_size_per_gpu"), settings.get("train_batch_size")
    wrong = []

    def differ(key: str, theirs: object, ours: str) -> None:
        wrong.append(f"{key} is {theirs}, {ours}")

    if total not in _AUTO and total != training.batch_size:
        differ("train_batch_size", total, f"training.batch_size is {training.batch_size}")
    if micro not in _AUTO and micro * ranks != training.batch_size:
        differ(
            "train_micro_batch_size_per_gpu",
            f"{micro} on each of {ranks} ranks",
            f"training.batch_size is {training.batch_size}",
        )
    if (steps := settings.get("gradient_accumulation_steps")) not in (*_AUTO, 1):
        differ(
            "gradient_accumulation_steps",
            steps,
            "a step of the run is one batch, cut by training.pack_tokens",
        )
    if (limit := settings.get("gradient_clipping")) not in _AUTO and limit != clipping:
        differ("gradient_clipping", limit, f"training.max_grad_norm is {training.max_grad_norm}")
    for section, ours in (
        (
            "optimizer",
            f"training.optimizer is {training.optimizer.kind}, learning_rate {training.learning_rate:g}",
        ),
        ("scheduler", f"training.schedule is {training.schedule}"),
    ):
        if settings.get(section) not in _AUTO:
            differ(section, settings[section].get("type", "given"), ours)
    for section in PRECISION_SECTIONS:
        if settings.get(section) not in _AUTO and settings[section].get("enabled") is True:
            differ(
                f"{section}.enabled",
                "true",
                f"training.precision is {training.precision} (weights and sums in fp32; leave the section out)",
            )
    if settings.get("communication_data_type") not in (*_AUTO, "fp32"):
        differ("communication_data_type", settings["communication_data_type"], "gradients are summed in fp32")
    return wrong


def check_budget(lengths: np.ndarray, pack_tokens: int) -> None:
    """Refuse a token budget below the longest text, which could not be kept; a step by itself would exceed it.

    Parameters
    ----------
    lengths : np.ndarray
        (n,) tokens of the training texts, cut to the run's limits.
    pack_tokens : int
        The budget.

    Raises
    ------
    InputError
        With the number of such texts and the smallest budget that holds them.
    """
    longer, longest = int((lengths > pack_tokens).sum()), int(lengths.max(initial=0))
    if longer:
        raise InputError(
            f"{longer:,} of {len(lengths):,} texts are longer than training.pack_tokens = {pack_tokens:,}",
            where="training.pack_tokens",
            todo=f"raise it to at least {longest:,}, or lower data.query_max_tokens and data.document_max_tokens",
        )


def check_anchor(anchor: config.Anchor | None, plan: Plan, batch_size: int) -> None:
    """Refuse batches of too few distinct texts for the CKA of ``loss.anchor``.

    Parameters
    ----------
    anchor : config.Anchor, optional
        The section.
    plan : Plan
        All batches of the run.
    batch_size : int
        Queries in each. Four are four texts, unless rows repeat each other; the loss itself refuses those.

    Raises
    ------
    InputError
        Naming the first such step.
    """
    if anchor is None or batch_size >= 4:
        return
    for step in range(1, plan.steps + 1):
        rows = plan.at(step)
        texts = np.unique(np.concatenate([rows.query, rows.positive, rows.negative]))
        check_anchor_texts(len(texts), debiased=anchor.debiased, batch=f"the batch of step {step}")
