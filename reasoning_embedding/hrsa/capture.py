"""Capturing a model's states on a probe set, by hooks that are always removed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from reasoning_embedding.backbones import make_pack, packs_for
from reasoning_embedding.data import tokens
from reasoning_embedding.distributed import World, sum_over_ranks
from reasoning_embedding.errors import InputError

from .forward import attends_causally, hooked, layer_labels, states_of_pack, without_final_norm

Tokens = Literal["all", "last", "mean"]
#: How much longer (squared) a sink is than other states, how many there may be, and what they are looked for in.
_SINK, _MOST_SINKS, _SINK_TEXTS, _SINK_TOKENS = 10, 4, 16, 64
#: Takes, for each model, the rows (b, D) of every layer, and the text of each row.
Each = Callable[[list[list[torch.Tensor]], torch.Tensor], None]


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
    skipped : int
        Leading tokens of every text that are no rows, under ``all``.
    """

    tokens: Tokens
    documents: np.ndarray
    positions: np.ndarray
    skipped: int = 0

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


def draw_sample(lengths: list[int], rule: Tokens, max_rows: int, seed: int, *, skip: int = 0) -> Sample:
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
    skip : int
        Leading tokens of every text that are left out where rows are tokens.

    Raises
    ------
    InputError
        If no text is longer than that.
    """
    sizes = np.asarray(lengths)
    if rule == "all":
        sizes = np.maximum(sizes - skip, 0)
        documents = np.repeat(np.arange(len(sizes)), sizes)
        positions = skip + np.arange(len(documents)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        if not len(documents):
            raise InputError(
                f"no text of the probe set has more than {skip} tokens, which are left out",
                where="skip_first",
                todo="leave out fewer tokens, or give longer texts",
            )
    else:
        skip = 0
        documents = np.arange(len(sizes))
        positions = sizes - 1 if rule == "last" else np.full(len(sizes), -1)
    if len(documents) > max_rows:
        kept = np.sort(np.random.default_rng(seed).choice(len(documents), size=max_rows, replace=False))
        documents, positions = documents[kept], positions[kept]
    return Sample(rule, documents, positions, skip)


@torch.inference_mode()
def read(
    models: Sequence[Any],
    ids: Sequence[list[np.ndarray]],
    sample: Sample,
    *,
    pack_tokens: int = 8192,
    world: World | None = None,
    each: Each | None = None,
) -> list[Activations]:
    """Run the probe set through models in lockstep, once, and keep the sampled rows of every layer.

    Parameters
    ----------
    models : sequence of PreTrainedModel
        Without a language-model head; see :mod:`.forward`.
    ids : sequence of list of array of int
        For each model, token ids of each text.
    sample : Sample
        Rows to keep.
    pack_tokens : int
        Tokens of one forward.
    world : World, optional
        Ranks that share the texts; each gets all the kept rows.
    each : callable, optional
        Also given every row, kept or not, a pack at a time; under ``mean`` and ``last`` a row is a text.

    Returns
    -------
    list of Activations
        One a model.

    Raises
    ------
    InputError
        If a state is NaN or infinite, naming the layer.
    """
    world = world or World()
    kept = [_Kept(model, len(texts), sample) for model, texts in zip(models, ids, strict=True)]
    packs = packs_for(np.array([len(text) for text in ids[0]]), pack_tokens)
    with contextlib.ExitStack() as hooks:
        recorded = [hooks.enter_context(hooked(model)) for model in models]
        for texts in packs[world.rank :: world.size]:
            rows = []
            for model, mine, states, keep in zip(models, ids, recorded, kept, strict=True):
                pack = make_pack([mine[text] for text in texts], [0] * len(texts)).to(keep.device)
                hidden = states_of_pack(model, pack, states)
                offsets = pack.cu_seqlens.long()
                keep.add(texts, hidden, offsets)
                if each is not None:
                    rows.append([_rows_of(state, offsets, sample.tokens, sample.skipped) for state in hidden])
            if each is not None:
                tokens_of = [max(0, len(ids[0][text]) - sample.skipped) for text in texts]
                lengths = tokens_of if sample.tokens == "all" else np.ones(len(texts), dtype=int)
                each(rows, torch.from_numpy(np.repeat(texts, lengths)))
    return [keep.finish(world) for keep in kept]


class _Kept:
    """Rows of one model that are kept while it reads."""

    def __init__(self, model: Any, texts: int, sample: Sample) -> None:
        self.model, self.sample = model, sample
        self.device = next(model.parameters()).device
        self.labels, width = layer_labels(model), model.config.hidden_size
        self.states = [torch.zeros(len(sample), width) for _ in self.labels]
        self.last, self.mean = (torch.zeros(texts, width) for _ in range(2))
        self.first = np.searchsorted(sample.documents, np.arange(texts + 1))

    def add(self, texts: np.ndarray, hidden: list[torch.Tensor], offsets: torch.Tensor) -> None:
        """Keep what the sample names of a pack of texts."""
        self.last[texts] = _rows_of(hidden[-1], offsets, "last").cpu()
        self.mean[texts] = _rows_of(hidden[-1], offsets, "mean").cpu()
        first = self.first
        rows = np.concatenate([np.arange(first[text], first[text + 1]) for text in texts])
        if self.sample.tokens == "mean":
            kept = torch.from_numpy(first[texts + 1] > first[texts])
            for state, values in zip(self.states, hidden, strict=True):
                state[rows] = _rows_of(values, offsets, "mean").cpu()[kept]
            return
        starts = np.repeat(offsets[:-1].cpu().numpy(), np.diff(first)[texts])
        where = torch.from_numpy(starts + self.sample.positions[rows]).to(self.device)
        for state, values in zip(self.states, hidden, strict=True):
            state[rows] = values[where].cpu()

    def finish(self, world: World) -> Activations:
        """Put the ranks' rows together and check them."""
        if world.size > 1:
            for tensor in (*self.states, self.last, self.mean):
                tensor.copy_(sum_over_ranks(tensor.to(world.device), world))
        for label, state in zip(self.labels, self.states, strict=True):
            check_finite(state, self.model, label)
        causal = attends_causally(self.model)
        states = [state.numpy() for state in self.states]
        normed = not np.array_equal(states[-1], states[-2])
        labels = self.labels if normed else without_final_norm(self.labels)
        return Activations(labels, states, self.last.numpy(), self.mean.numpy(), self.sample, causal)


