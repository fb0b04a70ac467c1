"""What HRSA compares, and on which texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Name, NonNegative, Positive, Section


class WorldProbe(Section):
    """Documents and questions of the miniature world, labelled by relation."""

    kind: Literal["world"]
    seed: int = 0


class TextProbe(Section):
    """Texts of JSONL files (.gz too); ``label`` names a field for the probe's classes."""

    kind: Literal["text"]
    path: Annotated[str, Field(min_length=1)]
    text: str = "text"
    label: str | None = None
    texts: Positive = 500
    seed: int = 0


class MixProbe(Section):
    """Queries of a mix's rows, labelled by their source."""

    kind: Literal["mix"]
    rows: Annotated[str, Field(min_length=1)]
    texts: Positive = 500
    seed: int = 0


Probe = Annotated[WorldProbe | TextProbe | MixProbe, Field(discriminator="kind")]


class Pair(Section):
    """Two models to compare.

    A reference is ``lineage:STAGE`` (the causal language model), ``run:NAME@STEP`` (an embedder;
    STEP a number, ``first`` or ``last``) or a path.
    """

    name: Name
    a: str
    b: str


class Realignment(Section):
    """One reference against every checkpoint of a run."""

    name: Name
    run: Name
    against: str
    """A reference as in :class:`Pair`; ``first`` is the run's own step 0."""


class Analysis(Section):
    """Pairs, trajectories and the probe set of one analysis."""

    probe: Probe
    pairs: list[Pair] = Field(default=[])
    realignment: list[Realignment] = Field(default=[])
    seed_band: Name | None = None
    """The pair whose two members differ in the seed only: the noise floor of all others."""
    tokens: Literal["all", "last", "mean"] = "all"
    """Rows of the representation and geometry levels: every token, the last, or the text's mean."""
    max_tokens: Positive = 128
    max_rows: Positive = 4000
    """Rows kept a layer (a fixed sample of the probe's tokens)."""
    k: list[Positive] = Field(default=[5, 10, 50], min_length=1)
    heldout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: NonNegative = 0
    threads: Positive | None = None
