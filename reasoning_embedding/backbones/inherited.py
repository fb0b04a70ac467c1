"""A run's readout: what the run says, else what its backbone has where that is an embedder, else the default."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .embedder import Embedder
from .end_token import add_end_token, ends_texts
from .heads import load_heads
from .load import build_backbone, load_config, load_tokenizer
from .readout import Head, Readout, SavedReadout, read_readout, refuse_contradiction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Names under which sentence-transformers looks for the prompt of a document.
_DOCUMENT = ("document", "passage", "corpus")


@dataclass(frozen=True)
class RunReadout:
    """What a run trains with, known before any weight is loaded.

    Attributes
    ----------
    readout : Readout
        ``end_token`` is only the run's wish or the default here; the tokenizer decides where neither says anything.
    prompts : config.Prompts
        What is put before the texts of the training data.
    saved : SavedReadout or None
        Of the backbone, where that is an embedder.
    new_heads : bool
        Whether heads start from random weights.
    wants_end : bool or None
        Whether texts must end with a special token; None: as the tokenizer does it.
    overridden : dict
        Key of ``readout`` -> (what the backbone has, what the run says in its place), in words.
    """

    readout: Readout
    prompts: config.Prompts
    saved: SavedReadout | None = None
    new_heads: bool = False
    wants_end: bool | None = None
    overridden: dict[str, tuple[str, str]] = field(default_factory=dict)

    def lines(self, backbone: str, *, chat_template: bool = False) -> list[str]:
        """Say it, for the run's report: where it comes from, and each thing that is not the backbone's own.

        Parameters
        ----------
        backbone : str
            Its name.
        chat_template : bool
            Whether its tokenizer has one.
        """
        if self.saved is None:
            plain = "texts are read as they are: the tokenizer's chat template plays no part"
            return [f"readout: {self.readout}", *([plain] if chat_template else [])]
        lines = [f"readout of {backbone}: {self.saved.readout}"]
        lines += [
            f"readout.{key}: {new} in the place of the backbone's {old}"
            for key, (old, new) in self.overridden.items()
        ]
        if self.saved.wraps_texts:
            lines.append(
                "texts are read as they are, where sentence-transformers would use the chat template"
            )
        if not self.saved.readout.normalize:
            lines.append("vectors are scaled to unit length, which the backbone leaves to its users")
        return lines

    def record(self, embedder: Embedder) -> dict[str, Any]:
        """What a checkpoint's provenance says of it."""
        return {
            "readout": str(embedder.readout),
            "inherited": self.saved is not None,
            "overridden": {key: list(pair) for key, pair in self.overridden.items()},
        }

    def saved_prompts(self, of_sources: dict[str, str]) -> dict[str, str]:
        """Prompts by name as they are saved: the backbone's, those of the data's sources, and the run's own."""
        own = {
            name: text for name in ("query", "document") if (text := getattr(self.prompts, name)) is not None
        }
        inherited = self.saved.prompts if self.saved is not None else {}
        return inherited | of_sources | own | self.prompts.named


def run_readout(settings: config.ReadoutSettings, backbone: config.Backbone) -> RunReadout:
    """Find out what a run trains with, from its settings and the files of its backbone.

    Parameters
    ----------
    settings : config.ReadoutSettings
        The run's ``readout``.
    backbone : config.Backbone
        What it starts from.

    Raises
    ------
    ContractError
        If the backbone is an embedder whose modules cannot be trained here.
    InputError
        If the readout contradicts itself, or a file of the backbone is missing or cannot be read.
    """
    saved = None
    if isinstance(backbone, config.PretrainedBackbone):
        saved = read_readout(backbone.path, revision=backbone.revision)
    base = Readout() if saved is None else saved.readout
    said = settings.model_dump(include={"attention", "pooling", "include_prompt"}, exclude_none=True)
    heads = base.heads
    if settings.heads is not None:
        width = _width(backbone) if settings.heads else 0
        heads = _chain(settings.heads, width)
    last = said.get("pooling", base.pooling) == "last"
    wants_end = settings.end_token if settings.end_token is not None or saved else last or None
    chosen = replace(base, **said, heads=heads, normalize=True, end_token=bool(wants_end))
    refuse_contradiction(chosen, "readout")
    own = {name: getattr(base, name) for name in said}
    overridden = {
        name: (_word(own[name]), _word(said[name])) for name in said if saved and own[name] != said[name]
    }
    if saved and settings.heads is not None and (base.heads or heads):
        overridden["heads"] = (f"{len(base.heads)} heads", f"{len(heads)} new ones")
    prompts = settings.prompts
    if prompts is None:
        prompts = _inherited_prompts(saved)
    elif saved is not None:
        before = _inherited_prompts(saved)
        for name in ("query", "document"):
            old, new = getattr(before, name), getattr(prompts, name)
            if old and old != new:
                overridden[f"prompts.{name}"] = (repr(old), repr(new or ""))
    return RunReadout(chosen, prompts, saved, settings.heads is not None, wants_end, overridden)


