"""The loss of a run: InfoNCE, what it counts as negative, and what may be added to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Name, Positive, PositiveFloat, Section, conflict
from .functions import Address, Options, Sha256

Direction = Literal["query_document", "query_query", "document_query", "document_document"]


class FalseNegatives(Section):
    """Candidates so similar to the query that they are taken for unlabelled positives and left out.

    Give ``margin`` or ``ratio``. Qwen3-Embedding (arXiv 2506.05176) uses ``margin: 0.1``, NV-Retriever
    (arXiv 2407.15831) mines with ``ratio: 0.95`` or ``margin: -0.05``.
    """

    margin: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Leave out candidates whose cosine exceeds the positive's by more than this."""
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """Leave out candidates whose cosine exceeds this share of the positive's."""
    exempt_hard_negatives: bool = False
    """Keep a query's own hard negatives whatever their cosine: someone has checked them."""

    @model_validator(mode="after")
    def _one_threshold(self) -> FalseNegatives:
        if (self.margin is None) == (self.ratio is None):
            raise conflict("give margin or ratio, one of the two", "margin")
        return self


class LearntTemperature(Section):
    """A temperature that the optimizer moves, from ``loss.temperature`` on (CLIP, arXiv 2103.00020)."""

    minimum: PositiveFloat = 0.005
    """It goes no lower."""
    maximum: PositiveFloat = 1.0
    """It goes no higher."""
    learning_rate_factor: PositiveFloat = 10.0
    """Its learning rate over the model's: the parameter is log(temperature)."""

    @model_validator(mode="after")
    def _a_range(self) -> LearntTemperature:
        if self.minimum >= self.maximum:
            raise conflict("it must be below maximum", "minimum")
        return self


class Distillation(Section):
    """A teacher's scores of each query's positive and hard negatives (rows: ``pos_scores``, ``neg_scores``)."""

    method: Literal["kl", "margin_mse"] = "kl"
    """``kl``: KL(softmax(teacher) || softmax(student)); ``margin_mse``: squared difference of the margins
    positive - negative (arXiv 2010.02666), the student's in cosines."""
    weight: PositiveFloat = 1.0
    """What it is multiplied by in the loss."""
    temperature: PositiveFloat | None = None
    """Divides the student's cosines in ``kl``; absent: the loss's temperature."""
    teacher_temperature: PositiveFloat = 1.0
    """Divides the teacher's scores."""


class VectorDistillation(Section):
    """A teacher's vectors of the texts (``rembed data score --vectors``), whose similarities are learnt.

    KL(softmax(teacher) || softmax(student)) of each query over all documents of the batch. Only similarities are
    compared, so the teacher's vectors may have any length.
    """

    folder: str
    """What ``rembed data score MODEL ROWS -o OUT --vectors FOLDER`` wrote of the rows of this run."""
    weight: PositiveFloat = 1.0
    """What it is multiplied by in the loss."""
    temperature: PositiveFloat | None = None
    """Divides the student's cosines; absent: the loss's temperature."""
    teacher_temperature: PositiveFloat | None = None
    """Divides the teacher's cosines; absent: the student's temperature."""


class Uniformity(Section):
    """log mean exp(-t |x - y|^2), of the queries and of the positives (Wang and Isola, arXiv 2005.10242)."""

    weight: PositiveFloat
    """What it is multiplied by in the loss."""
    t: PositiveFloat = 2.0
    """Sharpness of the kernel: the larger, the more near neighbours count."""


class SIGReg(Section):
    """Epps-Pulley test of the embeddings against an isotropic Gaussian (LeJEPA, arXiv 2511.08544)."""

    weight: PositiveFloat
    """What it is multiplied by in the loss."""
    directions: Positive = 256
    """Random directions a step, the same on all ranks."""


class Anchor(Section):
    """1 - linear CKA between a batch's embeddings and those of the backbone before its first step.

    Costs a second, frozen copy of the backbone and one more forward of every text.
    """

    weight: PositiveFloat
    """What it is multiplied by in the loss."""
    debiased: bool = False
    """Compare by the unbiased HSIC estimate, whose chance level is 0; needs batches of at least 4 texts."""


