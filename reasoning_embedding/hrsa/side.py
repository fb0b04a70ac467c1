"""One side of a comparison: a checkpoint, its states on the probe set, and what it is called."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from threadpoolctl import threadpool_limits

from reasoning_embedding import config
from reasoning_embedding.backbones import (
    load_config,
    load_decoder,
    load_tokenizer,
    require_decoder,
    require_packed_readout,
)
from reasoning_embedding.errors import InputError

from .capture import Activations, Sample, token_hash, tokenize
from .metrics.layer import Layer
from .probes import ProbeSet


@dataclass(frozen=True)
class Checkpoint:
    """A model to measure.

    Parameters
    ----------
    path : Path or str
        Its folder, or an id on the Hub.
    reference : str
        Its name in results and errors.
    revision : str, optional
        Branch, tag or commit on the Hub.
    content : str, optional
        Hash of its content; without one nothing of it is cached.
    bidirectional : bool, optional
        How to attend; absent: as saved.
    """

    path: Path | str
    reference: str
    revision: str | None = None
    content: str | None = None
    bidirectional: bool | None = None


@dataclass(frozen=True, eq=False)
class Side:
    """A model measured on the probe set.

    Parameters
    ----------
    checkpoint : Checkpoint
        The model.
    activations : Activations
        Its states.
    layers : list of Layer
        The same states, prepared for pairs.
    tokens : str
        Hash of the probe set's token ids.
    """

    checkpoint: Checkpoint
    activations: Activations
    layers: list[Layer]
    tokens: str

    @property
    def reference(self) -> str:
        """What the user calls it."""
        return self.checkpoint.reference

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
        provenance = Path(self.checkpoint.path) / "provenance.json"
        known = json.loads(provenance.read_text(encoding="utf-8")) if provenance.exists() else {}
        return {
            "reference": self.reference,
            "path": str(self.checkpoint.path),
            "revision": self.checkpoint.revision,
            "content_hash": self.checkpoint.content or known.get("content_hash"),
            "attention": "causal" if self.activations.causal else "bidirectional",
            "dimension": self.width,
            "layers": len(self.layers) - 2,
        }


class Reader:
    """A checkpoint opened on the probe set: its tokens now, its weights when they are needed.

    Parameters
    ----------
    checkpoint : Checkpoint
        The model.
    probe : ProbeSet
        Texts.
    max_tokens : int
        Longer texts are cut.

    Raises
    ------
    InputError
        If the checkpoint cannot be read.
    ContractError
        If it is an embedder whose states the packed forward does not compute.
    """

    def __init__(self, checkpoint: Checkpoint, probe: ProbeSet, max_tokens: int) -> None:
        self.checkpoint = checkpoint
        path, revision = str(checkpoint.path), checkpoint.revision
        require_packed_readout(path, revision=revision)
        self.ids = tokenize(probe.texts, load_tokenizer(path, revision=revision), max_tokens)
        self.tokens = token_hash(self.ids)
        model_config = load_config(path, revision=revision)
        require_decoder(model_config, path)
        text = model_config.get_text_config()
        #: Layers (embedding, decoder layers, final norm) and their width.
        self.shape: tuple[int, int] = text.num_hidden_layers + 2, text.hidden_size

    @cached_property
    def model(self) -> Any:
        """The decoder, on the device."""
        checkpoint, path = self.checkpoint, str(self.checkpoint.path)
        try:
            model: Any = load_decoder(
                path, revision=checkpoint.revision, bidirectional=checkpoint.bidirectional
            )[0]
        except SafetensorError as error:
            raise InputError(
                f"the weights cannot be read: {error}",
                where=path,
                todo="save or download the checkpoint again",
            ) from error
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def release(self) -> None:
        """Let the weights go."""
        self.__dict__.pop("model", None)

    def side(self, activations: Activations) -> Side:
        """Prepare captured states for pairs."""
        layers = [
            Layer(rows, f"{self.checkpoint.reference}, {label}", dtype=np.float32)
            for rows, label in zip(activations.states, activations.layers, strict=True)
        ]
        return Side(self.checkpoint, activations, layers, self.tokens)


@contextlib.contextmanager
def limited_threads(settings: config.Measuring) -> Generator[None]:
    """Compute with at most ``threads`` threads, in torch and in NumPy's BLAS; None leaves both as they are."""
    if settings.threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with threadpool_limits(settings.threads):
            yield
    finally:
        torch.set_num_threads(before)