def build_embedder(
    backbone: config.Backbone,
    chosen: RunReadout,
    *,
    seed: int,
    prompts: dict[str, str] | None = None,
    max_tokens: int | None = None,
) -> Embedder:
    """Load or build a run's backbone under its readout: attention, end token, heads.

    Parameters
    ----------
    backbone : config.Backbone
        What it starts from.
    chosen : RunReadout
        How it reads out.
    seed : int
        New heads are drawn from it, on the CPU, whatever was drawn before.
    prompts : dict of str, optional
        Saved with the embedder.
    max_tokens : int, optional
        Where longer texts are cut; absent: the limit of the tokenizer and model.

    Raises
    ------
    InputError
        If the backbone cannot be loaded, or its tokenizer cannot end texts as the readout wants.
    ContractError
        If it is no decoder.
    """
    model, tokenizer = build_backbone(backbone, bidirectional=not chosen.readout.causal)
    _end_texts(tokenizer, chosen)
    readout = replace(chosen.readout, end_token=ends_texts(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedder = Embedder(
            model,
            tokenizer,
            readout,
            prompts,
            default_prompt_name=chosen.saved.default_prompt_name if chosen.saved else None,
            max_tokens=max_tokens,
        )
    if chosen.saved is not None and not chosen.new_heads and isinstance(backbone, config.PretrainedBackbone):
        load_heads(embedder.heads, backbone.path, chosen.saved.head_folders, revision=backbone.revision)
    return embedder


def run_tokenizer(backbone: config.Backbone, chosen: RunReadout) -> PreTrainedTokenizerBase:
    """Load a run's tokenizer alone, ending texts as its readout wants; raises as :func:`build_embedder`."""
    pretrained = isinstance(backbone, config.PretrainedBackbone)
    tokenizer = (
        load_tokenizer(backbone.path, revision=backbone.revision)
        if pretrained
        else load_tokenizer(backbone.tokenizer)
    )
    _end_texts(tokenizer, chosen)
    return tokenizer


def _end_texts(tokenizer: PreTrainedTokenizerBase, chosen: RunReadout) -> None:
    ends = ends_texts(tokenizer)
    if chosen.wants_end and not ends:
        add_end_token(tokenizer, "readout.end_token")
    elif chosen.wants_end is False and ends:
        raise InputError(
            "the backbone's tokenizer ends each text with a special token by itself",
            where="readout.end_token",
            todo="leave it out, or set it to true",
        )


def _width(backbone: config.Backbone) -> int:
    if isinstance(backbone, config.RandomBackbone):
        return backbone.architecture.hidden_size
    return int(load_config(backbone.path, revision=backbone.revision).get_text_config().hidden_size)


def _chain(heads: list[config.NewHead], width: int) -> tuple[Head, ...]:
    made = []
    for head in heads:
        made.append(Head(width, head.out_features, head.bias, head.activation))
        width = head.out_features
    return tuple(made)


def _inherited_prompts(saved: SavedReadout | None) -> config.Prompts:
    if saved is None:
        return config.Prompts()
    document = next((saved.prompts[name] for name in _DOCUMENT if name in saved.prompts), None)
    return config.Prompts(query=saved.prompts.get("query") or None, document=document or None)


def _word(value: Any) -> str:
    return {True: "in", False: "out"}[value] if isinstance(value, bool) else str(value)
