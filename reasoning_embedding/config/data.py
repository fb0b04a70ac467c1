"""Where training rows come from and how they become batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Name, NonNegative, Positive, PositiveFloat, Section, Text, WorldRelation, conflict
from .functions import Address, Options, Sha256


class Columns(Section):
    """The columns (fields) that hold the parts of a row; what is not named here is not read.

    A column inside another is written ``answers.text``.
    """

    query: Text
    """Column of the query."""
    pos: Text | Annotated[list[Text], Field(min_length=1)]
    """One column, or several; each holds a text or a list of texts."""
    neg: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    """Hard negatives, likewise."""
    instruction: Text | None = None
    """Column of the instruction."""
    source: Text | None = None
    """Names the source of a row."""
    score: Text | None = None
    """A grade of the pair, for ``min_score``."""
    pos_scores: Text | None = None
    """A teacher's scores of the positives, for ``loss.distillation``."""
    neg_scores: Text | None = None
    """Column of a teacher's scores of the negatives."""

    def named(self) -> dict[str, str | list[str]]:
        """Return the columns that are named, by part."""
        return self.model_dump(exclude_none=True)


class SourceBase(Section):
    """What every source has."""

    name: Name | None = None
    """Overrides the source recorded in the rows; batches come from one source at a time."""
    instruction: str | None = None
    """The instruction for rows that carry none."""
    limit: Positive | None = None
    """Read at most this many rows."""
    expected_rows: Positive | None = None
    """Rows the source is known to have: a plan counts with them before the data is here, and a source that then has
    another number (without ``limit``) is refused."""
    columns: Columns | None = None
    """Which column is what, where the names are not those that are read by themselves (``docs/configuration.md``)."""
    min_score: float | None = None
    """Of graded pairs (a ``score`` or ``label`` beside two texts): those of at least this are learnt, lower ones are
    left out and counted. Pairs with a score are refused without it: InfoNCE knows only pairs."""
    license: str | None = None
    """Licence of the texts, for the model card; absent: the card says that it is unknown."""


class FilesSource(SourceBase):
    """JSONL, JSON arrays, CSV, TSV (.gz too), parquet, or what ``save_to_disk`` wrote: one file, or all of a folder.

    Rows are ``{query, pos, neg}`` or ``{query: [instruction, text], pos, neg}``; the formats of
    FlagEmbedding (``prompt``, scores) and GritLM are read as they are.
    """

    kind: Literal["files"]
    path: Text
    """A file, or a folder that ``save_to_disk`` wrote."""


class MixSource(SourceBase):
    """Rows that name their texts by id, and the corpus that holds the texts."""

    kind: Literal["mix"]
    rows: Text
    """The file of rows, which name texts by their place in the corpus."""
    corpus: Text
    """The file of texts."""
    sources: list[str] | None = None
    """Keep only rows of these sources."""


class HubSource(SourceBase):
    """A data set of the Hugging Face Hub at a revision."""

    kind: Literal["hub"]
    dataset: Text
    """Its id, OWNER/NAME."""
    config: str | None = None
    """The data set's configuration, where it has several."""
    files: Text | list[Text] | None = None
    """Files of the data set, such as ``train/*.jsonl.gz``; absent: those of its configuration."""
    split: str = "train"
    """Which split is read."""
    revision: str | None = None
    """Branch, tag or, best, commit."""
    streaming: bool = False
    """Read rows as they arrive instead of downloading the whole set first; with ``limit`` little is downloaded."""


class WorldSource(SourceBase):
    """Question-document pairs of the generated miniature world (no file needed)."""

    kind: Literal["world"]
    split: Literal["train", "heldout"] = "train"
    """``train``: questions with known answers; ``heldout``: those that evaluation asks."""
    seed: int = 0
    """Which world: its entities and facts."""
    relations: Annotated[list[WorldRelation], Field(min_length=1)] | None = None
    """Only questions on these; absent: on all. Tasks on the others show what carries over."""


