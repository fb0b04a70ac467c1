"""How long a run's texts are: from its data where that can be read, else by assumption."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.data import load_table

from .cost import Texts, assumed_texts, measured_texts

_SAMPLE = 2000
_CHARACTERS = 4.0  # a token of English text, in vocabularies of 32,000 and more


def run_texts(settings: config.RunConfig) -> Texts:
    """Return the lengths of a run's texts.

    Notes
    -----
    Sources of the Hub are not downloaded. A sample of 2000 texts is tokenized where the backbone's tokenizer
    is a local folder; elsewhere a token counts as four characters.

    Raises
    ------
    InputError
        If local data is there but cannot be read.
    """
    if not all(_is_local(source) for source in settings.data.sources):
        return assumed_texts(settings.data)
    table = load_table(settings.data)
    picked = np.random.default_rng(0).permutation(len(table.texts))[:_SAMPLE]
    texts = ["".join(table.texts[index]) for index in picked]
    folder = _tokenizer_folder(settings.backbone)
    if folder is None:
        lengths = np.array([max(1.0, len(text) / _CHARACTERS) for text in texts])
        return measured_texts(lengths, settings.data, len(table), "from the data, four characters a token")
    from reasoning_embedding.backbones.load import load_tokenizer

    encoded = load_tokenizer(folder)(texts, add_special_tokens=True)["input_ids"]
    lengths = np.array([len(ids) for ids in encoded])
    return measured_texts(lengths, settings.data, len(table), "from the data and the tokenizer")


def _is_local(source: config.Source) -> bool:
    if isinstance(source, config.FilesSource):
        return Path(source.path).exists()
    if isinstance(source, config.MixSource):
        return Path(source.rows).exists() and Path(source.corpus).exists()
    return isinstance(source, config.WorldSource)


def _tokenizer_folder(backbone: config.Backbone) -> str | None:
    name = backbone.path if isinstance(backbone, config.PretrainedBackbone) else backbone.tokenizer
    return name if (Path(name) / "tokenizer.json").is_file() else None
