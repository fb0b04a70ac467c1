"""The embedder: a bidirectional decoder, mean pooling, unit length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reasoning_embedding import config
from reasoning_embedding.data.tokens import tokenize

from . import cpu
from .packs import Pack, make_packs
from .pooling import mean_pool

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def default_pack_tokens(device: torch.device) -> int:
    """Tokens of a forward that encode fastest: on a CPU its activations should fit in cache, a GPU wants many."""
    return 2048 if device.type == "cpu" else 16384


class Embedder(nn.Module):
    """A decoder that turns a pack of texts into unit vectors.

    Parameters
    ----------
    model : PreTrainedModel
        A stock decoder without head, under ``packed`` attention.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    pooling : config.Pooling
        How token states become a vector.
    prompts : dict of str, optional
        Prompts by name, kept for whoever loads the checkpoint.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: config.Pooling | None = None,
        prompts: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.pooling = pooling or config.Pooling()
        self.prompts = dict(prompts or {})

    @property
    def dimension(self) -> int:
        """Size D of the embeddings."""
        return int(self.model.config.hidden_size)

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
        states = self.model(**pack.model_inputs()).last_hidden_state[0]
        return F.normalize(mean_pool(states, pack, include_prompt=self.pooling.include_prompt), dim=-1)

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int = 512,
        pack_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embed texts, longest first, in packs without padding.

        Parameters
        ----------
        texts : sequence of str
            n texts.
        prompt : str
            Put before every text; attended to, and counted in the mean only if the pooling says so.
        max_tokens : int
            Longer texts are cut.
        pack_tokens : int, optional
            Most tokens in one forward; absent: :func:`default_pack_tokens` of the device.
        progress : callable, optional
            Called with (texts done, n) after each pack.

        Returns
        -------
        np.ndarray
            (n, D) float32 unit vectors, in the order of `texts`.
        """
        out = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if not len(texts):
            return out
        store = tokenize(
            [(prompt, text) for text in texts],
            self.tokenizer,
            query_max_tokens=max_tokens,
            document_max_tokens=max_tokens,
        )
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