def check_finite(values: torch.Tensor, model: Any, label: str) -> None:
    """Refuse NaN and infinities.

    Raises
    ------
    InputError
        Naming the model and the layer.
    """
    if not torch.isfinite(values).all():
        raise InputError(
            "NaN or infinite states",
            where=f"{model.config._name_or_path or type(model).__name__}, {label}",
            todo="check the checkpoint (a diverged run?) or use float32",
        )


def _rows_of(values: torch.Tensor, offsets: torch.Tensor, rule: Tokens, skip: int = 0) -> torch.Tensor:
    """Rows of a pack under a token rule: its tokens but the `skip` first ones of a text, or one row a text."""
    if rule == "all":
        return values[_places(offsets) >= skip] if skip else values
    if rule == "last":
        return values[offsets[1:] - 1]
    lengths = offsets.diff()
    text = torch.repeat_interleave(lengths)
    sums = values.new_zeros(len(lengths), values.shape[1], dtype=torch.float64)
    return (sums.index_add_(0, text, values.double()) / lengths[:, None]).float()


def _places(offsets: torch.Tensor) -> torch.Tensor:
    """Position of each token of a pack in its text."""
    lengths = offsets.diff()
    starts = torch.repeat_interleave(offsets[:-1], lengths)
    return torch.arange(len(starts), device=offsets.device) - starts


@torch.inference_mode()
def leading_sinks(model: Any, ids: Sequence[np.ndarray]) -> int:
    """How many of the first tokens of a text are attention sinks, measured on a few texts.

    Parameters
    ----------
    model : PreTrainedModel
        Without a language-model head.
    ids : sequence of array of int
        Token ids of each text.

    Returns
    -------
    int
        0 to 4: leading positions whose states, after some decoder layer, are more than ten times as long (squared) as
        those of the positions behind the fourth; 0 where no text has six tokens.

    Notes
    -----
    Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (2024), and Sun et al., "Massive Activations
    in Large Language Models" (2024): in the middle layers the first token's state is hundreds of times as long.
    """
    texts = [text[:_SINK_TOKENS] for text in ids if len(text) > _MOST_SINKS + 1][:_SINK_TEXTS]
    if not texts:
        return 0
    pack = make_pack(texts, [0] * len(texts)).to(next(model.parameters()).device)
    places = _places(pack.cu_seqlens.long())
    found = 0
    with hooked(model) as states:
        for state in states_of_pack(model, pack, states)[1:-1]:
            squares = state.double().square().sum(dim=1)
            usual = squares[places >= _MOST_SINKS].median()
            for place in range(_MOST_SINKS):
                if squares[places == place].median() <= _SINK * usual:
                    break
                found = max(found, place + 1)
    return found
