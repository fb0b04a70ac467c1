"""Any embedder, opened: by the packed forward where that gives its own vectors, else by sentence-transformers itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from reasoning_embedding.backbones import Embedder, choose_prompt, load_decoder, read_readout
from reasoning_embedding.backbones.readout import head_weights, pooling_mode
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
#: A limit of tokens from here on is a tokenizer's way of having none.
_NO_LIMIT = 10**9
#: Tokens of a text that are compared where a model has no limit.
_LONGEST = 512
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
    default_prompt_name : str or None
        The prompt that a text gets where nobody names one.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        self.prompts = {name: prompt or "" for name, prompt in (model.prompts or {}).items()}
        self.default_prompt_name: str | None = model.default_prompt_name

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return int(self.model.get_embedding_dimension() or 0)

    @property
    def max_tokens(self) -> int | None:
        """The model's own limit; None where it has none."""
        own = self.model.max_seq_length
        return None if own is None or own >= _NO_LIMIT else int(own)

    @property
    def readout(self) -> dict[str, Any]:
        """How token states become a vector, in words: the modules, and the pooling where there is one."""
        modules: list[Any] = list(self.model)
        found = [pooling_mode(each.get_config_dict()) for each in modules if hasattr(each, "pooling_mode")]
        return {
            "modules": [type(each).__name__ for each in modules],
            "pooling": found[0] if found else None,
        }

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
        """Embed texts; as :class:`reasoning_embedding.backbones.Embedder` does.

        Parameters
        ----------
        texts : sequence of str
            n texts.
        prompt : str, optional
            Put before every text; empty: nothing is. Absent: the prompt of that name, else the model's default one.
        prompt_name : str, optional
            One of the model's prompts.
        max_tokens : int, optional
            Longer texts are cut. Absent: at the model's own limit.
        pack_tokens : int, optional
            Plays no part: the library pads.
        progress : callable, optional
            Called with (texts done, n).

        Raises
        ------
        InputError
            If there is no prompt of that name, or the model has no positions for that many tokens.
        """
        prompt = choose_prompt(self.prompts, self.default_prompt_name, prompt, prompt_name)
        own = self.model.max_seq_length
        if max_tokens is not None:
            self._require_positions(max_tokens)
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        try:
            if max_tokens is not None:
                self.model.max_seq_length = max_tokens
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

    def _require_positions(self, max_tokens: int) -> None:
        """Refuse a limit above what an encoder has learned positions for: it would fail in the midst of a text."""
        first: Any = self.model[0]
        settings = getattr(first, "config", None)
        most = getattr(settings, "max_position_embeddings", None)
        learned = any("position_embeddings" in name for name, _ in first.named_parameters())
        if learned and most is not None and max_tokens > most:
            raise InputError(
                f"the model has positions for {most} tokens, fewer than {max_tokens}",
                where="max_tokens",
                todo=f"cut texts at {most} tokens or fewer",
            )


def open_embedder(
    model: ResolvedModel, *, device: torch.device | str = "cpu", report: Report | None = None
) -> Embedder | LibraryEmbedder:
    """Open any embedder so that its vectors are the ones it was published with.

    A checkpoint that names its parent was written here, and its packed forward is held to its export. Of any other
    model a few texts are embedded by sentence-transformers too: the packed forward is used where both agree within
    ten times the library's own rounding noise (its difference between a text alone and in a padded batch). A bare
    language model is read as step 0 of a run would read it, and that is said.

    Parameters
    ----------
    model : ResolvedModel
        A folder, or a Hub id with its revision, which is downloaded.
    device : torch.device or str
        Where it computes.
    report : callable, optional
        Is told why the packed forward is not used, and how a language model is read; with nobody to tell, one is
        refused.

    Raises
    ------
    InputError
        If there is no such model, or it is a language model and nobody is told how it is read.
    SetupError
        If it is a model of the Hub, which cannot be reached.
    """
    say = report or (lambda line: None)
    if not _is_embedder(model):
        return _bare(model, report).to(device)
    if isinstance(model.path, Path) and model.provenance:
        return load_embedder(model.folder).to(device)
    with contextlib.suppress(ContractError):  # the library may know what the packed forward does not
        saved = read_readout(str(model.files))
        for head in saved.head_folders if saved else ():  # the library would not say which file is missing
            head_weights(str(model.files), head)
    library = LibraryEmbedder(load_library(model)).to(device)
    if library.model.similarity_fn_name not in (None, "cosine"):
        say(
            f"{model.reference}: its similarity is {library.model.similarity_fn_name!r}; vectors are brought to unit "
            "length here, so texts are compared by the cosine"
        )
    try:
        packed = load_embedder(model.files).to(device)
    except ContractError as error:
        say(f"{model.reference}: {error.what}; sentence-transformers embeds")
        return library
    difference, noise = _compare(packed, library)
    if difference > _NOISES * noise:
        say(
            f"{model.reference}: the packed forward differs by {difference:.1e} (noise {noise:.1e}); "
            "sentence-transformers embeds"
        )
        return library
    return packed


def _bare(model: ResolvedModel, report: Report | None) -> Embedder:
    """A language model as step 0 of a run with the default readout reads it."""
    if not (model.files / "config.json").is_file():
        raise InputError(
            "no model lies here: there is no config.json",
            where=model.reference,
            todo="name a checkpoint folder, or a sentence-transformers model",
        )
    what = "a language model, not an embedder: nothing says how its states become a vector"
    if report is None:
        raise InputError(
            what, where=model.reference, todo="train one from it, or name a sentence-transformers model"
        )
    decoder, tokenizer = load_decoder(str(model.files), bidirectional=True)
    report(
        f"{model.reference}: {what}. It is read as step 0 of a run: bidirectional attention, the mean of its last states"
    )
    return Embedder(decoder, tokenizer)


def _is_embedder(model: ResolvedModel) -> bool:
    """Whether a model says how states become a vector; modules that the packed forward leaves out do so too."""
    return (model.files / "modules.json").is_file()


def _compare(packed: Embedder, library: LibraryEmbedder) -> tuple[float, float]:
    """Return the largest entry by which packed and library vectors differ, and the library's own rounding noise."""
    limit = library.max_tokens or _LONGEST
    asked = next((prompt for prompt in library.prompts.values() if prompt), None)
    difference, noise = 0.0, _LEAST_NOISE
    for prompt in [""] if asked is None else ["", asked]:
        alone = np.concatenate([library.encode([text], prompt=prompt, max_tokens=limit) for text in _PROBES])
        together = library.encode(_PROBES, prompt=prompt, max_tokens=limit)
        ours = packed.encode(_PROBES, prompt=prompt, max_tokens=limit)
        noise = max(noise, float(np.abs(alone - together).max()))
        difference = max(difference, float(np.abs(ours - alone).max()))
    return difference, noise


def load_library(model: ResolvedModel) -> SentenceTransformer:
    """Load a model as sentence-transformers does, on the CPU; one without modules gets its mean pooling.

    Raises
    ------
    InputError
        If it cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            str(model.files),
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


def library_tokens(model: SentenceTransformer, texts: Sequence[str], max_tokens: int) -> list[np.ndarray]:
    """Return the token ids of each text, int64, as sentence-transformers gives them to the model, cut at `max_tokens`.

    What the library does to a text before (lower case, a chat template) is done.
    """
    own, first = model.max_seq_length, cast("Any", model[0])
    try:
        model.max_seq_length = max_tokens if own is None else min(max_tokens, own)
        found = [first.preprocess([text])["input_ids"][0] for text in texts]
    finally:
        model.max_seq_length = own
    return [ids.numpy().astype(np.int64) for ids in found]
