"""The embedder: a decoder, its readout, unit length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reasoning_embedding.data.tokens import tokenize
from reasoning_embedding.errors import ContractError, InputError

from . import cpu
from .heads import make_heads
from .layers import is_causal
from .packs import Pack, make_packs
from .pooling import pool
from .readout import Readout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Limit of a text where neither tokenizer nor model has one; the tokenizer's own number, 1e30, is no integer of its code.
NO_LIMIT = 1 << 30


def default_pack_tokens(device: torch.device) -> int:
    """Tokens of a forward that encode fastest: on a CPU its activations should fit in cache, a GPU wants many."""
    return 2048 if device.type == "cpu" else 16384


def own_limit(tokenizer: Any, model_config: Any) -> int:
    """Return where sentence-transformers cuts texts, unless its own settings say so: the lower limit of both."""
    limits = [
        getattr(tokenizer, "model_max_length", None),
        getattr(model_config, "max_position_embeddings", None),
    ]
    return int(min(limit for limit in (*limits, NO_LIMIT) if limit and limit > 0))


def choose_prompt(
    prompts: Mapping[str, str], default: str | None, prompt: str | None, prompt_name: str | None
) -> str:
    """Return what is put before a text: what is given, else the prompt of that name, else the default; else nothing.

    Raises
    ------
    InputError
        If there is no prompt of that name.
    """
    if prompt is not None:
        return prompt
    name = default if prompt_name is None else prompt_name
    if name is None:
        return ""
    if name not in prompts:
        raise InputError(
            f"there is no prompt named {name!r}",
            where="prompt_name",
            todo=f"one of {', '.join(prompts)}"
            if prompts
            else "this model has no prompts; give the prompt itself",
        )
    return prompts[name]


class Embedder(nn.Module):
    """A decoder that turns a pack of texts into unit vectors.

    Parameters
    ----------
    model : PreTrainedModel
        A stock decoder without its language-model head, under ``packed`` attention.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    readout : Readout, optional
        How token states become a vector. Absent: the mean of all tokens but the prompt's, under the model's own
        attention. Heads get random weights from torch's generator.
    prompts : dict of str, optional
        Prompts by name, kept for whoever loads the checkpoint.
    default_prompt_name : str, optional
        The prompt of texts that are embedded without one.
    max_tokens : int, optional
        Where longer texts are cut. Absent: the lower limit of tokenizer and model.

    Attributes
    ----------
    heads : nn.Sequential
        Linear maps after pooling; empty where there are none.

    Raises
    ------
    ContractError
        If the readout's attention is not the model's.
    InputError
        If a head does not take what comes before it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        readout: Readout | None = None,
        prompts: dict[str, str] | None = None,
        *,
        default_prompt_name: str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        causal = is_causal(model.config)
        self.readout = readout or Readout(attention="causal" if causal else "bidirectional")
        if self.readout.causal != causal:
            raise ContractError(
                f"the readout's attention is {self.readout.attention}, the model's is not",
                where="readout.attention",
                todo="load the decoder with the attention of its readout",
            )
        self.heads = make_heads(self.readout.heads, int(model.config.hidden_size))
        self.prompts = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self.max_tokens = max_tokens or own_limit(tokenizer, model.config)

    @property
    def dimension(self) -> int:
        """Size D of the embeddings."""
        heads = self.readout.heads
        return heads[-1].out_features if heads else int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def forward(self, pack: Pack) -> Tensor:
        """Embed the n texts of a pack.

        Returns
        -------
        Tensor
            (n, D) unit vectors in float32 (float64 for a float64 model).
        """
        return self.read_out(self.model(**pack.model_inputs()).last_hidden_state[0], pack)

    def read_out(self, states: Tensor, pack: Pack) -> Tensor:
        """Turn the (T, hidden) final states of a pack's tokens into its (n, D) unit vectors: pooling, heads, length."""
        readout = self.readout
        pooled = pool(states, pack, readout.pooling, include_prompt=readout.include_prompt)
        return F.normalize(self.heads(pooled), dim=-1)

    def prompt(self, prompt: str | None = None, prompt_name: str | None = None) -> str:
        """Return what is put before a text, as sentence-transformers decides it.

        Parameters
        ----------
        prompt : str, optional
            Taken as it is; the empty string is no prompt.
        prompt_name : str, optional
            A name among `prompts`. With neither: the default prompt, if the embedder has one.

        Raises
        ------
        InputError
            If there is no prompt of that name.
        """
        return choose_prompt(self.prompts, self.default_prompt_name, prompt, prompt_name)

    def require_known(self, largest: int) -> None:
        """Refuse token ids that the model has no embedding for; a tokenizer may hold some that no text uses.

        Parameters
        ----------
        largest : int
            The largest id of the texts.

        Raises
        ------
        ContractError
            If the model has fewer rows.
        """
        rows = self.model.get_input_embeddings().num_embeddings
        if largest >= int(rows):  # ty: ignore[invalid-argument-type]
            raise ContractError(
                f"a text has the token {largest} ({self.tokenizer.convert_ids_to_tokens(largest)!r}), but the model "
                f"embeds {rows}",
                where="its tokenizer",
                todo="use the tokenizer the model was made with",
            )

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_tokens: int | None = None,
        pack_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embed texts, longest first, in packs without padding.

        Parameters
        ----------
        texts : sequence of str
            n texts.
        prompt, prompt_name : str, optional
            What is put before every text, or its name; see :meth:`prompt`. It is attended to, and pooled only if the
            readout says so.
        max_tokens : int, optional
            Longer texts are cut. Absent: the embedder's own limit.
        pack_tokens : int, optional
            Most tokens in one forward; absent: :func:`default_pack_tokens` of the device.
        progress : callable, optional
            Called with (texts done, n) after each pack.

        Returns
        -------
        np.ndarray
            (n, D) float32 unit vectors, in the order of `texts`.

        Raises
        ------
        InputError
            If there is no prompt of that name, or a text has no tokens.
        ContractError
            If a text has a token that the model does not embed.
        """
        prompt = self.prompt(prompt, prompt_name)
        max_tokens = max_tokens or self.max_tokens
        out = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if not len(texts):
            return out
        store = tokenize(
            [(prompt, text) for text in texts],
            self.tokenizer,
            query_max_tokens=max_tokens,
            document_max_tokens=max_tokens,
        )
        self.require_known(int(store.values.max(initial=0)))
        pack_tokens = pack_tokens or default_pack_tokens(self.device)
        was_training = self.training
        self.eval()
        done = 0
        try:
            arrays = [store[index] for index in range(len(texts))]
            with cpu.fast_encoding(self.model, tokens=pack_tokens):
                for pack, indices in make_packs(arrays, store.prompt_lengths, pack_tokens):
                    out[indices] = self(pack.to(self.device)).float().cpu().numpy()
                    done += len(indices)
                    if progress is not None:
                        progress(done, len(texts))
        finally:
            self.train(was_training)
        return out
