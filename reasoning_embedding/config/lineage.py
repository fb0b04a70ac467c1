"""Growing backbones: a base, given or pre-trained, then its SFT, DPO and RLVR siblings."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .analysis import Tracking
from .backbone import Architecture
from .base import Decay, Fraction, Name, NonNegative, Positive, PositiveFloat, Section, Text, conflict
from .functions import ADDRESS
from .reading.suggestions import did_you_mean

#: Rewards that are known by name.
REWARDS = ("exact_match", "numeric", "multiple_choice")


class WorldTokenizer(Section):
    """The word and digit tokenizer of the miniature world."""

    kind: Literal["world"]


class BpeTokenizer(Section):
    """A byte-level BPE tokenizer trained on the pre-training corpus."""

    kind: Literal["bpe"]
    vocab_size: Positive = 8192
    """Tokens it may have."""


class ExistingTokenizer(Section):
    """A tokenizer folder or Hub id."""

    kind: Literal["existing"]
    path: Text
    """The folder or id."""


Tokenizer = Annotated[WorldTokenizer | BpeTokenizer | ExistingTokenizer, Field(discriminator="kind")]


class WorldCorpus(Section):
    """Documents, questions and arithmetic of the miniature world."""

    kind: Literal["world"]
    arithmetic: Fraction = 0.5
    """Share of sums."""
    documents: Fraction = 0.3
    """Share of documents."""
    questions: Fraction = 0.15
    """Share of questions with their document; what is left says which entities are alike."""
    corrupted: Fraction = 0.4
    """Share of arithmetic answers that are wrong, so that reinforcement learning has something to gain."""


class TextCorpus(Section):
    """Texts from JSONL files (.gz too) with a ``text`` field, packed end to end."""

    kind: Literal["text"]
    paths: Annotated[list[str], Field(min_length=1)]
    """The files, read one after another."""
    word_problems: NonNegative = 0
    """Generated problems with worked solutions in GSM8K's form, mixed into the texts: arithmetic to reinforce."""


Corpus = Annotated[WorldCorpus | TextCorpus, Field(discriminator="kind")]


class WorldSums(Section):
    """Sums of the miniature world; wrong answers, where needed, are other sums there are."""

    kind: Literal["world"] = "world"


class PromptFiles(Section):
    """Rows of JSONL files (.gz too) or parquet; ``{field}`` in a text stands for that field of the row."""

    kind: Literal["files"]
    paths: Annotated[list[str], Field(min_length=1)]
    """The files, read one after another."""
    prompt: str = "{prompt}"
    """The prompt, such as ``"Question: {question}\\nAnswer:"``."""
    chat: bool = False
    """Let the tokenizer's chat template write prompt and answer as turns; false: plain text."""
    system: str | None = None
    """First turn of a chat; absent: none."""
    limit: Positive | None = None
    """Read at most this many rows."""


class CompletionFiles(PromptFiles):
    """Prompts and what should follow, or whole conversations."""

    completion: str = "{completion}"
    """What is learnt after the prompt."""
    messages: str | None = None
    """Field of a conversation ``[{role, content}, ...]``, which takes the place of prompt and completion: the
    last turn is learnt. It needs ``chat``."""


class PreferenceFiles(PromptFiles):
    """Prompts, each with a better and a worse answer."""

    chosen: str = "{chosen}"
    """The better answer."""
    rejected: str = "{rejected}"
    """The worse answer."""


class ProblemFiles(PromptFiles):
    """Prompts, each with the right answer that a reward holds completions against."""

    answer: str = "{answer}"
    """The right answer."""


Completions = Annotated[WorldSums | CompletionFiles, Field(discriminator="kind")]
Preferences = Annotated[WorldSums | PreferenceFiles, Field(discriminator="kind")]
Problems = Annotated[WorldSums | ProblemFiles, Field(discriminator="kind")]


class Gates(Section):
    """Quality a stage must reach, measured on arithmetic prompts; a miss stops the lineage."""

    sampled_accuracy: Fraction | None = None
    """Least share of right answers when one is sampled."""
    greedy_accuracy: Fraction | None = None
    """Least share of right answers when the likeliest tokens are taken."""
    pass_at_8: Fraction | None = None
    """Least share of prompts of which one of eight samples is right: below it RLVR has little to learn from."""


