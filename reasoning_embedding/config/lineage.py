"""Growing backbones: a base by pre-training, then SFT and RLVR siblings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .backbone import Architecture
from .base import Fraction, Name, NonNegative, Positive, PositiveFloat, Section, conflict


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
    path: Annotated[str, Field(min_length=1)]


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


Corpus = Annotated[WorldCorpus | TextCorpus, Field(discriminator="kind")]


class Gates(Section):
    """Quality a stage must reach, measured on arithmetic prompts; a miss stops the lineage."""

    sampled_accuracy: Fraction | None = None
    greedy_accuracy: Fraction | None = None
    pass_at_8: Fraction | None = None


class StageBase(Section):
    """What every stage has."""

    name: Name
    seed: NonNegative = 0
    learning_rate: PositiveFloat
    steps: Positive
    batch_size: Positive
    gates: Gates = Gates()
    threads: Positive = 1


class PretrainStage(StageBase):
    """Next-token prediction from random weights (AdamW, cosine to a tenth)."""

    kind: Literal["pretrain"]
    architecture: Architecture
    corpus: Corpus
    sequence_length: Positive = 48
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    warmup_ratio: Fraction = 0.05


class SftStage(StageBase):
    """Supervised fine-tuning on worked solutions in a new format (trl SFTTrainer)."""

    kind: Literal["sft"]
    parent: Name


class RlvrStage(StageBase):
    """GRPO with an exact-match reward (trl GRPOTrainer); ``batch_size`` counts prompts."""

    kind: Literal["rlvr"]
    parent: Name
    samples: Annotated[int, Field(ge=2)] = 8
    temperature: PositiveFloat = 1.0
    kl: Annotated[float, Field(ge=0)] = 0.02


Stage = Annotated[PretrainStage | SftStage | RlvrStage, Field(discriminator="kind")]


class Lineage(Section):
    """A tokenizer and the stages grown with it, each from its parent."""

    tokenizer: Tokenizer
    stages: Annotated[list[Stage], Field(min_length=1)]

    @model_validator(mode="after")
    def _parents_come_first(self) -> Lineage:
        seen: set[str] = set()
        for index, stage in enumerate(self.stages):
            if stage.name in seen:
                raise conflict(f"two stages are named {stage.name!r}", "stages", index, "name")
            parent = getattr(stage, "parent", None)
            if parent is not None and parent not in seen:
                message = (
                    f"stage {stage.name!r} names parent {parent!r}; the stages before it are {sorted(seen)}"
                )
                raise conflict(message, "stages", index, "parent")
            seen.add(stage.name)
        return self


class LineageConfig(Lineage):
    """A lineage as a file of its own: ``rembed grow``."""

    kind: Literal["lineage"]
    name: Name
    output_dir: str = "runs"
