"""What a checkpoint is scored on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Name, Positive, Section, Text, WorldRelation, conflict


class BeirTask(Section):
    """Retrieval on a local BEIR-style folder: corpus, queries (JSONL, .gz too) and qrels.tsv."""

    kind: Literal["beir"]
    path: Text
    """The folder."""
    name: Name | None = None
    """Absent: the folder's name."""
    instruction: str | None = None
    """Absent: the ``instruction`` of the folder's meta.json, if there is one."""


class WorldTask(Section):
    """Retrieval of the miniature world's documents by its held-out questions, or by all on some relations."""

    kind: Literal["world"]
    name: Name = "world-heldout"
    """What scores are filed under."""
    seed: int = 0
    """Which world: its entities and facts."""
    relations: Annotated[list[WorldRelation], Field(min_length=1)] | None = None
    """Every question on these, in every wording: harder, for a model that was trained on other relations only."""


class SuiteTask(Section):
    """A benchmark or a task of mteb by its name: ``MTEB(eng, v2)``, ``BRIGHT(v1.1)``, ``Banking77Classification``."""

    kind: Literal["mteb"]
    name: Text
    """Its name in mteb."""
    languages: list[str] | None = None
    """ISO 639-3 codes; absent: all languages of the benchmark."""
    subsets: list[str] | None = None
    """Subsets of a single task; absent: all."""


class StsTask(Section):
    """Sentence pairs with a similarity, from a CSV or TSV file (.gz too), or from several, one after another."""

    kind: Literal["sts"]
    path: Text | Annotated[list[Text], Field(min_length=1)]
    """The file, or several."""
    name: Name | None = None
    """Absent: the file's name; several files need one."""
    columns: tuple[str | int, str | int, str | int] = (0, 1, 2)
    """First text, second text, score: column names of a header, or positions without one."""
    instruction: str | None = None
    """What stands before both texts; absent: as the model is asked."""

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [self.path] if isinstance(self.path, str) else self.path

    @model_validator(mode="after")
    def _several_files_have_a_name(self) -> StsTask:
        if self.name is None and len(self.paths) > 1:
            raise conflict("pairs of several files need a name", "name")
        return self


class ClassificationTask(Section):
    """Texts with a class, train and test, from CSV files (.gz too); mteb's protocol of ten experiments."""

    kind: Literal["classification"]
    train: Text
    """File of the texts that the classifier learns from."""
    test: Text
    """File of the texts it is scored on."""
    name: Name
    """What scores are filed under."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the class."""
    samples_per_label: Positive = 8
    """Training texts of a class in each of the ten experiments."""
    instruction: str | None = None
    """What stands before a text; absent: as the model is asked."""


class ChoiceTask(Section):
    """Multiple choice on a BEIR-style folder with ``candidates.jsonl``: choice accuracy beside nDCG."""

    kind: Literal["choice"]
    path: Text
    """The folder."""
    name: Name | None = None
    """Absent: the folder's name."""
    instruction: str | None = None
    """What stands before a query; absent: as the model is asked."""


class BrightTask(Section):
    """One subject of BRIGHT from a local folder laid out like the original data set."""

    kind: Literal["bright"]
    path: Text
    """The folder with all subjects."""
    subject: Text
    """Which one, such as ``biology``."""
    long: bool = False
    """Search the long documents instead of passages."""
    instruction: str | None = None
    """What stands before a query; absent: as the model is asked."""


class NumberSequencesTask(Section):
    """Clustering of number sequences by family (how merged embedders are probed)."""

    kind: Literal["number-sequences"]
    name: Name = "number-sequences"
    """What scores are filed under."""
    families: list[Literal["consecutive", "even", "odd", "prime", "recaman", "composite"]] = Field(
        default=["consecutive", "even", "odd", "prime", "recaman", "composite"], min_length=2
    )
    """Kinds of sequences, each a cluster."""
    terms: Positive = 200
    """Terms of each sequence."""
    chunks: Positive = 4
    """Texts that each sequence is cut into."""
    shuffled: bool = False
    """Shuffle the terms within each chunk: what is left is vocabulary, not order."""
    null_draws: Positive = 200
    """Random vectors that the scores are held against: draws."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of k-means, the shuffle and the draws."""

    @model_validator(mode="after")
    def _each_family_is_a_cluster(self) -> NumberSequencesTask:
        if double := next((name for name in self.families if self.families.count(name) > 1), None):
            raise conflict(f"{double} stands twice", "families")
        if self.chunks < 2:
            raise conflict("a family needs at least 2 chunks: one point is no cluster", "chunks")
        if self.terms % self.chunks or self.terms < 2 * self.chunks:
            raise conflict(f"{self.chunks} chunks must be of equal length and of at least 2 terms", "terms")
        return self


