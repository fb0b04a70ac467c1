"""Any embedder, opened: by the packed forward where that gives its own vectors, else by sentence-transformers itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from reasoning_embedding.backbones import Embedder, read_readout
from reasoning_embedding.errors import ContractError, InputError
from reasoning_embedding.progress import Report

from .embedder import load_embedder
from .references import ResolvedModel

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

#: Texts that both forwards embed before the packed one is believed: short and long, of several scripts.
_PROBES = (
    "a cat",
    "The square root of 144 is 12, because 12 times 12 is 144.",
    "Wer hat das gesagt? 猫が好きです。 def add(a, b): return a + b",
    "The river runs past the old stone house, " * 12,
)
#: How far the packed forward may lie from the library's vectors, in measured rounding noise of the library.
_NOISES = 10.0
#: Least rounding noise believed of float32: what a single product of unit vectors already has.
_LEAST_NOISE = 1e-6
#: Texts that are handed to the library between two words of progress.
_CHUNK = 1024


class LibraryEmbedder(nn.Module):
    """An embedder of any architecture and readout, run by sentence-transformers.

    Parameters
    ----------
    model : SentenceTransformer
        The library's model.

    Attributes
    ----------
    prompts : dict of str
        The model's own prompts by name, such as ``query`` and ``document``.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        self.prompts = {name: prompt or "" for name, prompt in (model.prompts or {}).items()}

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return int(self.model.get_embedding_dimension() or 0)

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int = 512,
        pack_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embed texts; as :class:`reasoning_embedding.backbones.Embedder` does.

        Parameters
        ----------
        max_tokens : int
            Longer texts are cut, at the model's own limit if that is lower.
        pack_tokens : int, optional
            Plays no part: the library pads.
        """
        own = self.model.max_seq_length
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        try:
            self.model.max_seq_length = max_tokens if own is None else min(max_tokens, own)
            for start in range(0, len(texts), _CHUNK):
                chunk = list(texts[start : start + _CHUNK])
                # An empty prompt and no prompt are different: none would take the model's default one.
                out[start : start + len(chunk)] = self.model.encode(
                    chunk, prompt=prompt, normalize_embeddings=True, show_progress_bar=False
                )
                if progress is not None:
                    progress(start + len(chunk), len(texts))
        finally:
            self.model.max_seq_length = own
        return out


def open_embedder(
    model: ResolvedModel, *, device: torch.device | str = "cpu", report: Report | None = None
) -> Embedder | LibraryEmbedder:
    """Open any embedder so that its vectors are the ones it was published with.

    A checkpoint that names its parent was written here, and its packed forward is held to its export. Of any other
    folder a few texts are embedded by sentence-transformers too: the packed forward is used where both agree within
    ten times the library's own rounding noise (its difference between a text alone and in a padded batch).

    Parameters
    ----------
    model : ResolvedModel
        A folder, or a Hub id with its revision.
    device : torch.device or str
        Where it computes.
    report : callable, optional
        Is told why the packed forward is not used.

    Raises
    ------
    InputError
        If there is no such model, or it is no embedder.
    """
    path = model.path
    if model.provenance:
        return load_embedder(model.folder).to(device)
    if not _is_embedder(str(path), model.revision):
        raise InputError(
            "a language model, not an embedder: nothing says how its states become a vector",
            where=model.reference,
            todo="train one from it, or name a sentence-transformers model",
        )
    library = LibraryEmbedder(_load_library(model)).to(device)
    if not isinstance(path, Path):
        return library
    try:
        packed = load_embedder(path).to(device)
    except ContractError as error:
        if report is not None:
            report(f"{model.reference}: {error.what}; sentence-transformers embeds")
        return library
    difference, noise = _compare(packed, library)
    if difference > _NOISES * noise:
        if report is not None:
            report(
                f"{model.reference}: the packed forward differs by {difference:.1e} (noise {noise:.1e}); "
                "sentence-transformers embeds"
            )
        return library
    return packed


def _is_embedder(path: str, revision: str | None) -> bool:
    """Whether a folder or Hub id has modules; those that the packed forward leaves out are modules too."""
    try:
        return read_readout(path, revision=revision) is not None
    except ContractError:
        return True


def _compare(packed: Embedder, library: LibraryEmbedder) -> tuple[float, float]:
    """Return the largest entry by which packed and library vectors differ, and the library's own rounding noise."""
    limit = library.model.max_seq_length or 512
    alone = np.concatenate([library.encode([text], max_tokens=limit) for text in _PROBES])
    together = library.encode(_PROBES, max_tokens=limit)
    ours = packed.encode(_PROBES, max_tokens=limit)
    noise = max(float(np.abs(alone - together).max()), _LEAST_NOISE)
    return float(np.abs(ours - alone).max()), noise


def _load_library(model: ResolvedModel) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            str(model.path),
            revision=model.revision,
            device="cpu",
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"cannot load the model ({reason})",
            where=model.reference,
            todo="name a checkpoint folder, or a SentenceTransformer (folder or Hub id)",
        ) from error