class StageCheckpoints(Section):
    """Steps of a stage that are kept as models, under ``checkpoints/`` in its folder."""

    every: Positive
    """Steps between two that are kept."""
    log_spaced: bool = True
    """Also keep steps 1, 2, 4, 8, ... below ``every``; 0 and the last always are."""


class StageBase(Section):
    """What every stage has."""

    name: Name
    """Names the stage's folder and ``lineage:NAME`` elsewhere."""
    seed: NonNegative = 0
    """Of weights, rows and sampling."""
    gates: Gates = Gates()
    """Quality it must reach, else the lineage stops."""
    threads: Positive = 1
    """Threads of torch."""

    @property
    def needs(self) -> str | None:
        """The stage that must be there before, if any."""
        return None


class GivenStage(StageBase):
    """A causal checkpoint as it is: its safetensors and tokenizer are copied (or linked) into the lineage."""

    kind: Literal["given"]
    path: Text
    """A folder or a Hub id."""
    revision: str | None = None
    """Branch, tag or, best, commit of the Hub repository."""
    tokenizer_of: Name | None = None
    """A stage before, whose tokenizer takes the place of its own: siblings then see the same tokens."""

    @property
    def needs(self) -> str | None:
        """The stage whose tokenizer it takes."""
        return self.tokenizer_of


class TrainedStage(StageBase):
    """What every stage that takes steps has."""

    learning_rate: PositiveFloat
    """Its peak."""
    steps: Positive
    """Optimiser steps."""
    batch_size: Positive
    """Rows a step over all ranks (prompts, pairs)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: products in bf16, on a processor that has them; weights stay, and are saved, in fp32."""
    checkpoints: StageCheckpoints | None = None
    """Steps that are kept as models, and from which a stopped stage goes on; absent: the last alone."""


class PretrainStage(TrainedStage):
    """Next-token prediction from random weights (AdamW, cosine to a tenth)."""

    kind: Literal["pretrain"]
    architecture: Architecture
    """Shape of the model."""
    corpus: Corpus
    """What it reads."""
    sequence_length: Positive = 48
    """Tokens of a row."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Pull of matrices toward 0, times the learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""
    warmup_ratio: Fraction = 0.05
    """Share of the steps in which the learning rate rises."""


class FineTuneStage(TrainedStage):
    """What the stages that start from a parent have (trl)."""

    parent: Name
    """The stage before that it starts from."""
    placebo_of: Name | None = None
    """A stage before, grown alike from the same parent, whose placebo this one is: it takes the same steps and learns
    nothing that stage teaches. RLVR: a random reward, at every step for as many prompts as there were live ones; SFT:
    the answers of other prompts; DPO: chosen and rejected swapped by a coin."""
    micro_batch: Positive | None = None
    """Sequences (completions, pairs) of a rank in one forward; absent: all of its share."""
    activation_checkpointing: bool = False
    """Recompute layers in the backward pass: less memory, a third more work."""

    @property
    def needs(self) -> str | None:
        """The parent."""
        return self.parent


class SftStage(FineTuneStage):
    """Supervised fine-tuning (trl SFTTrainer); of the world, on worked solutions in a new format."""

    kind: Literal["sft"]
    data: Completions = WorldSums()
    """Prompts and what should follow; absent: sums of the world, worked out."""
    max_tokens: Positive = 1024
    """Longer rows are cut; it plays no part in the world."""


class DpoStage(FineTuneStage):
    """Direct preference optimisation (trl DPOTrainer); of the world, right answers against wrong ones."""

    kind: Literal["dpo"]
    data: Preferences = WorldSums()
    """Prompts with a better and a worse answer; absent: sums of the world."""
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to its parent."""
    max_tokens: Positive = 1024
    """Longer rows are cut."""


