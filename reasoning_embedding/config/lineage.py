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


class ExistingTokenizer(Section):
    """A tokenizer folder or Hub id."""

    kind: Literal["existing"]
    path: Text


Tokenizer = Annotated[WorldTokenizer | BpeTokenizer | ExistingTokenizer, Field(discriminator="kind")]


class WorldCorpus(Section):
    """Documents, questions and arithmetic of the miniature world."""

    kind: Literal["world"]
    arithmetic: Fraction = 0.5
    documents: Fraction = 0.3
    questions: Fraction = 0.15
    corrupted: Fraction = 0.4
    """Share of arithmetic answers that are wrong, so that reinforcement learning has something to gain."""


class TextCorpus(Section):
    """Texts from JSONL files (.gz too) with a ``text`` field, packed end to end."""

    kind: Literal["text"]
    paths: Annotated[list[str], Field(min_length=1)]
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
    messages: str | None = None
    """Field of a conversation ``[{role, content}, ...]``, which takes the place of prompt and completion: the
    last turn is learnt. It needs ``chat``."""


class PreferenceFiles(PromptFiles):
    """Prompts, each with a better and a worse answer."""

    chosen: str = "{chosen}"
    rejected: str = "{rejected}"


class ProblemFiles(PromptFiles):
    """Prompts, each with the right answer that a reward holds completions against."""

    answer: str = "{answer}"


Completions = Annotated[WorldSums | CompletionFiles, Field(discriminator="kind")]
Preferences = Annotated[WorldSums | PreferenceFiles, Field(discriminator="kind")]
Problems = Annotated[WorldSums | ProblemFiles, Field(discriminator="kind")]


class Gates(Section):
    """Quality a stage must reach, measured on arithmetic prompts; a miss stops the lineage."""

    sampled_accuracy: Fraction | None = None
    greedy_accuracy: Fraction | None = None
    pass_at_8: Fraction | None = None


class StageCheckpoints(Section):
    """Steps of a stage that are kept as models, under ``checkpoints/`` in its folder."""

    every: Positive
    log_spaced: bool = True
    """Also keep steps 1, 2, 4, 8, ... below ``every``; 0 and the last always are."""


class StageBase(Section):
    """What every stage has."""

    name: Name
    seed: NonNegative = 0
    gates: Gates = Gates()
    threads: Positive = 1

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
    steps: Positive
    batch_size: Positive
    """Rows a step over all ranks (prompts, pairs)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: products in bf16, on a processor that has them; weights stay, and are saved, in fp32."""
    checkpoints: StageCheckpoints | None = None


class PretrainStage(TrainedStage):
    """Next-token prediction from random weights (AdamW, cosine to a tenth)."""

    kind: Literal["pretrain"]
    architecture: Architecture
    corpus: Corpus
    sequence_length: Positive = 48
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    warmup_ratio: Fraction = 0.05


class FineTuneStage(TrainedStage):
    """What the stages that start from a parent have (trl)."""

    parent: Name
    micro_batch: Positive | None = None
    """Sequences (completions, pairs) of a rank in one forward; absent: all of its share."""
    activation_checkpointing: bool = False

    @property
    def needs(self) -> str | None:
        """The parent."""
        return self.parent


class SftStage(FineTuneStage):
    """Supervised fine-tuning (trl SFTTrainer); of the world, on worked solutions in a new format."""

    kind: Literal["sft"]
    data: Completions = WorldSums()
    max_tokens: Positive = 1024
    """Longer rows are cut; it plays no part in the world."""


class DpoStage(FineTuneStage):
    """Direct preference optimisation (trl DPOTrainer); of the world, right answers against wrong ones."""

    kind: Literal["dpo"]
    data: Preferences = WorldSums()
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to its parent."""
    max_tokens: Positive = 1024
    """Longer rows are cut."""


class RlvrStage(FineTuneStage):
    """GRPO with a verifiable reward (trl GRPOTrainer); ``batch_size`` counts prompts."""

    kind: Literal["rlvr"]
    data: Problems = WorldSums()
    reward: str = "exact_match"
    """``exact_match``, ``numeric``, ``multiple_choice``, or ``module:function`` of your own: it takes completion
    and right answer, and returns a number, or None for a completion that does not parse (counted, worth 0)."""
    samples: Annotated[int, Field(ge=2)] = 8
    temperature: PositiveFloat = 1.0
    kl: Annotated[float, Field(ge=0)] = 0.02
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
            seen.add(stage.name)
        return self


class LineageConfig(Lineage):
    """A lineage as a file of its own: ``rembed grow``."""

    kind: Literal["lineage"]
    name: Name
    output_dir: str = "runs"
    hrsa: Tracking | None = None
    """How the representation of every stage with ``checkpoints`` moves, measured when all are grown."""

    @model_validator(mode="after")
    def _tracked_stages_keep_steps(self) -> LineageConfig:
        if self.hrsa is not None and not any(getattr(stage, "checkpoints", None) for stage in self.stages):
            raise conflict("no stage has checkpoints to track", "hrsa")
        return self