class FunctionSource(SourceBase):
    """Rows that a function of your own yields, one mapping each, as a file's records (``docs/extending.md``)."""

    kind: Literal["function"]
    function: Address
    """``module:function`` of a file beside this one or in the current folder, or of an installed package."""
    options: Options = Field(default={})
    """Arguments of the function, by name."""
    sha256: Sha256 | None = None
    """Of the file's text; filled in when the configuration is read. The rows themselves decide what a run may resume."""


Source = Annotated[
    FilesSource | MixSource | HubSource | WorldSource | FunctionSource, Field(discriminator="kind")
]


class Data(Section):
    """The data mix of a run."""

    sources: Annotated[list[Source], Field(min_length=1)]
    """Where rows come from; their shares of the mix follow their sizes."""
    weights: dict[str, PositiveFloat] | None = None
    """Probability of each source a batch; absent: every row once an epoch, sources in proportion."""
    temperature: PositiveFloat | None = None
    """Probability of each source a batch in proportion to rows^(1 / temperature): 1 by size, 100 nearly even."""
    caps: dict[str, Positive] | None = None
    """Most rows of a source an epoch, other ones each epoch; with a temperature its size counts no more."""
    batching: Literal["one_source", "mixed"] = "one_source"
    """``one_source``: a batch has rows of one source, so that in-batch negatives are of its kind; ``mixed``:
    of all."""
    negatives: NonNegative = 3
    """Hard negatives a row; rows with fewer give what they have, rows with more are sampled each epoch."""
    query_max_tokens: Positive = 512
    """Longer queries are cut, the instruction included."""
    document_max_tokens: Positive = 512
    """Longer documents are cut."""
    query_template: str = "Instruct: {instruction}\nQuery: "
    """Prompt put before a query that has an instruction; documents get none."""
    bad_rows: Literal["stop", "skip"] = "stop"
    """Stop at the first row that cannot be used, or skip such rows and count them."""
    cache_dir: Text | None = None
    """Folder that keeps texts and tokens, read from disk as needed: for data larger than memory, and so that a
    second start makes no tokens. Absent: files of 64 MiB and more are kept in ``<output_dir>/.data``, less is held in
    memory."""
    holdout: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Share of the rows, such as .02, that are kept out of training and scored as a retrieval task while it runs; rows
    that share a query or a positive stay together, and near twins of held-out texts are not learnt (counted)."""
    force_contaminated: bool = False
    """Train even where a source is a known evaluation set, or one of this run's evaluation tasks."""

    @model_validator(mode="after")
    def _template_names_instruction(self) -> Data:
        if "{instruction}" not in self.query_template:
            raise conflict("it must contain {instruction}", "query_template")
        return self

    @model_validator(mode="after")
    def _one_way_to_choose_sources(self) -> Data:
        if self.weights is not None and self.temperature is not None:
            raise conflict("weights say how often a source is drawn already; drop one of both", "temperature")
        if self.weights is not None and self.caps is not None:
            raise conflict("weights draw sources whatever their size, so caps change nothing", "caps")
        if self.batching == "mixed" and (self.weights is not None or self.temperature is not None):
            name = "temperature" if self.weights is None else "weights"
            raise conflict(f"{name} chooses the source of a batch, but batching is mixed", name)
        return self

    @model_validator(mode="after")
    def _the_cache_can_tell_what_it_holds(self) -> Data:
        for number, source in enumerate(self.sources):
            if self.cache_dir is not None and source.kind == "hub" and source.revision is None:
                message = (
                    "a cache needs a Hub source to say its revision, or it could not tell when it changes"
                )
                raise conflict(message, "sources", number)
            if self.cache_dir is not None and source.kind == "function":
                message = "a cache could not tell when the rows of a function change; drop cache_dir"
                raise conflict(message, "sources", number)
        return self