class RlvrStage(FineTuneStage):
    """GRPO with a verifiable reward (trl GRPOTrainer); ``batch_size`` counts prompts."""

    kind: Literal["rlvr"]
    data: Problems = WorldSums()
    """Prompts with their right answers; absent: sums of the world."""
    reward: str = "exact_match"
    """``exact_match``, ``numeric``, ``multiple_choice``, or ``module:function`` of your own: it takes completion
    and right answer, and returns a number, or None for a completion that does not parse (counted, worth 0)."""
    samples: Annotated[int, Field(ge=2)] = 8
    """Completions of a prompt; their mean reward is what each is held against."""
    temperature: PositiveFloat = 1.0
    """Of sampling."""
    kl: Annotated[float, Field(ge=0)] = 0.02
    """Weight of the divergence from the parent."""
    max_completion_tokens: Positive | None = None
    """Most tokens of a completion; absent in the world: the width of an answer."""
    dead_steps: Positive = 20
    """Stop after this many steps in a row in which all samples of every prompt are rewarded alike."""

    @model_validator(mode="after")
    def _reward_exists(self) -> RlvrStage:
        if self.reward not in REWARDS and not re.fullmatch(ADDRESS, self.reward):
            hint = did_you_mean(self.reward, REWARDS)
            message = f"no reward {self.reward!r}; known: {', '.join(REWARDS)}, or module:function{hint}"
            raise conflict(message, "reward")
        if isinstance(self.data, ProblemFiles) and self.max_completion_tokens is None:
            raise conflict("data of files needs max_completion_tokens: how long may an answer be?", "data")
        return self


Stage = Annotated[GivenStage | PretrainStage | SftStage | DpoStage | RlvrStage, Field(discriminator="kind")]


class Lineage(Section):
    """A tokenizer and the stages grown with it, each from its parent."""

    tokenizer: Tokenizer | None = None
    """Of the stages that pre-train; the others keep their parent's."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """In order; a parent stands before its children."""

    @model_validator(mode="after")
    def _parents_come_first(self) -> Lineage:
        seen: set[str] = set()
        for index, stage in enumerate(self.stages):
            if stage.name in seen:
                raise conflict(f"two stages are named {stage.name!r}", "stages", index, "name")
            if stage.needs is not None and stage.needs not in seen:
                key = "tokenizer_of" if isinstance(stage, GivenStage) else "parent"
                message = f"stage {stage.name!r} names {key} {stage.needs!r}; the stages before it are {sorted(seen)}"
                raise conflict(message, "stages", index, key)
            if isinstance(stage, PretrainStage) and self.tokenizer is None:
                raise conflict(
                    f"stage {stage.name!r} pre-trains: the lineage needs a tokenizer", "stages", index
                )
            if isinstance(stage, FineTuneStage) and stage.placebo_of is not None:
                self._check_placebo(stage, self.stages[:index], index)
            seen.add(stage.name)
        return self

    @staticmethod
    def _check_placebo(stage: FineTuneStage, before: list[Stage], index: int) -> None:
        """A placebo differs from its twin in what is learnt, and in nothing else."""
        twin = next((other for other in before if other.name == stage.placebo_of), None)
        place = ("stages", index, "placebo_of")
        if twin is None:
            raise conflict(f"there is no stage {stage.placebo_of!r} before {stage.name!r}", *place)
        own = {"name", "gates", "placebo_of", "threads"}
        one, other = (each.model_dump(exclude=own) for each in (twin, stage))
        if differing := [key for key in {**one, **other} if one.get(key) != other.get(key)]:
            what = f"{stage.name!r} differs from {twin.name!r} in {', '.join(differing)}"
            raise conflict(f"{what}: a placebo is grown like its twin", *place)


class LineageConfig(Lineage):
    """A lineage as a file of its own: ``rembed grow``."""

    kind: Literal["lineage"]
    name: Name
    """Names the folder below ``output_dir``."""
    output_dir: str = "runs"
    """Where lineages lie."""
    hrsa: Tracking | None = None
    """How the representation of every stage with ``checkpoints`` moves, measured when all are grown."""

    @model_validator(mode="after")
    def _tracked_stages_keep_steps(self) -> LineageConfig:
        if self.hrsa is not None and not any(getattr(stage, "checkpoints", None) for stage in self.stages):
            raise conflict("no stage has checkpoints to track", "hrsa")
        return self
