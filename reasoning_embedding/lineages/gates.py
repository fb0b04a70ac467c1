"""Quality gates: how well a stage adds, what is recorded of it, and the error that stops a lineage that does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import (
    Gates,
    Lineage,
    SftStage,
    Stage,
    StageBase,
    WorldSums,
    WorldTokenizer,
)
from reasoning_embedding.data.miniature_world import sample_sums
from reasoning_embedding.errors import InputError, QualityGateError
from reasoning_embedding.files import read_json

#: File of what was measured of a stage.
GATES = "gates.json"
Format = Literal["direct", "worked"]
#: Sums a measurement asks for, and samples a sum.
PROMPTS, SAMPLES = 256, 8
#: Below this pass@8 of the parent hardly any group of samples holds both a right and a wrong answer.
RLVR_NEEDS = 0.5


@dataclass(frozen=True, slots=True)
class GateReport:
    """Accuracies on sums in one answer format, each the share of exact matches in [0, 1].

    Attributes
    ----------
    sampled_accuracy : float
        Mean over all samples at temperature 1.
    greedy_accuracy : float
        Of the most probable continuation, token by token.
    pass_at_8 : float
        Share of prompts that one of eight samples answers.
    """

    format: Format
    prompts: int
    sampled_accuracy: float
    greedy_accuracy: float
    pass_at_8: float


def encode_fixed(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return the (n, width) ids of texts that all have one width, so that none needs padding.

    Raises
    ------
    InputError
        If the tokenizer cuts them into different numbers of tokens.
    """
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    widths = {len(row) for row in ids}
    if len(widths) != 1:
        raise InputError(
            f"the tokenizer cuts sums into {min(widths)} to {max(widths)} tokens",
            where="tokenizer",
            todo="stages and gates on sums need one token a digit: use the tokenizer of kind world",
        )
    return torch.tensor(ids)


@torch.no_grad()
def complete(
    model: torch.nn.Module, prompts: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return the `count` next tokens of each prompt: greedy, or drawn at temperature 1.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model, called as those of transformers are.
    prompts : Tensor of shape (n, width)
        Token ids.
    count : int
        Tokens to add, > 0.
    generator : torch.Generator, optional
        Draws the tokens; greedy where absent.
    """
    out = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    tokens = []
    for position in range(count):
        logits = out.logits[:, -1].float()
        if generator is None:
            tokens.append(logits.argmax(-1, keepdim=True))
        else:
            tokens.append(torch.multinomial(logits.softmax(-1), 1, generator=generator))
        if position + 1 < count:
            out = model(input_ids=tokens[-1], past_key_values=out.past_key_values, use_cache=True)
    return torch.cat(tokens, dim=1)


def measure(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, *, form: Format = "direct", seed: int = 0
) -> GateReport:
    """Ask a model for sums and count the exact answers.

    Parameters
    ----------
    model, tokenizer
        A causal language model and its tokenizer.
    form : {"direct", "worked"}
        The format whose answers count.
    seed : int
        Chooses the sums and the samples.

    Raises
    ------
    InputError
        If sums do not have one width in tokens.
    """
    was_training = model.training
    model.eval()
    problems = sample_sums(np.random.default_rng([seed, 8]), PROMPTS)
    prompts = encode_fixed([problem.prompt for problem in problems], tokenizer)
    solutions = [problem.worked if form == "worked" else problem.answer for problem in problems]
    answers = encode_fixed(solutions, tokenizer)
    greedy = (complete(model, prompts, answers.shape[1]) == answers).all(1)
    generator = torch.Generator().manual_seed(seed)
    drawn = complete(model, prompts.repeat_interleave(SAMPLES, 0), answers.shape[1], generator)
    right = (drawn.view(PROMPTS, SAMPLES, -1) == answers[:, None]).all(2)
    model.train(was_training)
    return GateReport(
        form,
        PROMPTS,
        right.float().mean().item(),
        greedy.float().mean().item(),
        right.any(1).float().mean().item(),
    )


def check_gates(stage: StageBase, measured: Mapping[str, Any]) -> None:
    """Stop when a stage misses one of its thresholds.

    Parameters
    ----------
    stage : StageBase
        Its ``gates`` are the thresholds.
    measured : mapping
        Fields of a :class:`GateReport`, as ``gates.json`` records them.

    Raises
    ------
    QualityGateError
        Naming each value that was missed, its threshold, the stage and what to do.
    """
    missed = [
        f"{name} is {measured[name]:.3f}, the gate asks for {threshold:.3f}"
        for name in Gates.model_fields
        if (threshold := getattr(stage.gates, name)) is not None and measured[name] < threshold
    ]
    if missed:
        raise QualityGateError(
            "; ".join(missed),
            where=f"stage {stage.name}",
            todo="give the stage more steps or another learning_rate or seed, or lower its gates",
        )


def require_learnable(report: GateReport, stage: str, parent: str) -> None:
    """Refuse to start reinforcement learning where there is nothing to reinforce.

    Raises
    ------
    QualityGateError
        If the parent's pass@8 is below 0.5.
    """
    if report.pass_at_8 < RLVR_NEEDS:
        raise QualityGateError(
            f"pass_at_8 of its parent {parent!r} is {report.pass_at_8:.3f}; RLVR needs {RLVR_NEEDS}, or almost "
            "every group of samples is all wrong and teaches nothing",
            where=f"stage {stage}",
            todo=f"give {parent!r} more steps, or a corpus with fewer corrupted answers",
        )


def check_recorded_gates(stage: Stage, folder: Path) -> None:
    """Hold the values recorded when a stage was grown against its present gates.

    Raises
    ------
    QualityGateError
        When one is missed.
    """
    record = read_json(folder / GATES)
    if record["measured"] is not None:
        check_gates(stage, record["measured"])


def is_measured(lineage: Lineage, stage: StageBase) -> bool:
    """Whether a stage is asked for sums: a model of plain text is not, unless it has gates."""
    return isinstance(lineage.tokenizer, WorldTokenizer) or bool(stage.gates.model_dump(exclude_none=True))


def gate_record(
    stage: StageBase, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Return what ``gates.json`` holds: thresholds, and how well a model adds in its own and the other format.

    Parameters
    ----------
    stage : StageBase
        Its gates; supervised fine-tuning on the world makes worked solutions its own format.
    model : PreTrainedModel or None
        None where it is not to be asked.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    """
    worked = isinstance(stage, SftStage) and isinstance(stage.data, WorldSums)
    formats: tuple[Format, Format] = ("worked", "direct") if worked else ("direct", "worked")
    own, other = (
        None if model is None else asdict(measure(model, tokenizer, form=form, seed=stage.seed))
        for form in formats
    )
    thresholds = stage.gates.model_dump(exclude_none=True)
    return {"thresholds": thresholds, "measured": own, "other_format": other}


def describe_gates(gates: dict[str, Any]) -> str:
    """Return the end of a sentence about what was measured; empty where nothing was."""
    measured = gates["measured"]
    if measured is None:
        return ""
    return (
        f"; {measured['format']} sums: sampled {measured['sampled_accuracy']:.2f}, "
        f"greedy {measured['greedy_accuracy']:.2f}, pass@8 {measured['pass_at_8']:.2f}"
    )
