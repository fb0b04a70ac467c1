"""Capturing a decoder's states on a probe set, by hooks that are always removed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from reasoning_embedding.backbones import decoder_layers, make_packs
from reasoning_embedding.data import tokens
from reasoning_embedding.errors import InputError

Tokens = Literal["all", "last", "mean"]
FINAL = "final norm"


@dataclass(frozen=True, eq=False)
class Sample:
    """Which rows are kept, the same for every model of a comparison.

    Parameters
    ----------
    tokens : {"all", "last", "mean"}
        A row is a token, the last token of a text, or the mean over a text's tokens.
    documents : array of int, shape (rows,), ascending
        The text of each row.
    positions : array of int, shape (rows,)
        Its position in the text; -1 under ``mean``.
    """

    tokens: Tokens
    documents: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, eq=False)
class Activations:
    """States of one model on one sample.

    Parameters
    ----------
    layers : list of str
        ``embedding``, ``layer 1`` .. ``layer L (pre-norm)``, ``final norm``.
    states : list of array, float32, each (rows, D)
        In the order of `layers`.
    last, mean : array, float32, shape (texts, D)
        Final-norm states of each text's last token, and their mean over its tokens.
    sample : Sample
        Where the rows come from.
    causal : bool
        How the model attended.
    """

    layers: list[str]
    states: list[np.ndarray]
    last: np.ndarray
    mean: np.ndarray
    sample: Sample
    causal: bool


def tokenize(texts: list[str], tokenizer: Any, max_tokens: int) -> list[np.ndarray]:
    """Token ids of each text as the trainer and sentence-transformers see it, cut to `max_tokens`."""
    pairs = [("", text) for text in texts]
    store = tokens.tokenize(pairs, tokenizer, query_max_tokens=max_tokens, document_max_tokens=max_tokens)
    return [store[index] for index in range(len(store))]


def token_hash(ids: list[np.ndarray]) -> str:
    """SHA-256 of the token ids of a probe set: equal where two tokenizers agree on it."""
    digest = hashlib.sha256()
    for text_ids in ids:
        digest.update(len(text_ids).to_bytes(8, "little") + text_ids.astype("<i8").tobytes())
    return digest.hexdigest()


def draw_sample(lengths: list[int], rule: Tokens, max_rows: int, seed: int) -> Sample:
    """Choose the rows to keep: at most `max_rows` tokens (or texts), drawn without replacement.

    Parameters
    ----------
    lengths : list of int
        Tokens of each text.
    rule : {"all", "last", "mean"}
        The token rule.
    max_rows : int
        Bound on the rows, and so on memory.
    seed : int
        The same seed and lengths give the same rows.
    """
    sizes = np.asarray(lengths)
    if rule == "all":
        documents = np.repeat(np.arange(len(sizes)), sizes)
        positions = np.arange(len(documents)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    else:
        documents = np.arange(len(sizes))
        positions = sizes - 1 if rule == "last" else np.full(len(sizes), -1)
    if len(documents) > max_rows:
        kept = np.sort(np.random.default_rng(seed).choice(len(documents), size=max_rows, replace=False))
        documents, positions = documents[kept], positions[kept]
    return Sample(rule, documents, positions)


@contextlib.contextmanager
def hooked(model: Any) -> Generator[list[torch.Tensor]]:
    """Record the input of the first decoder layer and the output of each, in order, of the next forward.

    The list is cleared by whoever reads it. The hooks go when the block ends, by an error too.
    """
    recorded: list[torch.Tensor] = []
    layers = decoder_layers(model)

    def before(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        recorded.append(inputs[0] if inputs else named["hidden_states"])

    def after(module: Any, inputs: Any, output: Any) -> None:
        recorded.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def capture(model: Any, ids: list[np.ndarray], sample: Sample, *, pack_tokens: int = 8192) -> Activations:
    """Run the probe set through a decoder and keep the sampled rows of every layer.

    Parameters
    ----------
    model : PreTrainedModel
        From :func:`reasoning_embedding.backbones.load_decoder`: no head, packed attention.
    ids : list of array of int
        Token ids of each text.
    sample : Sample
        Rows to keep.
    pack_tokens : int
        Tokens of one forward.

    Raises
    ------
    InputError
        If a state is NaN or infinite, naming the layer.
    """
    depth, width = len(decoder_layers(model)), model.config.hidden_size
    labels = ["embedding", *(f"layer {i}" for i in range(1, depth)), f"layer {depth} (pre-norm)", FINAL]
    states = [np.zeros((len(sample), width), dtype=np.float32) for _ in labels]
    last, mean = (np.zeros((len(ids), width), dtype=np.float32) for _ in range(2))
    first_row = np.searchsorted(sample.documents, np.arange(len(ids) + 1))
    device = next(model.parameters()).device
    with hooked(model) as recorded:
        for pack, texts in make_packs(ids, [0] * len(ids), pack_tokens):
            recorded.clear()
            final = model(**pack.to(device).model_inputs()).last_hidden_state
            hidden = [state[0].float().cpu() for state in (*recorded, final)]
            offsets = pack.cu_seqlens.numpy().astype(np.int64)
            last[texts] = hidden[-1][offsets[1:] - 1].numpy()
            mean[texts] = _means(hidden[-1], offsets)
            rows = np.concatenate([np.arange(first_row[t], first_row[t + 1]) for t in texts])
            if sample.tokens == "mean":
                kept = first_row[texts + 1] > first_row[texts]
                for state, values in zip(states, hidden, strict=True):
                    state[rows] = _means(values, offsets)[kept]
                continue
            where = np.repeat(offsets[:-1], np.diff(first_row)[texts]) + sample.positions[rows]
            for state, values in zip(states, hidden, strict=True):
                state[rows] = values[where].numpy()
    for label, state in zip(labels, states, strict=True):
        if not np.isfinite(state).all():
            raise InputError(
                "NaN or infinite states",
                where=f"{model.config._name_or_path or type(model).__name__}, {label}",
                todo="check the checkpoint (a diverged run?) or use float32",
            )
    return Activations(labels, states, last, mean, sample, bool(getattr(model.config, "is_causal", True)))


def _means(values: torch.Tensor, offsets: np.ndarray) -> np.ndarray:
    sums = np.add.reduceat(values.numpy().astype(np.float64), offsets[:-1], axis=0)
    return (sums / np.diff(offsets)[:, None]).astype(np.float32)
