"""Which analysed pairs compare two backbones, before and after contrastive training, and which the training itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .records import Experiment, Model, Pair

Role = Literal["before", "after", "training", "seeds", "other"]
_NAMES = {"rlvr": "RLVR", "sft": "SFT", "dpo": "DPO"}


@dataclass(frozen=True)
class BackbonePair:
    """Two backbones, as language models (`before` contrastive training) and as embedders (`after` it).

    Parameters
    ----------
    base, variant : str
        The backbones.
    kind : str
        How the variant grew from the base, such as ``RLVR``; empty where that is not known.
    before, after : Pair or None
        What was analysed of them.
    """

    base: str
    variant: str
    kind: str
    before: Pair | None
    after: Pair | None

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.base} → {self.variant}" + (f" ({self.kind})" if self.kind else "")

    @property
    def sides(self) -> list[tuple[str, Pair]]:
        """What was analysed, with the words for it."""
        named = (("before CL", self.before), ("after CL", self.after))
        return [(words, pair) for words, pair in named if pair is not None]


@dataclass(frozen=True)
class _Place:
    """Where a model stands: its backbone, the run it belongs to, and whether contrastive training touched it."""

    backbone: str
    run: str | None
    trained: bool


def backbone_pairs(experiment: Experiment) -> list[BackbonePair]:
    """Every two different backbones of the analysed pairs, in the order of the analysis."""
    found: dict[tuple[str, str], dict[str, Pair]] = {}
    for pair in experiment.pairs:
        if (role_of(experiment, pair)) in ("before", "after"):
            key = (_place(experiment, pair.a).backbone, _place(experiment, pair.b).backbone)
            sides = found.setdefault(key, {})
            sides.setdefault(role_of(experiment, pair), pair)
    return [
        BackbonePair(base, variant, _kind(experiment, base, variant), sides.get("before"), sides.get("after"))
        for (base, variant), sides in found.items()
    ]


def training_pairs(experiment: Experiment) -> list[Pair]:
    """Pairs of one backbone before and after contrastive training."""
    return [pair for pair in experiment.pairs if role_of(experiment, pair) == "training"]


def role_of(experiment: Experiment, pair: Pair) -> Role:
    """What a pair compares.

    Returns
    -------
    {"before", "after", "training", "seeds", "other"}
        Two backbones as language models, or as trained embedders; one backbone before and after training; two
        seeds; anything else, such as a language model against the embedder of another backbone.
    """
    a, b = _place(experiment, pair.a), _place(experiment, pair.b)
    if a.backbone != b.backbone:
        if a.trained != b.trained:
            return "other"
        return "after" if a.trained else "before"
    if a.trained and b.trained and a.run != b.run:
        return "seeds"
    return "training" if a.trained != b.trained else "other"


def _place(experiment: Experiment, model: Model) -> _Place:
    scheme, _, rest = model.reference.partition(":")
    if scheme == "lineage":
        return _Place(rest, None, trained=False)
    if scheme == "run":
        name, _, step = rest.partition("@")
        run = next((run for run in experiment.runs if run.name == name), None)
        return _Place(run.backbone or name if run else name, name, trained=step not in ("first", "0"))
    # A folder or a Hub id: only its attention tells a language model from an embedder.
    return _Place(re.sub(r"/+$", "", model.reference), None, trained=model.attention == "bidirectional")


def _kind(experiment: Experiment, base: str, variant: str) -> str:
    stage = next((stage for stage in experiment.stages if stage.name == variant), None)
    return _NAMES.get(stage.kind, stage.kind) if stage is not None and stage.parent == base else ""
