"""How long a run's texts are and how many: from its data where that can be read, else by assumption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.data import Plan, Table, load_table
from reasoning_embedding.data.holdout import hold_out
from reasoning_embedding.data.order import epoch_rows

_SAMPLE = 2000
#: Batches that are looked at: with one source a batch, few would miss some.
_BATCHES = 32
CHARACTERS = 4.0  # a token of English text, in vocabularies of 32,000 and more


@dataclass(frozen=True)
class TextLengths:
    """Lengths of a run's texts.

    Attributes
    ----------
    mean : float
        Tokens a text.
    mean_square : float
        Mean of their squares.
    each : float
        Distinct texts a query: itself, its positive, its hard negatives.
    rows : int or None
        Rows of an epoch, where they could be told: what ``data.caps`` lets in.
    source : str
        Where the figures come from, in words.
    """

    mean: float
    mean_square: float
    each: float
    rows: int | None
    source: str


def assumed_texts(data: config.Data) -> TextLengths:
    """Return log-normal lengths around 120 tokens and the expected rows, where the data is not at hand.

    Notes
    -----
    The mean length of the text that a token finds itself in is taken as 230, as in a mix of short queries and
    long documents. A cap counts for the source that it names, as configured; names that rows carry are unknown here.
    """
    known = [_expected_rows(source, data.caps or {}) for source in data.sources]
    learnt = 1 - (data.holdout or 0)
    rows = None if None in known else round(learnt * sum(count for count in known if count))
    return TextLengths(
        120.0, 120.0 * 230.0, 2.0 + data.negatives, rows, "assumed: 120 tokens a text, log-normal"
    )


def _expected_rows(source: config.Source, caps: Mapping[str, int]) -> int | None:
    if source.expected_rows is None:
        return None
    name = source.name or (source.dataset if isinstance(source, config.HubSource) else "")
    bounds = [source.expected_rows, source.limit, caps.get(name)]
    return min(bound for bound in bounds if bound is not None)


def run_texts(settings: config.RunConfig) -> TextLengths:
    """Return the lengths of the texts that a run's batches draw, and the rows of its epoch.

    Notes
    -----
    Sources of the Hub are not downloaded. Some batches of the first epoch are drawn as the run draws them, so caps,
    weights and temperature count. Of their texts 2000 are tokenized where the backbone's tokenizer is a local folder;
    elsewhere a token counts as four characters.

    Raises
    ------
    InputError
        If local data is there but cannot be read, or cannot fill a batch.
    """
    if not all(_is_local(source) for source in settings.data.sources):
        return assumed_texts(settings.data)
    table = load_table(settings.data, prompts=_prompts(settings))
    if settings.data.holdout is not None:
        table, _ = hold_out(table, settings.data.holdout, report=lambda line: None)
    plan = Plan(table, settings.training, settings.data, settings.seed)
    texts, limits, each = _drawn(plan, settings)
    lengths, source = _lengths(table, texts, settings.backbone)
    cut = np.minimum(lengths, limits)
    rows = int(epoch_rows(table, settings.data.caps).sum())
    return TextLengths(float(cut.mean()), float((cut**2).mean()), each, rows, source)


def _prompts(settings: config.RunConfig) -> config.Prompts | None:
    """What the run puts before its texts, as far as the configuration and local files say it."""
    backbone = settings.backbone
    if settings.readout.prompts is not None:
        return settings.readout.prompts
    if not isinstance(backbone, config.PretrainedBackbone) or not Path(backbone.path).is_dir():
        return None
    from reasoning_embedding.backbones.inherited import run_readout

    return run_readout(settings.readout, backbone).prompts


def _drawn(plan: Plan, settings: config.RunConfig) -> tuple[np.ndarray, np.ndarray, float]:
    """Sample texts of batches: their numbers, the most tokens of each, and the distinct texts a query."""
    last = min(plan.steps, plan.steps_per_epoch)
    batches = [plan.at(int(step)) for step in np.linspace(1, last, min(last, _BATCHES))]
    queries = [np.unique(batch.query) for batch in batches]
    documents = [np.unique(np.concatenate([batch.positive, batch.negative])) for batch in batches]
    texts = np.concatenate([*queries, *documents])
    data = settings.data
    limits = np.full(len(texts), float(data.document_max_tokens))
    limits[: sum(map(len, queries))] = data.query_max_tokens
    picked = np.random.default_rng(0).permutation(len(texts))[:_SAMPLE]
    return texts[picked], limits[picked], len(texts) / (len(batches) * settings.training.batch_size)


def _lengths(table: Table, texts: np.ndarray, backbone: config.Backbone) -> tuple[np.ndarray, str]:
    """Tokens of some texts, and how they were counted."""
    whole = ["".join(table.texts[index]) for index in texts]
    folder = tokenizer_folder(backbone)
    if folder is None:
        counted = np.array([max(1.0, len(text) / CHARACTERS) for text in whole])
        return counted, "from the data, four characters a token"
    from reasoning_embedding.backbones.load import load_tokenizer

    encoded = load_tokenizer(folder)(whole, add_special_tokens=True)["input_ids"]
    return np.array([float(len(ids)) for ids in encoded]), "from the data and the tokenizer"


def _is_local(source: config.Source) -> bool:
    if isinstance(source, config.FilesSource):
        return Path(source.path).exists()
    if isinstance(source, config.MixSource):
        return Path(source.rows).exists() and Path(source.corpus).exists()
    return isinstance(source, config.WorldSource)


def tokenizer_folder(backbone: config.Backbone) -> str | None:
    """Return the local folder of a backbone's tokenizer; None where it is not at hand."""
    name = backbone.path if isinstance(backbone, config.PretrainedBackbone) else backbone.tokenizer
    return name if (Path(name) / "tokenizer.json").is_file() else None
