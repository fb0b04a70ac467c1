"""What HRSA compares, and on which texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Name, NonNegative, Positive, Section, Text
from .data import Source
from .functions import Address, Options, Sha256


class WorldProbe(Section):
    """Documents and questions of the miniature world, labelled by relation."""

    kind: Literal["world"]
    seed: int = 0
    """Which world: its entities and facts."""


class TextProbe(Section):
    """Texts of local files: JSONL or parquet records, rows of a CSV, or the lines of a ``.txt`` file."""

    kind: Literal["text"]
    path: Text
    """The file."""
    text: str = "text"
    """Field or column that holds the text; a ``.txt`` file has none."""
    label: str | None = None
    """Field or column of a class, for linear probes."""
    columns: list[str] | None = None
    """Names of the columns of a CSV that has no header, such as AG News: [label, title, text]."""
    texts: Positive = 500
    """At most this many distinct texts, drawn with ``seed``."""
    seed: int = 0
    """Of the draw."""


class TracesProbe(Section):
    """Chains of thought: one worked solution a JSONL record."""

    kind: Literal["traces"]
    path: Text
    """The file."""
    field: str | None = None
    """Absent: the first of ``trace``, ``solution``, ``reasoning`` and ``answer`` that the first record has."""
    texts: Positive = 500
    """At most this many texts, drawn with ``seed``."""
    seed: int = 0
    """Of the draw."""


class DataProbe(Section):
    """Texts of a data source as training reads it, labelled by source."""

    kind: Literal["data"]
    source: Source
    """Where the texts come from, as in ``data.sources``."""
    side: Literal["query", "document"] = "query"
    """Queries (without their instruction) or their first positives."""
    texts: Positive = 500
    """At most this many texts, drawn with ``seed``."""
    seed: int = 0
    """Of the draw."""


class MixProbe(Section):
    """Queries of a mix's rows, labelled by their source."""

    kind: Literal["mix"]
    rows: Text
    """The mix's file of rows."""
    texts: Positive = 500
    """At most this many texts, drawn with ``seed``."""
    seed: int = 0
    """Of the draw."""


Probe = Annotated[WorldProbe | TextProbe | MixProbe | TracesProbe | DataProbe, Field(discriminator="kind")]


class Pair(Section):
    """Two models to compare.

    A reference is ``lineage:STAGE`` (the causal language model; ``@STEP``: one of the steps it keeps),
    ``run:NAME@STEP`` (an embedder; STEP a number, ``first`` or ``last``) or a path.
    """

    name: Name
    """What figures and tables call the pair."""
    a: str
    """The first model."""
    b: str
    """The second model: the one that is said to have moved."""
    sibling: str | None = None
    """A model grown like ``a`` from other seeds: how far two of its kind are apart stands beside the pair."""


class Realignment(Section):
    """One reference against every checkpoint of a run, or of a lineage's stage."""

    name: Name
    """What figures and tables call the trajectory."""
    run: Annotated[str, Field(pattern=r"^(lineage:)?[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """The name of a run, or ``lineage:STAGE`` of a stage with ``checkpoints``."""
    against: str
    """A reference as in :class:`Pair`; ``first`` is the run's own step 0."""


class OwnMetric(Section):
    """A metric of your own between two models: a function of matched rows (``docs/extending.md``)."""

    function: Address
    """``module:function`` of a file beside this one or in the current folder, or of an installed package."""
    name: Name | None = None
    """It is called ``own.NAME``; absent: the function's name."""
    options: Options = Field(default={})
    """Further arguments of the function, by name."""
    sha256: Sha256 | None = None
    """Of the file's text; filled in when the configuration is read."""

    @property
    def label(self) -> str:
        """What results call it."""
        return f"own.{self.name or self.function.rpartition(':')[2]}"


class Measuring(Section):
    """On which texts, rows and neighbourhoods models are measured."""

    probe: Probe
    """The texts on which models are compared; every number holds on these alone."""
    tokens: Literal["all", "last", "mean"] = "all"
    """Rows of the representation and geometry levels: every token, the last, or the text's mean."""
    skip_first: Literal["auto"] | NonNegative = "auto"
    """Leading tokens of every text that are no rows where rows are tokens: the first ones of many decoders take the
    attention that goes nowhere and hold nearly all variance. auto: as many as are seen to do so, often 1 or none."""
    max_tokens: Positive = 128
    """Longer texts are cut."""
    max_rows: Positive = 4000
    """Rows kept a layer (a fixed sample of the probe's rows): neighbours, intervals and heat maps use them."""
    streaming: Literal["auto", "always", "never"] = "auto"
    """Whether linear metrics use every row of the probe set, by running sums, or the kept ones only; auto: where
    the probe set has more rows than are kept."""
    memory_mib: Positive = 1024
    """Bound on the running sums: heat maps use every row where their sums fit in it, else the kept rows."""
    cache_mib: NonNegative = 1024
    """Kept rows of measured checkpoints on disk, the least recently used go first; 0: none."""
    k: list[Positive] = Field(default=[5, 10, 50], min_length=1)
    """Sizes of the neighbourhoods that k-NN overlap and CKNNA compare."""
    heldout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the texts that linear probes and Procrustes maps are tested on; they are fitted on the rest."""
    bootstrap: NonNegative = 100
    """Replicates behind the intervals of those of a pair's metrics that are computed anew for each of them, such as
    H_inv, debiased CKA, RBF CKA and CKNNA; 0: those have no interval. The others cost little and always have one."""
    intervals: Literal["quick", "all"] = "quick"
    """Intervals of every step of a trajectory: those that cost little, or all that a pair has, with ``bootstrap``
    replicates, which costs several times the metrics themselves."""
    metrics: list[OwnMetric] = Field(default=[])
    """Metrics of your own, measured beside the others layer by layer."""
    seed: NonNegative = 0
    """Of the kept rows, the split of the probes, the resampling and the permutations."""
    threads: Positive | None = None
    """Threads of torch; absent: as many as the environment gives."""


class Analysis(Measuring):
    """Pairs, trajectories and the probe set of one analysis."""

    pairs: list[Pair] = Field(default=[])
    """Models that are compared two by two, layer by layer."""
    reference_levels: bool = True
    """Whether every pair is also measured with fresh weights, and on other texts at the same positions."""
    realignment: list[Realignment] = Field(default=[])
    """Trajectories: one model against every kept step of a run or a stage."""
    seed_band: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    """The pair, or the list of pairs, whose two members differ in the seed only: the noise floor of all others. Of one
    pair it is the bootstrap interval; of several, the range in which one more such pair would lie (95 %)."""

    @property
    def seed_pairs(self) -> list[str]:
        """Names of the pairs that make the seed band."""
        named = self.seed_band or []
        return [named] if isinstance(named, str) else named


class EverySteps(Section):
    """Saved steps that are multiples of a number, and the last."""

    every: Positive
    """Steps between two that are taken."""


class Tracking(Measuring):
    """The trajectory of a run, measured from its finished checkpoints."""

    steps: Literal["saved"] | list[NonNegative] | EverySteps = "saved"
    """All saved steps, some of them, or ``{every: N}``."""
    against: str | list[str] = "first"
    """References: ``first`` (the run's own step 0), ``run:NAME`` (a sibling, step by step), ``run:NAME@STEP``
    or the path of a model. A sibling must be trained before."""

    @property
    def references(self) -> list[str]:
        """What the run is held against."""
        return [self.against] if isinstance(self.against, str) else self.against