class HoldoutTask(Section):
    """Retrieval of the rows that ``data.holdout`` keeps out of training; there unasked where that is set."""

    kind: Literal["holdout"] = "holdout"
    name: Name = "holdout"
    """Of several sources each is a task, ``<name>-<source>``."""


_PublicTask = (
    BeirTask
    | WorldTask
    | SuiteTask
    | StsTask
    | ClassificationTask
    | ChoiceTask
    | BrightTask
    | NumberSequencesTask
)
Task = Annotated[_PublicTask, Field(discriminator="kind")]
#: Of a run, whose own rows may be held out.
TrainingTask = Annotated[_PublicTask | HoldoutTask, Field(discriminator="kind")]


class Evaluation(Section):
    """Tasks and how texts are encoded for them."""

    tasks: Annotated[list[Task], Field(min_length=1)]
    """What is scored."""
    steps: Literal["ends", "all", "best"] | list[int] = "ends"
    """Which checkpoints of a run: step 0 and the last, all, the one its own evaluation chose, or a list."""
    baselines: list[Literal["bm25", "tfidf", "untrained"]] = Field(default=[])
    """``untrained``: the same architecture with random weights, as an embedder."""
    instructions: str | dict[str, str | dict[Literal["query", "document"], str]] | None = None
    """Task -> instruction, or {query, document}: here, or the path of a JSON file of them. Absent: as the model is asked."""
    prompts: dict[str, str] | None = None
    """What stands before a text, by name (``query``, ``document``, a task or a type of tasks). Absent: the model's own
    prompts, else mteb's for a model that mteb knows, else the task's instruction for a model that was made here."""
    chunk_documents: Positive = 50_000
    """Documents encoded and searched at a time, so that a corpus need not fit in memory."""
    cache_embeddings: bool = True
    """Keep the embeddings of corpora, so that a checkpoint encodes a corpus once for all tasks and calls."""
    max_tokens: Positive | None = None
    """Longer texts are cut. Absent: the model's own limit."""
    truncate: Positive | None = None
    """Keep the first entries of each vector, brought to unit length again. Absent: all."""
    quantize: Literal["int8", "binary"] | None = None
    """Score the codes that an index would hold: a byte an entry, or a bit. Absent: float32."""
    pack_tokens: Positive | None = None
    """Tokens of a forward; absent: 2048 on a CPU, 16384 on a GPU."""
    threads: Positive | None = None
    """Threads of torch; absent: as many as the environment gives."""


class TrainingEvaluation(Section):
    """Light evaluation while training, and the score that names the best checkpoint."""

    tasks: list[TrainingTask] = Field(default=[HoldoutTask()], min_length=1)
    """Absent: the rows that ``data.holdout`` keeps out; where that is set they are added to others, too."""
    every: Positive = 100
    """Steps between evaluations; the last step is always scored."""
    select: str = "mean"
    """``mean`` of the tasks' main scores, or ``TASK`` or ``TASK:METRIC``; the larger is the better."""
    max_tokens: Positive | None = None
    """Longer texts are cut. Absent: at the limit that the checkpoint will have, the longer of the data's two."""
    pack_tokens: Positive | None = None
    """Tokens of a forward; absent: 2048 on a CPU, 16384 on a GPU."""

    @property
    def public_tasks(self) -> list[Task]:
        """The tasks that are there before the run: all but its own rows."""
        return [task for task in self.tasks if not isinstance(task, HoldoutTask)]
