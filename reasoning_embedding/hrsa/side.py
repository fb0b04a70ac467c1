"""One side of a comparison: a checkpoint, its states on the probe set, and what it is called."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from reasoning_embedding import config
from reasoning_embedding.backbones import load_decoder
from reasoning_embedding.errors import InputError

from .activations import Activations, Sample, capture, draw_sample, token_hash, tokenize
from .layer import Layer
from .probes import ProbeSet


@dataclass(frozen=True, eq=False)
class Side:
    """A model measured on the probe set.

    Parameters
    ----------
    reference : str
        What the user calls it.
    path : Path
        Its checkpoint.
    activations : Activations
        Its states.
    layers : list of Layer
        The same states, prepared for pairs.
    tokens : str
        Hash of the probe set's token ids.
    """

    reference: str
    path: Path
    activations: Activations
    layers: list[Layer]
    tokens: str

    @property
    def width(self) -> int:
        """Dimensions of every layer."""
        return self.layers[-1].width

    @property
    def sample(self) -> Sample:
        """The rows kept."""
        return self.activations.sample

    def describe(self) -> dict[str, Any]:
        """What the results file says of it."""
        provenance = self.path / "provenance.json"
        known = json.loads(provenance.read_text(encoding="utf-8")) if provenance.exists() else {}
        return {
            "reference": self.reference,
            "path": str(self.path),
            "content_hash": known.get("content_hash"),
            "attention": "causal" if self.activations.causal else "bidirectional",
            "dimension": self.width,
            "layers": len(self.layers) - 2,
        }


def open_side(
    path: Path,
    reference: str,
    probe: ProbeSet,
    analysis: config.Analysis,
    *,
    bidirectional: bool | None = None,
    like: Side | None = None,
) -> Side:
    """Load a checkpoint and capture its states.

    Parameters
    ----------
    path : Path
        Checkpoint folder.
    reference : str
        Its name in results and errors.
    probe : ProbeSet
        Texts.
    analysis : config.Analysis
        Token rule, bounds and seed.
    bidirectional : bool or None
        How to attend; None = as saved.
    like : Side, optional
        The other side: the same rows are kept.

    Raises
    ------
    InputError
        If the checkpoint cannot be read, gives NaN, or cuts texts into other tokens than `like` while rows
        are tokens.
    """
    model, tokenizer = load_decoder(str(path), bidirectional=bidirectional)
    ids = tokenize(probe.texts, tokenizer, analysis.max_tokens)
    tokens = token_hash(ids)
    if like is None:
        sample = draw_sample([len(text) for text in ids], analysis.tokens, analysis.max_rows, analysis.seed)
    else:
        if tokens != like.tokens and analysis.tokens != "mean":
            raise InputError(
                f"{like.reference} and {reference} cut the probe texts into different tokens, so tokens cannot be "
                "compared row by row",
                where=f"analysis.tokens: {analysis.tokens}",
                todo="set analysis.tokens: mean, which compares one mean vector a text",
            )
        sample = like.sample
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    states = capture(model, ids, sample)
    layers = [
        Layer(rows, f"{reference}, {label}", dtype=np.float32)
        for rows, label in zip(states.states, states.layers, strict=True)
    ]
    return Side(reference, path, states, layers, tokens)


@contextlib.contextmanager
def limited_threads(threads: int | None) -> Generator[None]:
    """Compute with at most `threads` threads, in torch and in NumPy's BLAS; None leaves both as they are."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