class OwnTerm(Section):
    """A term of your own: a function of the batch's embeddings (``docs/extending.md``)."""

    function: Address
    """``module:function`` of a file beside this one or in the current folder, or of an installed package."""
    weight: PositiveFloat = 1.0
    """It counts this much beside InfoNCE."""
    name: Name | None = None
    """It is logged as ``terms.NAME``; absent: the function's name."""
    options: Options = Field(default={})
    """Further arguments of the function, by name."""
    sha256: Sha256 | None = None
    """Of the file's text; filled in when the configuration is read, so that a run is resumed with the same function."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.function.rpartition(":")[2]


class InfoNCE(Section):
    """InfoNCE over hard and in-batch negatives, cosine similarity.

    The default is query -> document, and no text that is known to answer is a negative; ``mask_same_text: false`` is
    the loss of arXiv 2601.21192.
    """

    kind: Literal["infonce"] = "infonce"
    temperature: PositiveFloat = 0.02
    """Divides the cosines: the smaller, the more the hardest negatives count."""
    learn_temperature: LearntTemperature | None = None
    """Let the optimizer move it; absent: it stays."""
    directions: tuple[Direction, ...] = ("query_document",)
    """What is compared: queries with documents, always; other queries, queries with the positive, and
    other queries' documents with the positive where named. All four in one softmax are GTE's loss (arXiv
    2308.03281); without document_query it is Qwen3-Embedding's (arXiv 2506.05176)."""
    softmax: Literal["joint", "per_direction"] = "joint"
    """``joint``: one denominator over all directions. ``per_direction``: the mean of a softmax each, for
    [query_document, document_query] only (CLIP's symmetric loss)."""
    mask_same_text: bool | None = None
    """Absent: true. Leave out in-batch candidates whose text is known to answer the query: a copy of its positive, another
    positive of its row, or a positive of a row with the same query. ``masked`` in the metrics counts them."""
    false_negatives: FalseNegatives | None = None
    """Leave out candidates that are probably right answers; absent: none."""
    matryoshka: Annotated[list[Positive], Field(min_length=1)] | None = None
    """Also train the first so many dimensions, renormalised (arXiv 2205.13147); the full width always is."""
    matryoshka_weights: list[PositiveFloat] | None = None
    """Weight of each entry of ``matryoshka``; absent: 1. The full width has weight 1 unless it is listed."""
    distillation: Distillation | None = None
    """Learn a teacher's scores, too; absent: no teacher."""
    teacher_vectors: VectorDistillation | None = None
    """Learn the similarities of a teacher's vectors, too; absent: none."""
    uniformity: Uniformity | None = None
    """Push embeddings apart, too; absent: no."""
    sigreg: SIGReg | None = None
    """Hold embeddings to an isotropic Gaussian, too; absent: no."""
    anchor: Anchor | None = None
    """Hold the geometry near the backbone's, too; absent: no."""
    terms: list[OwnTerm] = Field(default=[])
    """Further terms, functions of your own."""
    tile_rows: Positive = 256
    """Queries scored at a time: the loss holds no tensor larger than this times the candidates."""

    @property
    def masks_same_text(self) -> bool:
        """Whether ``mask_same_text`` is on, as it is where nothing is said."""
        return self.mask_same_text is not False

    @model_validator(mode="after")
    def _directions(self) -> InfoNCE:
        named = set(self.directions)
        if len(named) < len(self.directions):
            raise conflict("a direction is named twice", "directions")
        if "query_document" not in named:
            raise conflict("query_document holds the positives and must be one of them", "directions")
        if self.softmax == "per_direction" and named != {"query_document", "document_query"}:
            raise conflict(
                "a softmax of its own needs the positive among its candidates: only directions "
                "[query_document, document_query] have it",
                "softmax",
            )
        return self

    @model_validator(mode="after")
    def _terms_have_names(self) -> InfoNCE:
        labels = [term.label for term in self.terms]
        for number, label in enumerate(labels):
            if label in labels[:number]:
                raise conflict(
                    f"two terms are called {label!r}; give them names", "terms", number, "function"
                )
        return self

    @model_validator(mode="after")
    def _temperature_in_range(self) -> InfoNCE:
        learnt = self.learn_temperature
        if learnt is not None and not learnt.minimum <= self.temperature <= learnt.maximum:
            raise conflict(
                f"{self.temperature} is outside learn_temperature's {learnt.minimum} .. {learnt.maximum}",
                "temperature",
            )
        return self

    @model_validator(mode="after")
    def _matryoshka(self) -> InfoNCE:
        widths, weights = self.matryoshka, self.matryoshka_weights
        if weights is not None and len(weights) != len(widths or []):
            raise conflict("give one weight for each entry of matryoshka", "matryoshka_weights")
        if widths is not None and len(set(widths)) < len(widths):
            raise conflict("a width is named twice", "matryoshka")
        return self
